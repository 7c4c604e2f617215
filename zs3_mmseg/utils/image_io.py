"""Reading pictures that users bring, whatever they are, without silent damage.

A reader that tolerates broken files returns a truncated JPEG as a half grey picture,
and the segmentation of the grey half looks like a result. Here every pixel of a file
is decoded before anything is returned, and what can't be decoded is an error that
names the file.
"""

from __future__ import annotations

import os
import struct
import threading
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

#: The environment variable that sets :data:`MAX_PIXELS`.
MAX_PIXELS_ENV = 'ZS3_MMSEG_MAX_PIXELS'
#: Largest picture that is decoded, in pixels (8,192 squared): a small file may claim
#: any size, and on the way to RGB a pixel needs up to 19 bytes.
MAX_PIXELS = int(os.environ.get(MAX_PIXELS_ENV, 2**26))
# A JPEG has a bit for each block of 8 x 8 pixels at least; Pillow fills up with grey
# what is missing of a picture whose size was changed.
_JPEG_PIXELS_PER_BYTE = 8 * 64

# How many kinds of files, or folders, a message lists.
_LISTED = 4

#: Suffixes by which pictures are picked from a folder.
IMAGE_SUFFIXES = frozenset(
    {'.png', '.jpg', '.jpeg', '.jpe', '.jfif', '.bmp', '.gif', '.tif', '.tiff'}
    | {'.webp', '.avif', '.jp2', '.ppm', '.pgm'}
)


def is_picture(path: Path) -> bool:
    """Whether a name found in a folder is that of a picture.

    Hidden files are none: macOS leaves a ``._NAME.jpg`` beside what it copies.
    """
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith('.')


def no_pictures(folder: str | os.PathLike, suffix: str) -> str:
    """Return a sentence on a folder without pictures, with what it holds instead."""
    entries = sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []
    folders = [entry.name for entry in entries if entry.is_dir()]
    files = Counter(
        path.suffix or 'nameless' for path in Path(folder).rglob('*') if path.is_file()
    )
    held = [f'{count} {kind}' for kind, count in files.most_common(_LISTED)]
    held = [f'files: {", ".join(held)}'] if held else []
    if folders:
        more = ', ...' if len(folders) > _LISTED else ''
        held.append(f'folders: {", ".join(folders[:_LISTED])}{more}')
    holds = f'holds {"; ".join(held)}' if held else 'is empty'
    wanted = f'image *{suffix}' if suffix else 'image of any kind'
    return f'no {wanted} found in the folder {folder}, which {holds}'


# An allow-list: other plug-ins of Pillow start external programs (EPS) or accept
# almost any bytes as a picture (TGA).
_FORMATS = ('PNG', 'JPEG', 'BMP', 'GIF', 'TIFF', 'WEBP', 'AVIF', 'JPEG2000', 'PPM')
TRANSPARENT_NOTE = 'transparency is left out: hidden colours show'

#: What Pillow's decoders raise on damaged files, found with 10^5 files cut and
# overwritten at random positions.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    EOFError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
)


# Held while globals of Pillow are as we need them.
_DECODING = threading.RLock()


class ImageReadError(OSError):
    """A file that exists but doesn't hold a whole picture that we can read."""


@dataclass(frozen=True)
class DecodedImage:
    """A picture and what was done to bring it to 8-bit RGB.

    Attributes:
        pixels: ``(H, W, 3)`` uint8, RGB, 0..255, upright (EXIF applied).
        notes: what a user may want to know, one sentence each, often none.
    """

    pixels: np.ndarray
    notes: tuple[str, ...] = ()


@contextmanager
def _strict_decoding() -> Iterator[None]:
    """Refuse truncated files, and leave the size check to :data:`MAX_PIXELS`.

    Both are globals of Pillow that other code may have changed, so one thread decodes
    at a time. Pillow's warnings (about odd metadata, mostly) say nothing about the
    pixels.
    """
    with _DECODING:
        tolerant, limit = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        Image.MAX_IMAGE_PIXELS = None
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings('ignore', module='PIL')
                yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = tolerant
            Image.MAX_IMAGE_PIXELS = limit


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(f'{path}: expected an image file, but it is a folder')
    if not path.exists():
        raise FileNotFoundError(f'{path}: no such file')
    if not path.is_file():
        raise ImageReadError(f'{path}: expected an image file, but it is a device')
    if path.stat().st_size == 0:
        raise ImageReadError(f'{path}: the file is empty')


