"""The classes of a segmentor: their names, rows, colours, and how they are saved."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmengine.logging import print_log
from mmseg.registry import MODELS

from zs3_mmseg.datasets.splits import NameFinder, ZeroShotSplit, resolve_split
from zs3_mmseg.datasets.splits.zero_shot_split import SEEN_ROWS, SETTINGS
from zs3_mmseg.models.class_embeddings import (
    ClassQueries,
    display_name,
    split_names,
    synonyms_of,
)
from zs3_mmseg.models.class_embeddings.queries import warn_of_equal_rows
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.names import as_list, choose, did_you_mean
from zs3_mmseg.utils.palette import default_palette, palette_of_names

Palette = list[list[int]]


class NameRows(NamedTuple):
    """Rows of one class, float32 on the CPU.

    ``embeddings`` ``(q * P, D)`` of ``q`` synonyms in ``P`` prompts, and ``tokens``
    ``(q * P, L, D)``, outputs of the text tower for single tokens, if the bank gives
    them.
    """

    embeddings: Tensor
    tokens: Tensor | None = None


@dataclass
class ClassList:
    """Classes by name: which of them are seen, and an RGB colour for each.

    They have the rows that are known by name or that the bank makes, unless ``rows``
    were given with them; with ``from_bank`` the bank's, even if a checkpoint brought
    rows of these names, as those may come from other sentences.
    """

    names: tuple[str, ...]
    seen: tuple[bool, ...]
    palette: Palette
    rows: list[NameRows] | None = None
    from_bank: bool = False
    #: What heads get of them, and of which generation of the rows that is.
    queries: tuple[int, ClassQueries] | None = field(
        default=None, compare=False, repr=False
    )


#: By the identity of a vocabulary: the list that this thread, or task, asks it for.
_ASKED: ContextVar[Mapping[int, ClassList]] = ContextVar('asked')
# Text towers are built when they are first asked.
_EMBEDDING = threading.RLock()


class Vocabulary:
    """What a segmentor knows of its classes.

    There are two lists of classes: those of the split, with which it is trained and
    saved, and the current ones, which :meth:`use` changes for all, and :meth:`asked`
    for one thread. Each name's rows are kept once they are known. Rows of a checkpoint
    win over what the bank would compute, so that a loaded model needs neither text
    tower nor network for them.

    Args:
        split: name of a split, a dict with ``classes`` and ``unseen``, or a split.
        setting: ``'inductive'``, ``'transductive'``, ``'supervised'`` or
            ``'unseen_location'``.
        bank: config of a ``ClassEmbeddingBank``, or anything with its ``embed``; None
            if there is nothing to compute rows with.

    Attributes:
        training_setting: the setting of the present part of the training.
        rows_needed: whether anything in the model reads rows.
        rows: of each name, as far as they are known.
        beside: further texts with a row each, which no class is called.
        provenance: where the rows come from, in plain strings.

    Raises:
        ValueError: for an unknown setting.
    """

    def __init__(
        self, split: Any, setting: str | None, bank: Mapping | Any | None = None
    ) -> None:
        for key, value, data in (
            ('split', split, 'the name or dict that'),
            ('setting', setting, f'one of {SETTINGS}, as'),
        ):
            if value is None:
                raise ValueError(
                    f'model.{key} is missing: set it to {data} '
                    f'train_dataloader.dataset.{key} has'
                )
        chosen = choose('setting', str(setting), SETTINGS)
        self.split: ZeroShotSplit = resolve_split(split)
        self.setting = self.training_setting = chosen
        self.bank: Any = MODELS.build(dict(bank)) if isinstance(bank, Mapping) else bank
        self.rows_needed = True
        self.rows: dict[str, NameRows] = {}
        self.beside: tuple[str, ...] = ()
        self.provenance: dict[str, str] = {}
        self._loaded: frozenset[str] = frozenset()
        self._training_queries: ClassQueries | None = None
        self._generation = 0
        self._is_asked = False
        self._compared: set[tuple[str, ...]] = set()
        # In the supervised setting every class has labels in training.
        supervised = setting == 'supervised'
        classes = self.split.classes
        self.trained = ClassList(
            names=classes,
            seen=tuple(supervised or seen for seen in self.split.seen_mask()),
            palette=default_palette(len(classes)),
        )
        self._shared = self.trained

    # -- names ---------------------------------------------------------------------

    @property
    def current(self) -> ClassList:
        """The list that is asked for in this thread, else the one all threads share."""
        # torch.compile knows no context variables.
        if not self._is_asked:
            return self._shared
        return _ASKED.get({}).get(id(self), self._shared)

    @contextmanager
    def asked(self, classes: ClassList) -> Iterator[None]:
        """Make a list the current one in this block, and in this thread alone."""
        self._is_asked = True
        token = _ASKED.set({**_ASKED.get({}), id(self): classes})
        try:
            yield
        finally:
            _ASKED.reset(token)

    @property
    def names(self) -> tuple[str, ...]:
        """One name per current class; ``'sofa|couch'`` is one class with two names."""
        return self.current.names

    @property
    def seen(self) -> tuple[bool, ...]:
        """For each current class whether it had labels in training."""
        return self.current.seen

    @property
    def palette(self) -> Palette:
        """An RGB colour for each current class."""
        return self.current.palette

    @property
    def display_names(self) -> tuple[str, ...]:
        """What current classes are called in legends: their first synonym."""
        return tuple(display_name(name) for name in self.names)

    @property
    def training_names(self) -> tuple[str, ...]:
        """The names whose rows training uses, in the order of the rows."""
        seen_only = self.training_setting in SEEN_ROWS
        return self.split.seen if seen_only else self.split.classes

    def new(self, names: Sequence[str], unseen: Sequence[str] | None) -> ClassList:
        """Make a list of a user's names.

        With ``unseen=None`` all are unseen but those that mean a class that was seen
        in training, in any spelling the alias table knows. Trained names keep their
        colours.

        Raises:
            ValueError: if names are empty or occur twice, also as synonyms, or if
                ``unseen`` holds anything else than some of the names.
        """
        # mmengine's config files and numpy may bring other string types and sequences.
        is_list = isinstance(names, Iterable) and not isinstance(names, str | Mapping)
        texts = [*names] if is_list else names
        split_names(texts)  # raises what is wrong with them
        listed = tuple(name.strip() for name in texts)
        trained = self.trained
        finder = NameFinder(trained.names)
        meant = [[finder.find(word) for word in synonyms_of(name)] for name in listed]
        if unseen is None:
            seen = tuple(
                any(trained.seen[index] for index in indices if index is not None)
                for indices in meant
            )
        else:
            seen = _all_but(unseen, listed)
        first = [indices[0] for indices in meant]
        return ClassList(listed, seen, self._colours(listed, first))

    def _colours(
        self, names: Sequence[str], trained_as: Sequence[int | None]
    ) -> Palette:
        """Return the colours of the trained classes that are meant, and new ones.

        Of two names of one class, the one spelt as in training wears its colour.
        """
        trained = self.trained
        spelt = sorted(range(len(names)), key=lambda i: names[i] not in trained.names)
        wearers: dict[int, int] = {}
        for place in spelt:
            index = trained_as[place]
            if index is not None:
                wearers.setdefault(index, place)
        kept = {place: trained.palette[index] for index, place in wearers.items()}
        others = [name for place, name in enumerate(names) if place not in kept]
        fresh = iter(palette_of_names(others, avoid=[*kept.values()]))
        return [
            list(kept[place]) if place in kept else next(fresh)
            for place in range(len(names))
        ]

    def use(self, classes: ClassList) -> None:
        """Make a list the current one."""
        self._shared = classes

    def train_as(self, setting: str) -> None:
        """Use the rows of another setting in training."""
        self.training_setting = setting
        self._training_queries = None

    def recolour(self, meta: Mapping[str, Any]) -> None:
        """Take the colours of a ``dataset_meta`` with the current classes.

        Those of the training, which its checkpoints name, are passed over.
        """
        classes, palette = tuple(meta.get('classes') or ()), meta.get('palette') or ()
        trained = self.trained.names
        if classes in (self.names, self.display_names):
            if len(palette) == len(classes):
                colours = [[int(value) for value in colour] for colour in palette]
                self.current.palette = colours
        elif classes not in ((), trained, tuple(map(display_name, trained))):
            print_log(
                f'The segmentor keeps its {len(self.names)} classes '
                f'({self.display_names[0]}, ...), not the {len(classes)} that '
                f'dataset_meta names ({classes[0]}, ...): mmseg takes those of '
                'Cityscapes where no checkpoint names any. set_classes() changes the '
                'vocabulary.',
                logger='current',
            )

    # -- rows ----------------------------------------------------------------------

    @property
    def dim(self) -> int | None:
        """Length of a row, if it is known without computing one."""
        for rows in self.rows.values():
            return rows.embeddings.shape[1]
        return getattr(self.bank, 'dim', None)

    @property
    def prompts_per_row(self) -> int:
        """How many rows a query has."""
        return getattr(self.bank, 'prompts_per_row', 1)

    @property
    def has_tokens(self) -> bool:
        """Whether rows come with the outputs of single tokens."""
        return bool(getattr(self.bank, 'token_features', False))

    def rows_of(
        self, names: Sequence[str], device: torch.device | None = None
    ) -> list[NameRows]:
        """Return the rows of each name, computing those not known yet on ``device``.

        Raises:
            ValueError: if rows are missing and there is no bank, or the bank belongs
                to another text tower than the rows of the checkpoint.
        """
        missing = [name for name in names if name not in self.rows]
        if missing:
            with _EMBEDDING:
                rows, provenance = self._embed(missing, device)
                self._check_provenance(provenance)
                self.rows.update(zip(missing, rows, strict=True))
        return [self.rows[name] for name in names]

    def given_rows(self, embeddings: Tensor, names: Sequence[str]) -> list[NameRows]:
        """Split rows that a user gives with names, one per synonym or one per class."""
        owners = torch.tensor(split_names(names)[1])
        if len(embeddings) == len(names) * self.prompts_per_row:
            owners = torch.arange(len(names))
        parts = rows_by_class(embeddings, owners, len(names), self.prompts_per_row)
        width = parts[0].shape[1]
        try:
            dim = self.dim
        except FileNotFoundError:  # given rows do without the files of the bank
            dim = None
        if self.has_tokens and dim is not None:
            if width % dim or width == dim:
                raise ValueError(
                    f'the given embeddings have {width} columns, expected {dim} '
                    'values, and as many for each token of its text behind them'
                )
        elif dim not in (None, width):
            raise ValueError(
                f'the given embeddings have {width} columns, the model was built for '
                f'{dim}'
            )
        return [self._unpacked(part) for part in parts]

    def forget_unseen(self) -> None:
        """Before inductive training, drop computed rows of all but its names."""
        if self.training_setting in SEEN_ROWS:
            self._generation += 1
            self._shared.queries = self.trained.queries = None
            kept = {*self.training_names, *self.beside, *self._loaded}
            self.rows = {name: rows for name, rows in self.rows.items() if name in kept}

    # Queries made by a prediction in inference mode are kept, and serve gradients too.
    @torch.inference_mode(mode=False)
    def queries(
        self, which: str, device: torch.device, dtype: torch.dtype
    ) -> ClassQueries:
        """Return the rows of the ``'current'`` or ``'training'`` names for heads."""
        classes, generation = self.current, self._generation
        known = self._training_queries
        if which == 'current':
            made, known = classes.queries or (generation, None)
            known = known if made == generation else None
        if known is not None and (
            (known.embeddings.device, known.embeddings.dtype) == (device, dtype)
        ):
            return known
        names, seen = classes.names, classes.seen
        if which == 'training':
            names = self.training_names
            if not names:
                raise ConfigError(
                    f'split {self.split.name!r} has no seen class to train on'
                )
            trained = dict(zip(self.trained.names, self.trained.seen, strict=True))
            seen = tuple(trained[name] for name in names)
        rows = self._rows_now(which, names, device)
        prompts = self.prompts_per_row if self.rows_needed else 1
        embeddings = [part.embeddings for part in rows]
        owners = _owners(embeddings, prompts)
        if self.rows_needed and names not in self._compared:
            self._compared.add(names)
            queries = torch.cat(embeddings).unflatten(0, (-1, prompts)).flatten(1)
            warn_of_equal_rows(queries, owners, names)
        tokens = [part.tokens for part in rows if part.tokens is not None]
        found = ClassQueries(
            embeddings=torch.cat(embeddings).to(device, dtype),
            query_to_class=torch.tensor(owners, device=device),
            seen_mask=torch.tensor(seen, device=device),
            prompts_per_row=prompts,
            token_features=torch.cat(tokens).to(device, dtype) if tokens else None,
            names=tuple(names),
        )
        if which == 'current':
            classes.queries = generation, found
        else:
            self._training_queries = found
        return found

    def _rows_now(
        self, which: str, names: Sequence[str], device: torch.device
    ) -> list[NameRows]:
        if not self.rows_needed:
            return [NameRows(torch.zeros(1, 0))] * len(names)
        current = self.current
        if which == 'current' and current.rows is not None:
            return current.rows
        if which == 'current' and current.from_bank:
            with _EMBEDDING:
                rows, provenance = self._embed(names, device)
            self._check_tower(provenance)
            return rows
        return self.rows_of(names, device)

    @torch.no_grad()
    def _embed(
        self, names: Sequence[str], device: torch.device | None
    ) -> tuple[list[NameRows], Mapping[str, str]]:
        """Let the bank make rows; return them and their provenance."""
        if self.bank is None:
            known = as_list([*self.rows]) or 'none'
            raise ValueError(
                f'there are no class embeddings for {as_list(names)}: '
                f'model.class_embeddings is None, and the known rows are {known}.'
                f'{did_you_mean(names[0], self.rows)}'
            )
        on_accelerator = device is not None and device.type != 'cpu'
        made = self.bank.embed(names, **({'device': device} if on_accelerator else {}))
        rows = made.embeddings
        if self.has_tokens:
            tokens = made.token_features
            if tokens is None or tokens.shape[2] != rows.shape[1]:
                width = 'no' if tokens is None else f'{tokens.shape[2]}-wide'
                raise ValueError(
                    f'class_embeddings gives {width} token features with embeddings of '
                    f'{rows.shape[1]} values: token features need a text tower that is '
                    'as wide as its embeddings'
                )
            rows = _packed(NameRows(rows, tokens))
        parts = rows_by_class(
            rows, made.query_to_class, len(names), self.prompts_per_row
        )
        found = [self._unpacked(part) for part in parts]
        every = [*found, *self.rows.values()]
        widths = {part.embeddings.shape[1] for part in every}
        if len(widths) > 1:
            raise ValueError(
                f'class embeddings have different widths {sorted(widths)}: those of '
                'the checkpoint and those of model.class_embeddings'
            )
        return found, made.provenance

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

    # -- checkpoints ---------------------------------------------------------------

    def state(self, device: torch.device | None = None) -> RowState:
        """Return the split's names and rows, as plain tensors and strings."""
        rows = [torch.zeros(1, 0)] * len(self.split.classes)
        if self.rows_needed:
            known = self.rows_of(self.split.classes, device)
            rows = [_packed(part) for part in known]
        prompts = self.prompts_per_row if self.rows_needed else 1
        state = row_state(self.split, self.setting, rows, self.provenance, prompts)
        if self.beside and self.rows_needed:
            texts = self.rows_of(self.beside, device)
            packed = [_packed(part) for part in texts]
            state['beside'] = dict(zip(self.beside, packed, strict=True))
        return state

    def load(self, state: Mapping[str, Any]) -> None:
        """Take names and rows from a checkpoint, in place of all rows known so far.

        Raises:
            ValueError: if the checkpoint's classes, their order, or the unseen ones
                among them are not those of the split, or its rows have another layout.
        """
        _require_layout(state)
        _check_split(state, self.split)
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
        if not (self.rows_needed and state['embeddings'].shape[1]):
            return
        prompts = state.get('prompts_per_row', 1)
        if prompts != self.prompts_per_row:
            raise ValueError(
                f'the checkpoint has {prompts} rows for each name, and '
                f'model.class_embeddings makes {self.prompts_per_row}'
            )
        names = self.split.classes
        parts = rows_by_class(
            state['embeddings'], state['query_to_class'], len(names), prompts
        )
        rows = [self._unpacked(part) for part in parts]
        self.rows = dict(zip(names, rows, strict=True))
        for text, row in state.get('beside', {}).items():
            self.rows.setdefault(text, self._unpacked(row.to('cpu', torch.float32)))
        self._loaded = frozenset(self.rows)
        self.provenance = dict(state['provenance'])
        self._training_queries = None
        self._generation += 1

    def _unpacked(self, rows: Tensor) -> NameRows:
        """Take rows ``(q, (1 + L) * D)`` apart, see :func:`_packed`."""
        if not self.has_tokens:
            return NameRows(rows)
        dim = self.bank.dim
        if rows.shape[1] % dim:
            raise ValueError(
                f'class embeddings of {rows.shape[1]} values are no rows of {dim} with '
                'token features behind them'
            )
        parts = rows.unflatten(1, (-1, dim))
        return NameRows(parts[:, 0], parts[:, 1:] if parts.shape[1] > 1 else None)


