"""Who is seen and who is not, in the label order of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from zs3_mmseg.datasets.splits import ZeroShotSplit, find_name


@dataclass(frozen=True)
class ClassRoles:
    """The classes of the labels that reach the model.

    Attributes:
        names: class names in label order.
        unseen: labels of the unseen classes, ascending.
        ignore_index: the label that is no class.
    """

    names: tuple[str, ...]
    unseen: tuple[int, ...]
    ignore_index: int

    def __post_init__(self) -> None:
        if not 0 < len(self.unseen) < len(self.names):
            raise ValueError(
                f'{len(self.unseen)} of {len(self.names)} classes are unseen: there is '
                'nothing to learn, or nothing to learn from'
            )

    @cached_property
    def seen(self) -> tuple[int, ...]:
        """Labels of the seen classes, ascending."""
        return tuple(set(range(len(self.names))) - set(self.unseen))

    @cached_property
    def unseen_mask(self) -> Tensor:
        """``(K,)`` bool on the CPU, True where unseen."""
        mask = torch.zeros(len(self.names), dtype=torch.bool)
        mask[list(self.unseen)] = True
        return mask

    def is_unseen(self, labels: Tensor) -> Tensor:
        """Tell for each label of any shape whether it is an unseen class."""
        return torch.isin(labels, torch.tensor(self.unseen, device=labels.device))

    def present(self, labels: Tensor) -> list[int]:
        """Return the classes that a label map holds, ascending."""
        return [value for value in labels.unique().tolist() if value < len(self.names)]


def resolve_roles(
    split: ZeroShotSplit, meta: Mapping[str, Any], ignore_index: int
) -> ClassRoles:
    """Find the classes of a split among those of a data set, by name.

    Args:
        split: who is seen and who is not.
        meta: the data set's metainfo; its ``classes`` are in label order.
        ignore_index: the label that is no class.

    Raises:
        ValueError: if one has a class that the other has not.
    """
    names: Sequence[str] = tuple(meta.get('classes') or ())
    missing = [name for name in split.classes if find_name(name, names) is None]
    surplus = [name for name in names if find_name(name, split.classes) is None]
    if missing or surplus:
        raise ValueError(
            f'split {split.name!r} and the training data set have different classes; '
            f'only in the split: {missing or "none"}; only in the data set: '
            f'{surplus or "none"}'
        )
    positions = [find_name(name, names) for name in split.unseen]
    unseen = sorted(position for position in positions if position is not None)
    return ClassRoles(tuple(names), tuple(unseen), ignore_index)
