"""Which pictures are meant by what somebody typed or passed."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from zs3_mmseg.utils.image_io import (
    IMAGE_SUFFIXES,
    DecodedImage,
    decode_image,
    is_picture,
)

Picture = str | os.PathLike | np.ndarray


def _files_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder, by suffix, not those in folders below it."""
    return sorted(
        path for path in folder.iterdir() if is_picture(path) and path.is_file()
    )


def _expand(item: str) -> list[Path]:
    path = Path(item).expanduser()
    if path.is_dir():
        files = _files_in(path)
        if not files:
            suffixes = ', '.join(sorted(IMAGE_SUFFIXES))
            raise FileNotFoundError(f'{item}: no pictures ({suffixes}) in this folder')
        return files
    # A file may have brackets or a question mark in its name.
    if path.exists() or not glob.has_magic(item):
        return [path]
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    files = [match for match in matches if not match.is_dir()]
    if not files:
        raise FileNotFoundError(f'{item}: the pattern matches no file')
    return files


def collect_files(
    items: Iterable[str | os.PathLike],
) -> tuple[list[Path], list[str]]:
    """Expand files, folders and patterns to a list of files.

    A file that is named twice is listed once. A plain name that doesn't exist is
    listed, too: reading it tells what is wrong with it.

    Args:
        items: paths of pictures, of folders (their pictures), and glob patterns.

    Returns:
        the files in the order they were named, and one message for each item that
        stands for no file at all.
    """
    files: dict[Path, Path] = {}
    problems = []
    for item in items:
        try:
            for path in _expand(os.fspath(item)):
                files.setdefault(path.resolve(), path)
        except OSError as error:
            problems.append(str(error))
    return list(files.values()), problems


def list_pictures(inputs: Picture | Sequence[Picture]) -> list[Path | np.ndarray]:
    """Return pictures one by one: arrays, and the files of folders and patterns.

    Raises:
        FileNotFoundError: a folder or a pattern without any picture.
    """
    if isinstance(inputs, str | os.PathLike | np.ndarray):
        inputs = [inputs]
    pictures: list[Path | np.ndarray] = []
    for item in inputs:
        if isinstance(item, np.ndarray):
            pictures.append(item)
            continue
        files, problems = collect_files([item])
        if problems:
            raise FileNotFoundError(problems[0])
        pictures.extend(files)
    return pictures


def _as_rgb(array: np.ndarray, channel_order: str) -> np.ndarray:
    if channel_order not in ('rgb', 'bgr'):
        raise ValueError(f"channel_order is 'rgb' or 'bgr', not {channel_order!r}")
    if array.dtype != np.uint8 or array.size == 0:
        raise ValueError(
            f'expected a picture of uint8 with at least one pixel, got '
            f'{array.dtype} of shape {array.shape}'
        )
    if array.ndim == 2:
        return np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(
            f'expected a picture of shape (H, W, 3) or (H, W), got {array.shape}'
        )
    return array if channel_order == 'rgb' else np.ascontiguousarray(array[..., ::-1])


def load_picture(item: Picture, channel_order: str = 'rgb') -> DecodedImage:
    """Return a picture as RGB.

    Args:
        item: a file, or an array ``(H, W, 3)`` or, if grey, ``(H, W)`` of uint8.
        channel_order: of an array: ``'rgb'``, or ``'bgr'`` as ``cv2.imread`` gives.

    Raises:
        OSError: see :func:`~zs3_mmseg.utils.image_io.decode_image`.
        ValueError: an array of another shape or type, or without any pixel.
    """
    if isinstance(item, np.ndarray):
        return DecodedImage(_as_rgb(item, channel_order))
    return decode_image(item)
