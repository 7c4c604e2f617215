"""Rows of class embeddings: computed when asked for, or brought by a checkpoint."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mmengine.logging import print_log

from zs3_mmseg.datasets.splits import ZeroShotSplit
from zs3_mmseg.utils.names import did_you_mean


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
