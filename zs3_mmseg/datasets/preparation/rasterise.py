"""Masks in the annotation format of COCO: polygons and run lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zs3_mmseg.datasets.preparation.label_images import extra_needed
from zs3_mmseg.datasets.preparation.trees import PreparationError
from zs3_mmseg.utils.image_io import MAX_PIXELS

Segmentation = Mapping[str, Any] | Sequence[Sequence[float]]


def image_size(image: Mapping[str, Any], origin: str) -> tuple[int, int]:
    """Return height and width of an entry in an annotation file.

    Raises:
        PreparationError: if no image has that size.
    """
    height, width = image.get('height'), image.get('width')
    if not isinstance(height, int) or not isinstance(width, int):
        raise PreparationError(f'{origin}: height {height!r}, width {width!r}')
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise PreparationError(f'{origin}: {width} x {height} is no size of an image')
    return height, width


def image_stem(image: Mapping[str, Any], origin: str) -> str:
    """Return the name of an entry's JPEG file without its ending.

    Raises:
        PreparationError: if it is no plain name; label maps are named after it.
    """
    name = str(image['file_name'])
    if not name.endswith('.jpg') or '/' in name or '\\' in name:
        raise PreparationError(f'{origin}: {name!r} is no plain name of a JPEG file')
    return name.removesuffix('.jpg')


def decode_mask(
    segmentation: Segmentation, height: int, width: int, origin: str
) -> np.ndarray:
    """Draw one mask; polygons by COCO's own routine, so that each pixel agrees.

    Args:
        segmentation: a list of polygons ``[x0, y0, x1, y1, ...]``, whose union is
            meant, fewer than three corners covering nothing; or run lengths
            ``{'size': [H, W], 'counts': ...}`` down the columns, beginning with
            zeros, as numbers or in the string form of pycocotools.
        height: of the image.
        width: of the image.
        origin: which annotation it is, for messages.

    Returns:
        (H, W), bool.

    Raises:
        PreparationError: if it is neither, or run lengths of another size.
        ModuleNotFoundError: if there are polygons and pycocotools is not installed.
    """
    try:
        if isinstance(segmentation, Mapping):
            return _draw_runs(segmentation, height, width)
        return _draw_polygons(segmentation, height, width)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise PreparationError(
            f'{origin}: neither polygons nor run lengths ({error!r})'
        ) from error


def _draw_runs(runs: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    # Not with pycocotools, whose decoder writes out of bounds on damaged strings.
    if list(runs['size']) != [height, width]:
        raise ValueError(
            f'size {runs["size"]} in an image of height {height}, width {width}'
        )
    counts = runs['counts']
    if isinstance(counts, str):
        lengths = _parse_counts(counts.encode('ascii'))
    else:
        lengths = np.asarray(counts, dtype=np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError(f'run lengths do not add up to {height} x {width}')
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(width, height).T


def _parse_counts(text: bytes) -> np.ndarray:
    """Read the string form of run lengths, (R,), int64.

    Each number is written in groups of five bits, the lowest first, in the characters
    from '0' on; bit 5 says that another group follows, bit 4 of the last one is the
    sign. From the fourth number on, it is the difference to the number two before.
    """
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError('run lengths in an unknown form')
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    sizes = last - first + 1
    if sizes.max() > 7:
        raise ValueError('run lengths beyond any image')
    shifts = 5 * (np.arange(len(codes)) - np.repeat(first, sizes))
    numbers = np.add.reduceat((codes & 31) << shifts, first)
    numbers -= np.where(codes[last] & 16, 1 << (5 * sizes), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _draw_polygons(
    polygons: Sequence[Sequence[float]], height: int, width: int
) -> np.ndarray:
    corners = [_checked(polygon, height + width) for polygon in polygons]
    drawn = [polygon for polygon in corners if len(polygon) >= 6]
    if not drawn:
        return np.zeros((height, width), dtype=bool)
    try:
        from pycocotools import mask as coco
    except ModuleNotFoundError as error:
        raise extra_needed('pycocotools') from error
    runs = coco.merge(coco.frPyObjects(drawn, height, width))
    return coco.decode(runs).astype(bool)


def _checked(numbers: Sequence[float], reach: float) -> list[float]:
    """Return a polygon as numbers, of which pycocotools believes every one."""
    polygon = [float(number) for number in numbers]
    if len(polygon) % 2 or not (np.abs(polygon) <= reach).all():
        raise ValueError(f'{str(numbers)[:80]} are no corners in this image')
    return polygon