def _packed(rows: NameRows) -> Tensor:
    """Put token features behind the embedding, as checkpoints have one width."""
    if rows.tokens is None:
        return rows.embeddings
    return torch.cat([rows.embeddings[:, None], rows.tokens], dim=1).flatten(1)


def _owners(rows: Sequence[Tensor], prompts: int) -> list[int]:
    """Return the class of each query, for rows ``(q * P, D)`` of each class."""
    return [index for index, part in enumerate(rows) for _ in part[::prompts]]


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


def _describe(provenance: Mapping[str, str]) -> str:
    names = [provenance.get(key, '?') for key in ('arch', 'pretrained', 'tower_hash')]
    return '{} / {} (hash {:.12})'.format(*names)


def rows_by_class(
    embeddings: Tensor, query_to_class: Tensor, num_classes: int, prompts: int = 1
) -> list[Tensor]:
    """Split ``(Q * P, D)`` rows into a float32 CPU tensor ``(q * P, D)`` per class."""
    if embeddings.ndim != 2 or len(embeddings) != len(query_to_class) * prompts:
        each = 'one row' if prompts == 1 else f'{prompts} rows'
        raise ValueError(
            f'class embeddings of shape {tuple(embeddings.shape)} do not fit '
            f'{len(query_to_class)} queries: expected {each} for each'
        )
    rows = embeddings.detach().to('cpu', torch.float32, copy=True)
    if not rows.isfinite().all():
        raise ValueError('class embeddings hold values that are not finite')
    owner = query_to_class.cpu().repeat_interleave(prompts)
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
    prompts: int = 1,
) -> RowState:
    """Return the extra state with which a segmentor's checkpoint carries its classes.

    ``rows`` are ``(q * P, D)`` for each of ``split.classes``.
    """
    state = RowState(
        split=split.name,
        setting=setting,
        classes=list(split.classes),
        unseen=list(split.unseen),
        embeddings=torch.cat([*rows]),
        query_to_class=torch.tensor(_owners(rows, prompts)),
        provenance=dict(provenance),
    )
    if prompts > 1:
        state['prompts_per_row'] = prompts
    return state