def _open(path: Path, max_pixels: int | None = None) -> ImageFile.ImageFile:
    """Open lazily: the header is read, no pixel yet."""
    image = Image.open(path, formats=_FORMATS)
    width, height = image.size
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    if width * height > limit:
        image.close()
        # Who gave the limit knows how to raise it.
        setting = f', or set the environment variable {MAX_PIXELS_ENV}'
        raise ImageReadError(
            f'{path}: {width} x {height} is more than the {limit:,} pixels '
            f'that are read at once; make it smaller, cut it into parts'
            f'{setting if max_pixels is None else ""}'
        )
    stored = path.stat().st_size
    if image.format == 'JPEG' and width * height > stored * _JPEG_PIXELS_PER_BYTE:
        image.close()
        raise ImageReadError(
            f'{path}: the picture is damaged or incomplete ({stored:,} bytes cannot '
            f'hold {width} x {height} pixels)'
        )
    return image


def _sixteen_bits_to_eight(image: Image.Image) -> Image.Image:
    """Scale grey values of 0..65535 to 0..255 (Pillow's own convert clips them)."""
    values: np.ndarray = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(
            f'grey values from {values.min()} to {values.max()} are no 16-bit picture; '
            'save it with 8 or 16 bits a channel'
        )
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    if image.mode == 'F':
        raise ValueError(
            'floating-point pixels have no agreed value range; '
            'save it with 8 or 16 bits a channel'
        )
    if image.mode == 'I' or image.mode.startswith('I;16'):
        image = _sixteen_bits_to_eight(image)
        notes.append('16-bit grey values were scaled to 8 bits')
    if image.has_transparency_data:
        image = image.convert('RGBA')
        if np.asarray(image.getchannel('A')).min() < 255:
            notes.append(TRANSPARENT_NOTE)
    return image.convert('RGB')


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except DECODE_ERRORS:
        notes.append('the EXIF data is damaged: the picture is used as it is stored')
        return image


def _decode(path: Path, max_pixels: int | None) -> DecodedImage:
    notes: list[str] = []
    with _open(path, max_pixels) as image:
        # Checksums, and for PNG the end of the file; it consumes the stream.
        image.verify()
    with _open(path, max_pixels) as image:
        if getattr(image, 'is_animated', False):
            notes.append('the first of several frames is used')
        image.load()
        decoded = from_pillow(image)
    return DecodedImage(decoded.pixels, (*notes, *decoded.notes))


def from_pillow(image: Image.Image) -> DecodedImage:
    """Bring a picture of Pillow to upright 8-bit RGB, see :func:`decode_image`.

    Raises:
        ValueError: its values have no agreed range.
    """
    notes: list[str] = []
    rgb = _to_rgb(_upright(image, notes), notes)
    return DecodedImage(np.array(rgb), tuple(notes))


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Let whatever is wrong with a file end in an ``OSError`` that names it."""
    _check_file(path)
    try:
        yield
    except UnidentifiedImageError as error:
        raise ImageReadError(
            f'{path}: no picture in a known format ({", ".join(_FORMATS)})'
        ) from error
    except PermissionError as error:
        raise PermissionError(f'{path}: no permission to read it') from error
    except ImageReadError:
        raise
    except DECODE_ERRORS as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise ImageReadError(
            f'{path}: the picture is damaged or incomplete ({reason})'
        ) from error


def require_picture(path: str | os.PathLike) -> None:
    """Check what can be told from a file's first bytes, see :func:`decode_image`."""
    with _named_errors(Path(path)), _strict_decoding():
        _open(Path(path)).close()


