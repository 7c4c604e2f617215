"""The classes of a segmentor: their names, rows, colours, and how they are saved."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from mmengine.logging import print_log
from mmseg.registry import MODELS

from zs3_mmseg.datasets.splits import ZeroShotSplit, resolve_split
from zs3_mmseg.models.class_embeddings import ClassQueries, split_names
from zs3_mmseg.utils.names import did_you_mean

from .class_rows import ClassRows, RowState, row_state, rows_by_class
from .vocabulary import Vocabulary, new_vocabulary, split_vocabulary

SETTINGS = ('inductive', 'transductive', 'supervised')


class OpenVocabulary(nn.Module):
    """The part of a segmentor that knows its classes.

    There are two vocabularies: the classes of the split, with which it is trained and
    saved, and the current one, which :meth:`set_classes` changes at run time.
    """

    split: ZeroShotSplit
    setting: str
    #: The setting of the present part of a training, see :meth:`train_as`.
    training_setting: str
    #: Classes of another split to test on; their rows are always the bank's.
    _test_vocabulary: Vocabulary | None = None
    decode_head: Any

    def _init_classes(
        self, class_embeddings: Mapping | Any | None, split: Any, setting: str
    ) -> None:
        """Resolve the split and build the bank; nothing is computed yet.

        Args:
            class_embeddings: config of a bank, a bank, or None.
            split: name, dict or split.
            setting: one of :data:`SETTINGS`.

        Raises:
            ValueError: for an unknown setting.
        """
        if setting not in SETTINGS:
            raise ValueError(
                f'setting={setting!r} is unknown: expected one of {SETTINGS}.'
                f'{did_you_mean(str(setting), SETTINGS)}'
            )
        self.split = resolve_split(split)
        self.setting = self.training_setting = setting
        bank: Any = class_embeddings
        if isinstance(bank, Mapping):
            bank = MODELS.build(dict(bank))
        self._rows = ClassRows(bank)
        self._trained_vocabulary = split_vocabulary(self.split, setting)
        self._vocabulary = self._trained_vocabulary
        self._given_rows: list[Tensor] | None = None
        self._queries: dict[str, ClassQueries] = {}

    # -- names ---------------------------------------------------------------------

    @property
    def vocabulary(self) -> Vocabulary:
        """The current classes: names, seen or unseen, colours."""
        return self._vocabulary

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the current classes, in the order of the scores."""
        return self._vocabulary.names

    def training_names(self) -> tuple[str, ...]:
        """Return the names whose rows training uses, in the order of the rows."""
        inductive = self.training_setting == 'inductive'
        return self.split.seen if inductive else self.split.classes

    @property
    def dataset_meta(self) -> dict[str, Any]:
        """``classes`` and ``palette`` of the current vocabulary, as mmseg wants them.

        Setting it changes colours only: mmseg's own APIs set the classes of the
        training data, or those of Cityscapes, after a model has been built.
        """
        return {
            'classes': self._vocabulary.display_names,
            'palette': [list(colour) for colour in self._vocabulary.palette],
        }

    @dataset_meta.setter
    def dataset_meta(self, meta: Mapping[str, Any] | None) -> None:
        meta = meta or {}
        classes = tuple(meta.get('classes') or ())
        palette = meta.get('palette') or ()
        current = self._vocabulary
        if classes not in (current.names, current.display_names):
            if classes:
                print_log(
                    f'{type(self).__name__} keeps its {len(current.names)} classes; '
                    f'dataset_meta names {len(classes)} others. set_classes() changes '
                    'the vocabulary.',
                    logger='current',
                    level=logging.WARNING,
                )
            return
        if len(palette) == len(classes):
            colours = [[int(value) for value in colour] for colour in palette]
            changed = Vocabulary(current.names, current.seen, colours)
            if current is self._trained_vocabulary:
                self._trained_vocabulary = changed
            if current is self._test_vocabulary:
                self._test_vocabulary = changed
            self._vocabulary = changed

    def set_classes(
        self,
        names: Sequence[str],
        unseen: Sequence[str] | None = None,
        embeddings: Tensor | Any | None = None,
    ) -> None:
        """Change the vocabulary; training and checkpoints keep that of the split.

        Args:
            names: new class names; ``'sofa|couch'`` is one class with two names.
            unseen: those among them that are unseen; None: all but those that mean a
                class seen in training.
            embeddings: rows to use, ``(Q, D)`` in the order of names and synonyms or
                ``(K, D)``; None: known rows are used and new ones computed.

        Raises:
            ValueError: if names are empty or occur twice, if ``unseen`` holds others,
                if rows do not fit, or if the head's classes are fixed.
            FileNotFoundError: if a file to compute new rows is missing.
        """
        self._require_open_classes()
        vocabulary = new_vocabulary(names, unseen, self._trained_vocabulary)
        given = None
        if embeddings is None:
            self._rows.get(vocabulary.names, self._device_and_dtype()[0])
        else:
            given = self._fitting_rows(torch.as_tensor(embeddings), vocabulary.names)
        self._use(vocabulary, given)

    def _require_open_classes(self) -> None:
        if not self._reads_queries():
            raise ValueError(
                f'the classes of this model are fixed: its decode head '
                f'{type(self.decode_head).__name__} does not read class embeddings'
            )

    def reset_classes(self) -> None:
        """Return to the classes of the split."""
        self._use(self._trained_vocabulary, None)

    def _use(self, vocabulary: Vocabulary, given: list[Tensor] | None) -> None:
        """Make a vocabulary the current one."""
        self._check_vocabulary(vocabulary)
        self._vocabulary = vocabulary
        self._given_rows = given
        self._queries.pop('current', None)
        self.num_classes = self.out_channels = len(vocabulary.names)
        if self._reads_queries():
            self.decode_head.num_classes = self.num_classes
            self.decode_head.out_channels = self.num_classes

    def _reads_queries(self) -> bool:
        """Tell whether the decode head reads class embeddings."""
        raise NotImplementedError

    def _check_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Refuse a vocabulary that the model's options do not fit."""

    # -- rows ----------------------------------------------------------------------

    def train(self, mode: bool = True) -> Any:
        """Switch the mode; inductive training does not keep rows of unseen names."""
        if mode and self.training_setting == 'inductive':
            self._queries.pop('current', None)
            self._rows.forget_all_but(self.training_names())
        return super().train(mode)

    def training_queries(self) -> ClassQueries:
        """Return the rows used in training, on the model's device."""
        names = self.training_names()
        seen = dict(
            zip(
                self._trained_vocabulary.names,
                self._trained_vocabulary.seen,
                strict=True,
            )
        )
        return self._cached_queries('training', names, [seen[name] for name in names])

    def current_queries(self) -> ClassQueries:
        """Return the rows of the current classes, on the model's device."""
        vocabulary = self._vocabulary
        return self._cached_queries('current', vocabulary.names, vocabulary.seen)

    # Queries made by a prediction in inference mode are kept, and serve gradients too.
    @torch.inference_mode(mode=False)
    def _cached_queries(
        self, kind: str, names: Sequence[str], seen: Sequence[bool]
    ) -> ClassQueries:
        device, dtype = self._device_and_dtype()
        known = self._queries.get(kind)
        if known is not None and (
            (known.embeddings.device, known.embeddings.dtype) == (device, dtype)
        ):
            return known
        if not self._needs_rows():
            rows = [torch.zeros(1, 0)] * len(names)
        elif kind == 'current' and self._given_rows is not None:
            rows = self._given_rows
        elif kind == 'current' and self._vocabulary is self._test_vocabulary:
            rows = self._rows.made_by_bank(names, device)
        else:
            rows = self._rows.get(names, device)
        owners = [index for index, part in enumerate(rows) for _ in part]
        queries = ClassQueries(
            embeddings=torch.cat(rows).to(device, dtype),
            query_to_class=torch.tensor(owners, device=device),
            seen_mask=torch.tensor(list(seen), device=device),
        )
        self._queries[kind] = queries
        return queries

    def _needs_rows(self) -> bool:
        """Tell whether anything in the model reads class embeddings."""
        raise NotImplementedError

    def _fitting_rows(self, embeddings: Tensor, names: Sequence[str]) -> list[Tensor]:
        owners = torch.tensor(split_names(names)[1])
        if len(embeddings) == len(names) != len(owners):
            owners = torch.arange(len(names))
        rows = rows_by_class(embeddings, owners, len(names))
        try:
            width = self._rows.width
        except FileNotFoundError:  # given rows do without the files of the bank
            width = None
        if width is not None and rows[0].shape[1] != width:
            raise ValueError(
                f'the given embeddings have {rows[0].shape[1]} columns, the model was '
                f'built for {width}'
            )
        return rows

    def _device_and_dtype(self) -> tuple[torch.device, torch.dtype]:
        """Return where the parameters are, and their floating type."""
        for tensor in chain(self.parameters(), self.buffers()):
            if tensor.is_floating_point():
                return tensor.device, tensor.dtype
        return torch.device('cpu'), torch.get_default_dtype()

    # -- checkpoints ---------------------------------------------------------------

    def get_extra_state(self) -> RowState:
        """Return the split's names and rows, as plain tensors and strings."""
        rows = [torch.zeros(1, 0)] * len(self.split.classes)
        if self._needs_rows():
            rows = self._rows.get(self.split.classes, self._device_and_dtype()[0])
        return row_state(self.split, self.setting, rows, self._rows.provenance)

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take names and rows from a checkpoint.

        Raises:
            ValueError: if the checkpoint's classes, their order, or the unseen ones
                among them are not those of the config's split.
        """
        self._check_split(state)
        self._compare_setting(state)
        if self._needs_rows() and state['embeddings'].shape[1]:
            self._rows.load(
                self.split.classes,
                state['embeddings'],
                state['query_to_class'],
                state['provenance'],
            )
            self._queries.clear()

    def _compare_setting(self, state: Mapping[str, Any]) -> None:
        theirs = state.get('setting', self.setting)
        # Self-training starts from an inductive model.
        if theirs != self.setting and self.setting != 'transductive':
            print_log(
                f'The checkpoint was trained with setting={theirs!r}, the config has '
                f'setting={self.setting!r}: its calibrators (such as SeenShift) may be '
                'those of another setting. Set model.setting, or use the config of the '
                'training.',
                logger='current',
                level=logging.WARNING,
            )

    def _check_split(self, state: Mapping[str, Any]) -> None:
        theirs = f'the checkpoint was trained with split {state["split"]!r}'
        ours = f'the config has split {self.split.name!r}'
        for key, expected in (
            ('classes', self.split.classes),
            ('unseen', self.split.unseen),
        ):
            found = tuple(state[key])
            if found == expected:
                continue
            first = next(
                (
                    i
                    for i, (a, b) in enumerate(zip(found, expected, strict=False))
                    if a != b
                ),
                min(len(found), len(expected)),
            )
            raise ValueError(
                f'{theirs} ({len(found)} {key}: {_around(found, first)}), but {ours} '
                f'({len(expected)} {key}: {_around(expected, first)}); they differ '
                f'from number {first} on. Set model.split to the split of the '
                'checkpoint.'
            )


def _around(names: Sequence[str], place: int, shown: int = 4) -> str:
    """Return a few names around a place in a long list."""
    start = max(place - 1, 0)
    part = [repr(name) for name in names[start : start + shown]]
    before, after = start > 0, start + shown < len(names)
    return ', '.join(['...'] * before + part + ['...'] * after) or 'none'
