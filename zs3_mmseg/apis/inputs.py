"""What users name or pass becomes a list of pictures, and each of them 8-bit RGB."""

from __future__ import annotations

import glob
import os
import re
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import numpy as np
import torch
from PIL import Image

from zs3_mmseg.utils.image_io import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    MAX_PIXELS_ENV,
    TRANSPARENT_NOTE,
    DecodedImage,
    ImageReadError,
    decode_image,
    from_pillow,
    is_picture,
    require_picture,
)

from .segmentation import is_result
from .video import is_video

InMemory = np.ndarray | torch.Tensor | Image.Image
#: A file, an address, or pixels in memory; see :func:`load_picture`.
Picture = str | os.PathLike | InMemory

_URL = re.compile(r'[a-z][a-z0-9+.-]*://', re.IGNORECASE)
_SCHEMES = ('http', 'https')
_TIMEOUT = 30  # seconds without a byte
_CHUNK = 2**20
# No file that we read needs more: four bytes a pixel and some for headers.
_LARGEST_DOWNLOAD = 4 * MAX_PIXELS + 2**20


class WebPicture(os.PathLike):
    """A picture from the web, which lies in a temporary file as long as this object.

    Args:
        url: ``http://`` or ``https://``.

    Attributes:
        url: the address.
        stem: how files that belong to it are named: the end of its path.

    Raises:
        OSError: naming the address, if it cannot be had, or is larger than any picture
            that is read.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme.lower() not in _SCHEMES or not parts.hostname:
            raise FileNotFoundError(
                f'{url}: pictures come from {" or ".join(_SCHEMES)} addresses; '
                'download it and name the file'
            )
        self.url = url
        self.stem = PurePosixPath(unquote(parts.path)).stem or parts.hostname
        handle, name = tempfile.mkstemp(prefix='zs3_mmseg_')
        self._path = Path(name)
        weakref.finalize(self, self._path.unlink, missing_ok=True)
        with os.fdopen(handle, 'wb') as stream:
            self._fetch(stream)

    def __fspath__(self) -> str:
        return str(self._path)

    def __str__(self) -> str:
        return self.url

    def _fetch(self, stream: BinaryIO) -> None:
        request = Request(self.url, headers={'User-Agent': 'zs3_mmseg'})
        arrived = 0
        try:
            with urlopen(request, timeout=_TIMEOUT) as response:
                announced = int(response.headers.get('Content-Length') or 0)
                while announced <= _LARGEST_DOWNLOAD and arrived <= _LARGEST_DOWNLOAD:
                    chunk = response.read(_CHUNK)
                    if not chunk:
                        break
                    arrived += stream.write(chunk)
        except HTTPError as error:
            raise FileNotFoundError(
                f'{self.url}: the server answers {error.code} {error.reason}'
            ) from error
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, 'reason', None) or error
            raise OSError(f'{self.url}: cannot be fetched ({reason})') from error
        if max(announced, arrived) > _LARGEST_DOWNLOAD:
            raise ImageReadError(
                f'{self.url}: more than {_LARGEST_DOWNLOAD:,} bytes; make it smaller, '
                f'or set the environment variable {MAX_PIXELS_ENV}'
            )
        if arrived < announced:
            raise OSError(f'{self.url}: {arrived:,} of {announced:,} bytes arrived')


#: What is read from a disk.
PictureFile = Path | WebPicture


def _files_in(folder: Path, recursive: bool) -> list[Path]:
    """Return the pictures in a folder and, if wanted, in those below it, by suffix.

    Those that an earlier call has written there are left out.
    """
    return sorted(
        path
        for path in (folder.rglob('*') if recursive else folder.iterdir())
        if is_picture(path)
        and path.is_file()
        and not is_result(path)
        and not any(part.startswith('.') for part in path.relative_to(folder).parts)
    )


def _expand(item: str, recursive: bool) -> list[Path]:
    path = Path(item).expanduser()
    if path.is_dir():
        files = _files_in(path, recursive)
        if not files:
            suffixes = ', '.join(sorted(IMAGE_SUFFIXES))
            below = ' and those below it' if recursive else ''
            raise FileNotFoundError(
                f'{item}: no pictures ({suffixes}) in this folder{below}'
            )
        return files
    # A file may have brackets or a question mark in its name.
    if path.exists():
        return [path]
    if not glob.has_magic(item):
        raise FileNotFoundError(f'{item}: no such file or folder')
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    files = [match for match in matches if not match.is_dir()]
    if not files:
        raise FileNotFoundError(f'{item}: the pattern matches no file')
    return files


def collect_files(
    items: Iterable[str | os.PathLike],
    *,
    recursive: bool = True,
) -> tuple[list[PictureFile], list[str]]:
    """Expand files, folders, patterns and addresses to a list of files.

    A file that is named twice is listed once. What has an address is fetched.

    Args:
        items: paths of pictures, of folders (the pictures in them and in all folders
            below, but not in hidden ones), glob patterns, and addresses that begin with
            ``http://`` or ``https://``.
        recursive: whether to look in folders below a folder, too.

    Returns:
        the files in the order they were named, and one message for each item that
        stands for no file at all.
    """
    files: dict[Path | str, PictureFile] = {}
    problems = []
    for item in items:
        name = str(item)
        try:
            if isinstance(item, WebPicture):
                files.setdefault(name, item)
            elif _URL.match(name):
                files[name] = files.get(name) or WebPicture(name)
            else:
                for path in _expand(os.fspath(item), recursive):
                    files.setdefault(path.resolve(), path)
        except OSError as error:
            problems.append(str(error))
    return list(files.values()), problems


def list_pictures(inputs: Picture | Sequence[Picture]) -> list[PictureFile | InMemory]:
    """Return pictures one by one: those in memory, and the files of all others.

    An array or a tensor with a further axis in front is a batch of pictures.
    """
    if isinstance(inputs, Picture):
        inputs = [inputs]
    pictures: list[PictureFile | InMemory] = []
    for item in inputs:
        if isinstance(item, np.ndarray | torch.Tensor) and item.ndim == 4:
            pictures.extend(item)
        elif isinstance(item, InMemory):
            pictures.append(item)
        else:
            files, problems = collect_files([item])
            if problems:
                raise FileNotFoundError(problems[0])
            pictures.extend(files)
    return pictures


def fetched(item: Picture) -> Picture:
    """Return a picture as it is, or what is at its address."""
    if isinstance(item, str) and _URL.match(item):
        return WebPicture(item)
    return item


@contextmanager
def _named_as_given(item: str | os.PathLike) -> Iterator[None]:
    """Let what is wrong with a fetched file name its address."""
    try:
        yield
    except OSError as error:
        if not isinstance(item, WebPicture):
            raise
        raise ImageReadError(str(error).replace(os.fspath(item), item.url)) from error


def require_readable(item: PictureFile) -> None:
    """Check what can be told from the first bytes of a picture.

    Raises:
        OSError: see :func:`~zs3_mmseg.utils.image_io.decode_image`.
    """
    with _named_as_given(item):
        require_picture(item)


def _as_bytes(array: np.ndarray) -> np.ndarray:
    """Bring values to 0..255 uint8: floats are 0..1, integers 0..255."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in 'fiub':
        raise ValueError(f'expected a picture of numbers, got {array.dtype}')
    top = 1 if array.dtype.kind in 'fb' else 255
    # Not a number fails both comparisons.
    if not (array.min() >= 0 and array.max() <= top):
        raise ValueError(
            f'expected a picture with values from 0 to {top}, as it is of '
            f'{array.dtype}, got {array.min():g} to {array.max():g}'
        )
    return np.round(array.astype(np.float32) * (255 / top)).astype(np.uint8)


