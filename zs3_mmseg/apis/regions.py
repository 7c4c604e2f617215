"""Regions of label maps as polygons and as run-length codes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

Ring = list[tuple[int, int]]


@dataclass(frozen=True)
class Region:
    """One connected region of a class, along the edges of its pixels.

    Pixels that touch at a corner are connected. Points are ``(x, y)``, from ``(0, 0)``
    at the top left corner of the picture.

    Attributes:
        position: of its class.
        outline: its outer ring; the first point is not repeated at the end.
        holes: rings of what is not part of it.
    """

    position: int
    outline: Ring
    holes: tuple[Ring, ...] = ()


def _along_edges(contour: np.ndarray) -> Ring:
    """Bring a contour of a mask of doubled size to the edges of the pixels.

    OpenCV's contours go through pixels. Of the two that stand for one here, the even
    one is at its left (upper) edge, the odd one at its right (lower) edge.
    """
    ring: Ring = []
    for x, y in ((contour[:, 0] + 1) // 2).tolist():
        if ring and (x, y) == ring[-1]:
            continue
        if len(ring) > 1 and _in_line(ring[-2], ring[-1], (x, y)):
            ring.pop()
        ring.append((x, y))
    if ring[-1] == ring[0]:
        ring.pop()
    # Where a contour begins need not be a corner.
    if _in_line(ring[-2], ring[-1], ring[0]):
        ring.pop()
    return ring[1:] if _in_line(ring[-1], ring[0], ring[1]) else ring


def _in_line(*points: tuple[int, int]) -> bool:
    """Whether points share a row or a column, so that the middle one says nothing."""
    return any(len(set(values)) == 1 for values in zip(*points, strict=True))


def find_regions(mask: np.ndarray, position: int = 0) -> list[Region]:
    """Return the connected regions of a mask ``(H, W)`` bool, the largest first."""
    doubled = np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1)
    contours, links = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if links is None:
        return []
    holes: dict[int, list[Ring]] = {}
    for contour, (_, _, _, parent) in zip(contours, links[0].tolist(), strict=True):
        if parent >= 0:
            holes.setdefault(parent, []).append(_along_edges(contour))
    regions = [
        (
            cv2.contourArea(contour),
            Region(position, _along_edges(contour), tuple(holes.get(index, ()))),
        )
        for index, (contour, link) in enumerate(zip(contours, links[0], strict=True))
        if link[3] < 0
    ]
    regions.sort(key=lambda pair: -pair[0])
    return [region for _, region in regions]


def run_lengths(mask: np.ndarray) -> list[int]:
    """Return COCO's uncompressed run lengths of a mask ``(H, W)`` bool.

    Column by column, runs of absent and present pixels in turn, absent ones first.
    """
    flat = np.concatenate([[False], mask.T.ravel(), [not mask[-1, -1]]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(changes, prepend=0).tolist()