def decode_image(
    path: str | os.PathLike, max_pixels: int | None = None
) -> DecodedImage:
    """Decode every pixel of a picture and bring it to upright 8-bit RGB.

    Grey, palette, CMYK and 1-bit pictures become RGB; 16-bit values are scaled (not
    clipped); transparency is left out, as mmcv's readers do; the EXIF orientation is
    applied; of several frames the first is used.

    Args:
        path: the file.
        max_pixels: the largest picture that is decoded; None: :data:`MAX_PIXELS`.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: it is a folder.
        PermissionError: it may not be read.
        ImageReadError: it is empty, no picture, truncated or damaged, or holds more
            than ``max_pixels``. All four are :class:`OSError`.
    """
    with _named_errors(Path(path)), _strict_decoding():
        return _decode(Path(path), max_pixels)


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read a picture as ``(H, W, 3)`` uint8 RGB; see :func:`decode_image`."""
    return decode_image(path).pixels


class MaskError(ValueError):
    """A whole picture whose pixels are no labels.

    Attributes:
        reason: what it is, without the file.
        kind: of the finding of ``tools/check_data.py`` that tells it.
    """

    def __init__(self, path: Path, reason: str, kind: str = 'unusual_mask') -> None:
        super().__init__(f'{path} {reason}')
        self.reason = reason
        self.kind = kind


@dataclass(frozen=True)
class DecodedMask:
    """A picture whose pixels stand for labels.

    Attributes:
        pixels: values, ``(H, W)`` of integers; or colours, ``(H, W, 3)`` uint8, RGB.
        mode: as Pillow calls it: ``'P'``, ``'LA'`` and so on.
        palette: RGB of each value, ``(256, 3)`` uint8, if the file has a palette.
    """

    pixels: np.ndarray
    mode: str
    palette: np.ndarray | None = None

    @property
    def grey(self) -> np.ndarray | None:
        """The values, ``(H, W)``, where all three channels are alike; else None."""
        first = self.pixels if self.pixels.ndim == 2 else self.pixels[..., 0]
        alike = self.pixels.ndim == 2 or (self.pixels == first[..., None]).all()
        return first if alike else None


def decode_mask(path: str | os.PathLike) -> DecodedMask:
    """Decode every pixel of a mask without changing any value.

    Grey, palette, 1-bit, 16-bit and 32-bit values are taken as they are, floats if they
    are whole numbers; alpha is left out where it is the same everywhere.

    Raises:
        OSError: as :func:`decode_image` does.
        MaskError: naming the file, if its pixels cannot be labels or colours of labels.
    """
    path = Path(path)
    _check_file(path)
    try:
        with _strict_decoding(), _open(path) as image:
            frames = getattr(image, 'n_frames', 1)
            if frames > 1:
                raise MaskError(path, f'holds {frames} frames; save the one that is it')
            if image.format == 'JPEG':
                raise MaskError(
                    path,
                    'is a JPEG, which smears labels along outlines; make it again from '
                    'the drawing, as PNG',
                    'smeared_mask',
                )
            image.load()
            return _as_mask(path, image)
    except (MaskError, ImageReadError):
        raise
    except DECODE_ERRORS as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise ImageReadError(f'{path} is no whole picture: {reason}') from error


def _as_mask(path: Path, image: Image.Image) -> DecodedMask:
    values: np.ndarray = np.asarray(image)
    bands = image.getbands()
    if bands[-1] == 'A':
        alpha, values = values[..., -1], values[..., :-1]
        if alpha.min() != alpha.max():
            raise MaskError(
                path,
                f'has an alpha channel (mode {image.mode}) of {alpha.min()} to '
                f'{alpha.max()}, and nobody says what transparent pixels mean; save it '
                'without alpha',
            )
        values, bands = values.squeeze(-1) if len(bands) == 2 else values, bands[:-1]
    if image.mode == 'F':
        whole = np.isfinite(values) & (values == np.floor(values))
        if not whole.all():
            raise MaskError(
                path,
                f'holds floats such as {values[~whole][0]:.4g}, which are no labels; '
                'save class indices, with 8 or 16 bits',
            )
    elif bands not in (('L',), ('P',), ('1',), ('I',), ('R', 'G', 'B')):
        raise MaskError(
            path,
            f'has the mode {image.mode}; save class indices, or colours as RGB',
        )
    if values.dtype.kind != 'u' or values.dtype.itemsize > 1:
        values = values.astype(np.uint8 if values.dtype == bool else np.int64)
    palette = None
    if bands == ('P',):
        colours = image.getpalette('RGB') or []
        palette = np.zeros((256, 3), np.uint8)
        palette.reshape(-1)[: len(colours)] = colours
    return DecodedMask(values, image.mode, palette)
