"""Label maps in and out of the file formats that the benchmarks come in."""

from __future__ import annotations

import io
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from zs3_mmseg.datasets.preparation.trees import PreparationError
from zs3_mmseg.utils.image_io import MAX_PIXELS

_PNG_ERRORS = (UnidentifiedImageError, OSError, SyntaxError, ValueError, zlib.error)
_MAT_ERRORS = (
    *(ValueError, TypeError, KeyError, IndexError, OSError, EOFError),
    *(NotImplementedError, zlib.error),
)


def read_label_png(data: bytes, origin: str) -> np.ndarray:
    """Decode an 8-bit label map.

    Args:
        data: the bytes of a PNG with one byte a pixel, grey or with a palette.
        origin: where it comes from, for messages.

    Returns:
        The values, not the colours, (H, W), uint8.

    Raises:
        PreparationError: if it is something else.
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
    """Encode a label map (H, W) as a grey PNG; the same labels give the same bytes.

    Args:
        labels: uint8, or uint16 for more classes than a byte can number.
    """
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(labels)).save(stream, 'PNG')
    return stream.getvalue()


def read_mat(data: bytes, variable: str, origin: str) -> np.ndarray:
    """Read one variable of a MATLAB file (version 7 or older).

    Raises:
        PreparationError: if the file cannot be read or lacks the variable.
        ModuleNotFoundError: if SciPy is not installed, with the line that helps.
    """
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ModuleNotFoundError as error:
        raise extra_needed('scipy') from error
    try:
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
    """Return a label map as it is, if it is one.

    Args:
        labels: anything.
        highest: the largest label; 255 is allowed besides.
        origin: where it comes from, for messages.

    Raises:
        PreparationError: if it is no (H, W) array of integers from 0 to ``highest``.
    """
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


def look_up(labels: np.ndarray, table: np.ndarray, origin: str) -> np.ndarray:
    """Replace each label by its entry in a table.

    Args:
        labels: (H, W), uint8.
        table: (256,), int; -1 stands for a label that must not occur.
        origin: where the labels come from, for messages.

    Returns:
        (H, W), uint8.

    Raises:
        PreparationError: naming the file and the label, if the table has no answer.
    """
    occurs = np.bincount(labels.ravel(), minlength=len(table)) > 0
    strange = np.flatnonzero(occurs & (table < 0))
    if strange.size:
        raise PreparationError(
            f'{origin}: label {int(strange[0])} does not occur in this data set; are '
            'these the official label maps?'
        )
    return table.astype(np.uint8)[labels]