def _as_rgb(array: np.ndarray, channel_order: str) -> DecodedImage:
    """Bring ``(H, W)`` or ``(H, W, C)`` to 8-bit RGB."""
    if channel_order not in ('rgb', 'bgr'):
        raise ValueError(f"channel_order is 'rgb' or 'bgr', not {channel_order!r}")
    if array.size == 0:
        raise ValueError(
            f'expected a picture with at least one pixel, got {array.shape}'
        )
    shaped = array[..., None] if array.ndim == 2 else array
    if shaped.ndim != 3 or shaped.shape[2] > 4:
        raise ValueError(
            'expected a picture of shape (H, W, 3), (H, W, 4) or (H, W), got '
            f'{array.shape}; several go into a list'
        )
    values = _as_bytes(shaped)
    has_alpha = values.shape[2] in (2, 4)
    colours = values[..., :-1] if has_alpha else values
    if colours.shape[2] == 1:
        colours = np.repeat(colours, 3, axis=2)
    elif channel_order == 'bgr':
        colours = colours[..., ::-1]
    is_opaque = not has_alpha or values[..., -1].min() == 255
    return DecodedImage(
        np.ascontiguousarray(colours), () if is_opaque else (TRANSPARENT_NOTE,)
    )


def load_picture(item: Picture, channel_order: str = 'rgb') -> DecodedImage:
    """Return a picture as 8-bit RGB.

    Args:
        item: a file or a :class:`WebPicture`; an array ``(H, W, 3)``, with alpha
            ``(H, W, 4)`` or, if grey, ``(H, W)``; a tensor with the channels first; or
            a picture of Pillow. Floats are 0..1, integers 0..255. Alpha is left out, as
            in files.
        channel_order: of arrays and tensors, ``'rgb'`` or ``'bgr'``.

    Raises:
        OSError: see :func:`~zs3_mmseg.utils.image_io.decode_image`.
        ValueError: other shapes or values.
    """
    if isinstance(item, Image.Image):
        return from_pillow(item)
    if isinstance(item, torch.Tensor):
        if item.ndim == 3 and item.shape[0] > 4:
            raise ValueError(
                'expected a tensor of shape (3, H, W), (4, H, W) or (H, W), got '
                f'{tuple(item.shape)}'
            )
        array = item.detach().cpu().numpy()
        item = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    if isinstance(item, np.ndarray):
        return _as_rgb(item, channel_order)
    if is_video(item):
        raise ImageReadError(f'{item}: a video; stream() takes its frames one by one')
    with _named_as_given(item):
        return decode_image(item)
