"""Label maps with unseen classes in them that nobody has drawn."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .plan import ClassRoles

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
        if kind not in KINDS:
            raise ValueError(f'layout.kind must be one of {KINDS}, got {kind!r}')
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
        self, labels: Tensor, roles: ClassRoles, generator: torch.Generator
    ) -> Tensor:
        """Change the label map of an image, or leave it.

        Args:
            labels: ``(H, W)`` labels of seen classes and ignored pixels. The latter
                stay ignored: they may hide unseen classes.

        Returns:
            ``(H, W)``: ``labels`` itself if the image is not among those to change.
        """
        if torch.rand((), generator=generator) >= self.image_share:
            return labels
        unseen = torch.tensor(roles.unseen)
        if self.kind == 'seen':
            return self._relabel_classes(labels, unseen, roles, generator)
        return self._relabel_cells(labels, unseen, roles, generator)

    def _relabel_classes(
        self,
        labels: Tensor,
        unseen: Tensor,
        roles: ClassRoles,
        generator: torch.Generator,
    ) -> Tensor:
        present = roles.present(labels)
        if not present:
            return labels
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
        roles: ClassRoles,
        generator: torch.Generator,
    ) -> Tensor:
        rows, columns = (-(-side // self.cell_size) for side in labels.shape)
        changed = self._choose(rows * columns, generator)
        targets = _draw(unseen, rows * columns, generator)
        cells = torch.where(changed, targets, roles.ignore_index).view(rows, columns)
        height, width = labels.shape
        enlarged = cells.repeat_interleave(self.cell_size, 0)[:height]
        enlarged = enlarged.repeat_interleave(self.cell_size, 1)[:, :width]
        enlarged = enlarged.to(labels)
        keep = (enlarged == roles.ignore_index) | (labels == roles.ignore_index)
        return torch.where(keep, labels, enlarged)

    def _choose(self, count: int, generator: torch.Generator) -> Tensor:
        chosen = torch.rand(count, generator=generator) < self.unseen_share
        if not chosen.any():
            chosen[torch.randint(count, (), generator=generator)] = True
        return chosen


def _draw(values: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return values[torch.randint(len(values), (count,), generator=generator)]
