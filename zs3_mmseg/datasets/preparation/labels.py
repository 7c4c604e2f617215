"""Label maps from PNG, MATLAB and COCO annotations, and tables that renumber them."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from zs3_mmseg.utils.image_io import DECODE_ERRORS, MAX_PIXELS
from zs3_mmseg.utils.labels import IGNORE_INDEX

from .archives import PreparationError
from .mat_files import require_sound_mat

_PNG_ERRORS = (Image.DecompressionBombError, *DECODE_ERRORS)
_MAT_ERRORS = (
    *(ValueError, TypeError, KeyError, IndexError, OSError, EOFError),
    *(NotImplementedError, ArithmeticError, MemoryError, zlib.error),
)


def read_label_png(data: bytes, origin: str) -> np.ndarray:
    """Decode a PNG with one byte a pixel: its values, not its colours, (H, W), uint8.

    ``origin`` is where it comes from, for messages; so in all that follows.
    """
    try:
        with Image.open(io.BytesIO(data), formats=('PNG',)) as image:
            if image.mode not in ('L', 'P'):
                raise PreparationError(
                    f'{origin}: expected a label map with one byte a pixel, got a PNG '
                    f'of mode {image.mode}; is it a picture of the labels?'
                )
            if image.width * image.height > MAX_PIXELS:
                raise PreparationError(
                    f'{origin}: {image.width} x {image.height} pixels are no label map'
                )
            return np.asarray(image)
    except PreparationError:
        raise
    except _PNG_ERRORS as error:
        raise PreparationError(f'{origin}: no readable PNG ({error})') from error


def png_bytes(labels: np.ndarray) -> bytes:
    """Encode labels (H, W), uint8 or uint16; the same labels give the same bytes."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(labels)).save(stream, 'PNG')
    return stream.getvalue()


def read_mat(data: bytes, variable: str, origin: str) -> np.ndarray:
    """Read one variable of a MATLAB file (version 7 or older)."""
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ModuleNotFoundError as error:
        raise extra_needed('scipy') from error
    try:
        require_sound_mat(data)
        return loadmat(io.BytesIO(data), variable_names=[variable])[variable]
    except (*_MAT_ERRORS, MatReadError) as error:
        raise PreparationError(
            f'{origin}: no MATLAB file with a variable {variable!r} ({error})'
        ) from error


def extra_needed(package: str) -> ModuleNotFoundError:
    """Return the error for an optional package that is not there."""
    return ModuleNotFoundError(
        f'{package} is needed to prepare this data set: '
        'pip install "zs3_mmseg[datasets]"',
        name=package,
    )


def require_labels(labels: np.ndarray, highest: int, origin: str) -> np.ndarray:
    """Return anything that is (H, W) integers of 0 to ``highest`` and 255, as it is."""
    if labels.ndim != 2 or labels.dtype.kind not in 'iu' or not labels.size:
        raise PreparationError(
            f'{origin}: expected a label map (H, W) of integers, got shape '
            f'{labels.shape} of {labels.dtype}'
        )
    wrong = labels[((labels < 0) | (labels > highest)) & (labels != 255)]
    if wrong.size:
        raise PreparationError(
            f'{origin}: label {int(wrong.flat[0])} is neither 0 to {highest} nor 255'
        )
    return labels


def label_table(raw_labels: Sequence[int], ignored: Iterable[int]) -> np.ndarray:
    """Return the table for :func:`look_up` by which ``raw_labels[k]`` becomes k."""
    table = np.full(256, -1)
    table[[*ignored]] = IGNORE_INDEX
    table[[*raw_labels]] = np.arange(len(raw_labels))
    return table


def look_up(labels: np.ndarray, table: np.ndarray, origin: str) -> np.ndarray:
    """Replace labels, (H, W), uint8, by their entries in a table, (256,), int.

    -1 stands for a label that must not occur.
    """
    occurs = np.bincount(labels.ravel(), minlength=len(table)) > 0
    strange = np.flatnonzero(occurs & (table < 0))
    if strange.size:
        raise PreparationError(
            f'{origin}: label {int(strange[0])} does not occur in this data set; are '
            'these the official label maps?'
        )
    return table.astype(np.uint8)[labels]


Segmentation = Mapping[str, Any] | Sequence[Sequence[float]]


def image_size(image: Mapping[str, Any], origin: str) -> tuple[int, int]:
    """Return height and width of an entry in an annotation file."""
    height, width = image.get('height'), image.get('width')
    if not isinstance(height, int) or not isinstance(width, int):
        raise PreparationError(f'{origin}: height {height!r}, width {width!r}')
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise PreparationError(f'{origin}: {width} x {height} is no size of an image')
    return height, width


def image_stem(image: Mapping[str, Any], origin: str) -> str:
    """Return the name of an entry's JPEG file, after which its label map is named."""
    name = str(image['file_name'])
    if not name.endswith('.jpg') or '/' in name or '\\' in name:
        raise PreparationError(f'{origin}: {name!r} is no plain name of a JPEG file')
    return name.removesuffix('.jpg')


def decode_mask(
    segmentation: Segmentation, height: int, width: int, origin: str
) -> np.ndarray:
    """Draw one mask, (H, W), bool; polygons by COCO's own routine, to the same pixel.

    A segmentation is a list of polygons ``[x0, y0, x1, y1, ...]``, whose union is
    meant, fewer than three corners covering nothing; or run lengths
    ``{'size': [H, W], 'counts': ...}`` down the columns, beginning with zeros, as
    numbers or in the string form of pycocotools.
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
