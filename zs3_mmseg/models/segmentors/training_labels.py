"""From labels in the order of the split to labels in the order of a head's classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from zs3_mmseg.utils.labels import SpecialLabels


class LabelMapping:
    """Maps indices into all classes to indices of a head's classes.

    Args:
        positions: new index of each class that stays.
        num_classes: number of all classes.
        special: labels that are no class.
        others_ignored: what becomes of values that neither stay nor are ignored:
            True makes them ignored, whatever they are. False keeps unlabelled pixels
            for later and takes any other value for a mistake.
    """

    def __init__(
        self,
        positions: Mapping[int, int],
        *,
        num_classes: int,
        special: SpecialLabels,
        others_ignored: bool,
    ) -> None:
        unknown = special.ignore if others_ignored else -1
        self._num_classes = num_classes
        self._special = special
        self._others_ignored = others_ignored
        # One entry more than there are values: whatever lies outside ends there.
        self._table = torch.full((special.ignore + 2,), unknown)
        self._table[special.ignore] = special.ignore
        self._table[list(positions)] = torch.tensor(list(positions.values()))
        if not others_ignored:
            self._table[special.unlabelled] = special.unlabelled

    def __call__(self, labels: Tensor) -> Tensor:
        """Return new labels of any shape, long; ``labels`` is not changed.

        Raises:
            ValueError: if there are values that mean nothing, naming them.
        """
        self._table = self._table.to(labels.device)
        last = len(self._table) - 1
        values = labels.long()
        index = torch.where((values < 0) | (values > last), last, values)
        mapped = self._table[index]
        if not self._others_ignored and bool((mapped < 0).any()):
            wrong = values[mapped < 0].unique().tolist()
            raise ValueError(
                f'labels hold {wrong}: expected 0..{self._num_classes - 1}, '
                f'{self._special.ignore} (ignore) or {self._special.unlabelled} '
                '(unlabelled). Does the data set use the split of the model?'
            )
        return mapped


def stack_labels(samples: Sequence[SegDataSample]) -> Tensor:
    """Return the ground truth of a batch, ``(N, H, W)``.

    Raises:
        ValueError: if a sample has none.
    """
    for sample in samples:
        if 'gt_sem_seg' not in sample:
            path = sample.metainfo.get('img_path', 'a training sample')
            raise ValueError(
                f'{path} has no gt_sem_seg: training pipelines need LoadAnnotations'
            )
    return torch.stack([sample.gt_sem_seg.data for sample in samples]).squeeze(1)


def fill_up(labels: Tensor, size: Sequence[int], ignore_index: int) -> Tensor:
    """Return labels ``(N, H, W)`` with ignored pixels at the bottom and right.

    Maps of a backbone that fills an image up to whole patches stand for more than the
    image; stretched over its labels they would be off by up to half a patch.

    Args:
        labels: ``(N, H, W)``.
        size: what the maps cover, at least ``(H, W)``.
        ignore_index: the label of pixels that don't count.
    """
    height, width = labels.shape[-2:]
    missing = (0, size[1] - width, 0, size[0] - height)
    return F.pad(labels, missing, value=ignore_index) if any(missing) else labels


def with_labels(
    samples: Sequence[SegDataSample], labels: Tensor
) -> list[SegDataSample]:
    """Return copies of samples with other ground truth ``(N, H, W)``.

    The given samples and their data stay as they are.
    """
    copies = []
    for sample, label_map in zip(samples, labels, strict=True):
        copied = sample.new()
        copied.gt_sem_seg = PixelData(data=label_map[None])
        copies.append(copied)
    return copies
