"""Contours of all classes of an image, the target of an edge head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np

from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from zs3_mmseg.utils.labels import IGNORE_INDEX
from zs3_mmseg.utils.names import choose

__all__ = ['GenerateClassEdges']


def class_edges(
    labels: np.ndarray, listed: Iterable[int], *, radius: float, border: bool
) -> np.ndarray:
    """Return where the contour of a class is near, (H, W), uint8 of 0 and 1.

    A pixel counts if, for one of the ``listed`` labels, it lies within ``radius``
    pixels (Euclidean) of the other side of that label's mask. With ``border`` all that
    is outside the image is the other side, too.
    """
    reach = int(radius)
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disk = (x * x + y * y <= radius * radius).astype(np.uint8)
    edges = np.zeros(labels.shape, dtype=np.uint8)
    frame = 1 if border else 0
    inside = tuple(slice(frame, frame + side) for side in labels.shape)
    for label in listed:
        mask = (labels == label).astype(np.uint8)
        if not mask.any():
            continue
        mask = np.pad(mask, frame)
        both = np.minimum(cv2.dilate(mask, disk), cv2.dilate(1 - mask, disk))
        edges |= both[inside].astype(np.uint8)
    return edges


#: What contours between a class and pixels without a label are.
VOID_EDGES = ('ignore', 'contour')


@TRANSFORMS.register_module()
class GenerateClassEdges(BaseTransform):
    """Make the target of an edge head: contours of all classes of an image.

    Writes ``gt_edge_map``, (H, W), uint8: 1 within ``radius`` pixels of a contour, on
    both sides, 0 elsewhere, ``ignore_index`` where it is not known. It reads
    ``gt_class_map``, which ``ClassPromptDataset(keep_classes=True)`` keeps beside the
    mask of the one class that is asked for, or else ``gt_seg_map``, and belongs after
    everything that moves pixels. mmseg's ``GenerateEdge`` widens contours to a square
    instead.

    The released code of SAZS has three faults, off by default: the border of the image
    is a contour of every class that touches it (``border=True``); its last class makes
    no contours of its own (``unlisted=(K - 1,)`` with ``K`` classes); and neither do
    pixels without a label, but classes beside them do (``void_edges='contour'``).

    Args:
        radius: distance in pixels, >= 1.
        border: whether the border of the image is a contour.
        unlisted: labels that make no contours of their own.
        void_edges: ``'ignore'``: pixels within ``radius`` of one without a label are
            not known; ``'contour'``: that label is the other side of any class.
        ignore_index: label of pixels without a label.

    Raises:
        ValueError: for a radius below 1 or another ``void_edges``.
    """

    def __init__(
        self,
        *,
        radius: float = 2,
        border: bool = False,
        unlisted: Sequence[int] = (),
        void_edges: str = 'ignore',
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        if not radius >= 1:
            raise ValueError(f'GenerateClassEdges.radius must be >= 1, got {radius}')
        self.radius = radius
        self.border = border
        self.unlisted = tuple(unlisted)
        self.void_edges = choose('void_edges', void_edges, VOID_EDGES)
        self.ignore_index = ignore_index

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``gt_edge_map`` and take ``gt_class_map`` away."""
        labels = results.pop('gt_class_map', None)
        if labels is None:
            labels = results['gt_seg_map']
        else:
            results['seg_fields'].remove('gt_class_map')
            # Padding by mmcv reaches gt_seg_map only.
            sides = zip(results['gt_seg_map'].shape, labels.shape, strict=True)
            missing = [(0, wanted - there) for wanted, there in sides]
            labels = np.pad(labels, missing, constant_values=self.ignore_index)
        without = {self.ignore_index, *self.unlisted}
        listed = [int(v) for v in np.unique(labels) if int(v) not in without]
        edges = class_edges(labels, listed, radius=self.radius, border=self.border)
        if self.void_edges == 'ignore':
            void = [self.ignore_index]
            beside = class_edges(labels, void, radius=self.radius, border=False)
            beside |= (labels == self.ignore_index).astype(np.uint8)
            edges = np.where(beside > 0, IGNORE_INDEX, edges).astype(np.uint8)
        results['gt_edge_map'] = edges
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(radius={self.radius}, border={self.border}, '
            f'unlisted={self.unlisted}, void_edges={self.void_edges!r})'
        )
