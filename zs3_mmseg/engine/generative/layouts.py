"""Label maps with unseen classes in them that nobody has drawn."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from zs3_mmseg.datasets.splits import ZeroShotSplit
from zs3_mmseg.utils.names import choose

from .plan import present_classes

KINDS = ('seen', 'cells')


class SyntheticLayout:
    """Puts unseen classes into label maps of seen ones, without reading any layout of
    theirs.

    Args:
        image_share: share of images that are changed, in (0, 1].
        unseen_share: in a changed image, the probability of a class or cell to become
            an unseen class, in (0, 1]. At least one does.
    """

    def __init__(
        self,
        kind: Literal['seen', 'cells'] = 'seen',
        *,
        image_share: float = 0.5,
        unseen_share: float = 0.5,
        cell_size: int = 16,
    ) -> None:
        choose('layout.kind', kind, KINDS)
        shares = {'image_share': image_share, 'unseen_share': unseen_share}
        for name, share in shares.items():
            if not 0 < share <= 1:
                raise ValueError(f'layout.{name} must lie in (0, 1], got {share}')
        if cell_size < 1:
            raise ValueError(f'layout.cell_size must be positive, got {cell_size}')
        self.kind = kind
        self.image_share = image_share
        self.unseen_share = unseen_share
        self.cell_size = cell_size

    def __call__(
        self,
        labels: Tensor,
        split: ZeroShotSplit,
        ignore_index: int,
        generator: torch.Generator,
    ) -> Tensor:
        """Change the label map ``(H, W)`` of an image, or return it itself.

        Ignored pixels stay ignored: they may hide unseen classes. ``generator`` is on
        the CPU.
        """
        if torch.rand((), generator=generator) >= self.image_share:
            return labels
        unseen = torch.tensor(split.unseen_indices)
        if self.kind == 'cells':
            return self._relabel_cells(labels, unseen, ignore_index, generator)
        present = present_classes(labels, split)
        if not present:
            return labels
        return self._relabel_classes(labels, present, unseen, generator)

    def _relabel_classes(
        self,
        labels: Tensor,
        present: list[int],
        unseen: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        changed = self._choose(len(present), generator)
        targets = _draw(unseen, len(present), generator)
        result = labels.clone()
        for label, change, target in zip(present, changed, targets, strict=True):
            if change:
                result[labels == label] = int(target)
        return result

    def _relabel_cells(
        self,
        labels: Tensor,
        unseen: Tensor,
        ignore_index: int,
        generator: torch.Generator,
    ) -> Tensor:
        rows, columns = (-(-side // self.cell_size) for side in labels.shape)
        changed = self._choose(rows * columns, generator)
        targets = _draw(unseen, rows * columns, generator)
        cells = torch.where(changed, targets, ignore_index).view(rows, columns)
        height, width = labels.shape
        enlarged = cells.repeat_interleave(self.cell_size, 0)[:height]
        enlarged = enlarged.repeat_interleave(self.cell_size, 1)[:, :width]
        enlarged = enlarged.to(labels)
        keep = (enlarged == ignore_index) | (labels == ignore_index)
        return torch.where(keep, labels, enlarged)

    def _choose(self, count: int, generator: torch.Generator) -> Tensor:
        chosen = torch.rand(count, generator=generator) < self.unseen_share
        if not chosen.any():
            chosen[torch.randint(count, (), generator=generator)] = True
        return chosen


def _draw(values: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return values[torch.randint(len(values), (count,), generator=generator)]