# What the extra state of a segmentor holds, and what it may hold besides.
_LAYOUT = {
    'split': str,
    'classes': list,
    'unseen': list,
    'embeddings': Tensor,
    'query_to_class': Tensor,
    'provenance': Mapping,
}
_OPTIONAL = {'setting': str, 'prompts_per_row': int, 'beside': Mapping}


def _require_layout(state: Any) -> None:
    """Refuse what no segmentor has saved."""
    if not isinstance(state, Mapping):
        raise ValueError(
            f'_extra_state holds no class rows, but a {type(state).__name__}'
        )
    for key, kind in (_LAYOUT | _OPTIONAL).items():
        if key not in state and key in _OPTIONAL:
            continue
        value = state.get(key)
        if not isinstance(value, kind):
            raise ValueError(
                f'_extra_state.{key} should be a {kind.__name__}, and is '
                f'{"missing" if value is None else "a " + type(value).__name__}'
            )
    rows = [state['embeddings'], *state.get('beside', {}).values()]
    owners = state['query_to_class']
    sound = all(
        isinstance(part, Tensor)
        and (part.layout, part.ndim) == (torch.strided, 2)
        and part.is_floating_point()
        and not part.is_meta
        for part in rows
    )
    if not sound or owners.ndim != 1 or owners.is_floating_point() or owners.is_meta:
        raise ValueError('_extra_state holds no rows of numbers with their classes')
    if state.get('prompts_per_row', 1) < 1:
        raise ValueError('_extra_state.prompts_per_row should be 1 or more')
    words = (*state['classes'], *state['unseen'], *state.get('beside', {}))
    pairs = state['provenance'].items()
    if not all(isinstance(word, str) for word in (*words, *sum(pairs, ()))):
        raise ValueError('_extra_state names classes or origins by other than text')


def _check_split(state: Mapping[str, Any], split: ZeroShotSplit) -> None:
    """Refuse a checkpoint of other classes, another order, or other unseen ones."""
    theirs = f'the checkpoint was trained with split {state["split"]!r}'
    ours = f'the config has split {split.name!r}'
    for key, expected in (('classes', split.classes), ('unseen', split.unseen)):
        found = tuple(state[key])
        if found == expected:
            continue
        pairs = zip(found, expected, strict=False)
        differing = (index for index, (a, b) in enumerate(pairs) if a != b)
        first = next(differing, min(len(found), len(expected)))
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
