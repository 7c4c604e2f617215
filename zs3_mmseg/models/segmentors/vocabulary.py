"""The classes of a segmentor: their names, rows, colours, and how they are saved."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mmengine.logging import print_log
from mmseg.registry import MODELS

from zs3_mmseg.datasets.splits import ZeroShotSplit, find_name, resolve_split
from zs3_mmseg.models.class_embeddings import (
    ClassQueries,
    display_name,
    split_names,
    synonyms_of,
)
from zs3_mmseg.utils.names import did_you_mean
from zs3_mmseg.utils.palette import default_palette

Palette = list[list[int]]


@dataclass(frozen=True)
class Vocabulary:
    """Names, which of them are seen, and their colours.

    Attributes:
        names: one name per class; ``'sofa|couch'`` is one class with two names.
        seen: for each class whether it had labels in training.
        palette: an RGB colour for each class.
    """

    names: tuple[str, ...]
    seen: tuple[bool, ...]
    palette: Palette

    @property
    def display_names(self) -> tuple[str, ...]:
        """What classes are called in legends: their first synonym."""
        return tuple(display_name(name) for name in self.names)


def split_vocabulary(split: ZeroShotSplit, setting: str) -> Vocabulary:
    """Return the vocabulary of a split.

    In the supervised setting every class has labels in training, so all are seen.
    """
    supervised = setting == 'supervised'
    return Vocabulary(
        names=split.classes,
        seen=tuple(supervised or seen for seen in split.seen_mask()),
        palette=default_palette(len(split.classes)),
    )


def new_vocabulary(
    names: Sequence[str], unseen: Sequence[str] | None, trained: Vocabulary
) -> Vocabulary:
    """Make a vocabulary of a user's names.

    Args:
        names: the new names.
        unseen: those among them that are unseen. None: all but the ones that mean a
            class that was seen in training, in any spelling the alias table knows.
        trained: vocabulary of the training.

    Raises:
        ValueError: if names are empty or occur twice, also as synonyms, or if
            ``unseen`` holds anything else than some of the names.
    """
    # mmengine's config files and numpy may bring other string types and sequences.
    texts = names if isinstance(names, str) else [*names]
    split_names(texts)  # raises what is wrong with them
    listed = tuple(name.strip() for name in texts)
    if unseen is None:
        seen = tuple(_is_seen(name, trained) for name in listed)
    else:
        seen = _all_but(unseen, listed)
    return Vocabulary(listed, seen, _colours(listed, trained))


def _is_seen(name: str, trained: Vocabulary) -> bool:
    matches = (find_name(word, trained.names) for word in synonyms_of(name))
    return any(index is not None and trained.seen[index] for index in matches)


def _all_but(unseen: Sequence[str], names: tuple[str, ...]) -> tuple[bool, ...]:
    if isinstance(unseen, str):
        raise ValueError(f'unseen must be a list of names, got the string {unseen!r}')
    for name in unseen:
        if name not in names:
            raise ValueError(
                f'unseen name {name!r} is none of the classes.'
                f'{did_you_mean(name, names)}'
            )
    return tuple(name not in unseen for name in names)


def _colours(names: tuple[str, ...], trained: Vocabulary) -> Palette:
    """Return the trained colour of trained names and fresh ones for the others."""
    known = dict(zip(trained.names, trained.palette, strict=True))
    fresh = iter(default_palette(len(names), avoid=trained.palette))
    return [list(known[name]) if name in known else next(fresh) for name in names]


class Embedder(Protocol):
    """What a bank of class embeddings has to offer."""

    def embed(self, names: Sequence[str]) -> Any:
        """Return an object with ``embeddings``, ``query_to_class``, ``provenance``."""


class ClassRows:
    """Keeps the rows of each class name.

    Rows are float32 on the CPU. Rows of a checkpoint win over what the bank would
    compute, so that a loaded model needs neither text tower nor network for them.

    Args:
        bank: computes rows of new names; None if there is nothing to compute with.
    """

    def __init__(self, bank: Embedder | None) -> None:
        self._bank = bank
        self._rows: dict[str, Tensor] = {}
        self._loaded: frozenset[str] = frozenset()
        self.provenance: dict[str, str] = {}

    @property
    def width(self) -> int | None:
        """Length of a row, if it is known without computing one."""
        for rows in self._rows.values():
            return rows.shape[1]
        return getattr(self._bank, 'dim', None)

    def get(
        self, names: Sequence[str], device: torch.device | None = None
    ) -> list[Tensor]:
        """Return the rows ``(q, D)`` of each name, computing those not known yet.

        Args:
            names: class names.
            device: where to compute.

        Raises:
            ValueError: if rows are missing and there is no bank, or the bank belongs
                to another text tower than the rows of the checkpoint.
        """
        missing = [name for name in names if name not in self._rows]
        if missing:
            self._compute(missing, device)
        return [self._rows[name] for name in names]

    def made_by_bank(
        self, names: Sequence[str], device: torch.device | None = None
    ) -> list[Tensor]:
        """Return rows ``(q, D)`` of each name as the bank makes them, keeping none.

        Rows of a checkpoint do not win here, as they may come from other sentences.

        Args:
            names: class names.
            device: where to compute.

        Raises:
            ValueError: if there is no bank, or it belongs to another text tower than
                the rows of the checkpoint.
        """
        rows, provenance = self._embed(names, device)
        self._check_tower(provenance)
        return rows

    def load(
        self,
        names: Sequence[str],
        embeddings: Tensor,
        query_to_class: Tensor,
        provenance: Mapping[str, str],
    ) -> None:
        """Take rows from a checkpoint in place of all rows known so far."""
        rows = rows_by_class(embeddings, query_to_class, len(names))
        self._rows = dict(zip(names, rows, strict=True))
        self._loaded = frozenset(names)
        self.provenance = dict(provenance)

    def forget_all_but(self, names: Collection[str]) -> None:
        """Drop computed rows of other names; rows of a checkpoint stay."""
        self._rows = {
            name: rows
            for name, rows in self._rows.items()
            if name in names or name in self._loaded
        }

    def _compute(self, names: list[str], device: torch.device | None) -> None:
        rows, provenance = self._embed(names, device)
        self._check_provenance(provenance)
        self._rows.update(zip(names, rows, strict=True))

    @torch.no_grad()
    def _embed(
        self, names: Sequence[str], device: torch.device | None
    ) -> tuple[list[Tensor], Mapping[str, str]]:
        if self._bank is None:
            known = ', '.join(self._rows) or 'none'
            raise ValueError(
                f'there are no class embeddings for {", ".join(names)}: '
                f'model.class_embeddings is None, and the known rows are {known}.'
                f'{did_you_mean(names[0], self._rows)}'
            )
        on_accelerator = device is not None and device.type != 'cpu'
        made = self._bank.embed(names, **({'device': device} if on_accelerator else {}))
        rows = rows_by_class(made.embeddings, made.query_to_class, len(names))
        widths = {r.shape[1] for r in (*rows, *self._rows.values())}
        if len(widths) > 1:
            raise ValueError(
                f'class embeddings have different widths {sorted(widths)}: those of '
                'the checkpoint and those of model.class_embeddings'
            )
        return rows, made.provenance

    def _check_tower(self, new: Mapping[str, str]) -> None:
        """Refuse to mix rows of two text towers."""
        old = self.provenance
        towers = old.get('tower_hash'), new.get('tower_hash')
        if self._loaded and all(towers) and towers[0] != towers[1]:
            raise ValueError(
                'the rows of the checkpoint come from the text tower '
                f'{_describe(old)}, but model.class_embeddings is {_describe(new)}: '
                'rows of the two cannot be compared'
            )

    def _check_provenance(self, new: Mapping[str, str]) -> None:
        """Refuse rows of another text tower, and tell of other differences."""
        if not self._loaded:
            self.provenance = dict(new)
            return
        self._check_tower(new)
        old = self.provenance
        changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
        if changed:
            print_log(
                'New class embeddings are made with another '
                f'{" and ".join(changed)} than the rows of the checkpoint: '
                f'{ {key: new.get(key) for key in changed} } instead of '
                f'{ {key: old.get(key) for key in changed} }.',
                logger='current',
                level=logging.WARNING,
            )


def _describe(provenance: Mapping[str, str]) -> str:
    names = [provenance.get(key, '?') for key in ('arch', 'pretrained', 'tower_hash')]
    return '{} / {} (hash {:.12})'.format(*names)


def rows_by_class(
    embeddings: Tensor, query_to_class: Tensor, num_classes: int
) -> list[Tensor]:
    """Split ``(Q, D)`` rows into one float32 CPU tensor ``(q, D)`` per class.

    Raises:
        ValueError: if rows and classes don't fit, or a value is not finite.
    """
    if embeddings.ndim != 2 or len(embeddings) != len(query_to_class):
        raise ValueError(
            f'class embeddings of shape {tuple(embeddings.shape)} do not fit '
            f'{len(query_to_class)} queries: expected one row for each'
        )
    rows = embeddings.detach().to('cpu', torch.float32, copy=True)
    if not rows.isfinite().all():
        raise ValueError('class embeddings hold values that are not finite')
    owner = query_to_class.cpu()
    parts = [rows[owner == index] for index in range(num_classes)]
    empty = [index for index, part in enumerate(parts) if not len(part)]
    if empty or sum(map(len, parts)) != len(rows):
        raise ValueError(
            f'class embeddings do not fit {num_classes} classes: '
            f'{len(rows)} rows belong to classes {sorted(set(owner.tolist()))}'
        )
    return parts


class RowState(OrderedDict):
    """The extra state of a segmentor: a dict of plain tensors and strings.

    mmengine's averaged models with ``update_buffers=True`` take every value of a
    state dict for a tensor. Class embeddings are not trained, so for them this dict
    acts like an integer tensor whose average is what it is. It is saved as a plain
    ``OrderedDict``.
    """

    dtype = torch.int64
    device = torch.device('cpu')

    @property
    def data(self) -> RowState:
        """Itself."""
        return self

    def copy_(self, other: object) -> RowState:
        """Keep what it holds."""
        return self

    def __reduce__(self) -> tuple:
        return OrderedDict, (), None, None, iter(self.items())


def row_state(
    split: ZeroShotSplit,
    setting: str,
    rows: Sequence[Tensor],
    provenance: Mapping[str, str],
) -> RowState:
    """Return the extra state with which a segmentor's checkpoint carries its classes.

    Args:
        split: of the training.
        setting: of the training.
        rows: ``(q, D)`` for each of ``split.classes``.
        provenance: where the rows come from, in plain strings.
    """
    owners = [index for index, part in enumerate(rows) for _ in part]
    return RowState(
        split=split.name,
        setting=setting,
        classes=list(split.classes),
        unseen=list(split.unseen),
        embeddings=torch.cat([*rows]),
        query_to_class=torch.tensor(owners),
        provenance=dict(provenance),
    )


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
