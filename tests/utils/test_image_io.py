"""Every picture is read right or refused by name."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from zs3_mmseg.utils import image_io
from zs3_mmseg.utils.image_io import (
    ImageReadError,
    MaskError,
    decode_image,
    decode_mask,
    read_image,
)

RED = (200, 10, 30)


def photo(height: int = 24, width: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'PPM', 'TIFF'])
def test_lossless_formats_give_their_pixels_back(tmp_path: Path, kind: str) -> None:
    path = tmp_path / 'file'
    path.write_bytes(encoded(Image.fromarray(photo()), kind))
    np.testing.assert_array_equal(read_image(path), photo())


def test_jpeg_is_read(tmp_path: Path) -> None:
    path = tmp_path / 'photo.jpg'
    Image.new('RGB', (20, 10), RED).save(path, quality=95)
    pixels = read_image(path)
    assert pixels.shape == (10, 20, 3)
    np.testing.assert_allclose(pixels, np.broadcast_to(RED, pixels.shape), atol=4)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    path = tmp_path / 'grey.png'
    Image.fromarray(photo()[..., 0]).save(path)
    np.testing.assert_array_equal(
        read_image(path), np.repeat(photo()[..., :1], 3, axis=2)
    )


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / 'deep.png'
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(path)
    decoded = decode_image(path)
    assert decoded.pixels[0, :, 0].tolist() == [0, 1, 128, 255]
    assert '16-bit' in decoded.notes[0]


def test_transparency_is_left_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / 'see_through.png'
    picture = Image.new('RGBA', (2, 1), (*RED, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    picture.save(path)
    decoded = decode_image(path)
    assert decoded.pixels[0].tolist() == [list(RED), [0, 0, 0]]
    assert decoded.notes == ('transparency is left out: hidden colours show',)


def test_opaque_alpha_needs_no_note(tmp_path: Path) -> None:
    path = tmp_path / 'opaque.png'
    Image.new('RGBA', (2, 1), (*RED, 255)).save(path)
    assert decode_image(path).notes == ()


def test_palette_with_a_transparent_entry(tmp_path: Path) -> None:
    path = tmp_path / 'indexed.png'
    picture = Image.new('P', (2, 1))
    picture.putpalette([*RED, 0, 0, 0])
    picture.putpixel((1, 0), 1)
    picture.save(path, transparency=1)
    assert read_image(path)[0].tolist() == [list(RED), [0, 0, 0]]


def test_cmyk_is_read_in_its_colours(tmp_path: Path) -> None:
    path = tmp_path / 'print.jpg'
    Image.new('CMYK', (16, 16), (0, 255, 255, 0)).save(path, quality=95)
    red, green, blue = read_image(path)[8, 8].tolist()
    assert red > 240
    assert max(green, blue) < 15


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    path = tmp_path / 'turned.png'
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    Image.fromarray(photo()).save(path, exif=exif)
    np.testing.assert_array_equal(read_image(path), np.rot90(photo(), k=-1))


def test_one_pixel(tmp_path: Path) -> None:
    path = tmp_path / 'dot.png'
    Image.new('RGB', (1, 1), RED).save(path)
    assert read_image(path).tolist() == [[list(RED)]]


def test_of_an_animation_the_first_frame_is_used(tmp_path: Path) -> None:
    path = tmp_path / 'moving.gif'
    frames = [Image.new('RGB', (4, 4), colour) for colour in ('white', 'black')]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    decoded = decode_image(path)
    assert decoded.pixels.min() == 255
    assert 'first of several frames' in decoded.notes[0]


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'BMP', 'GIF', 'TIFF', 'WEBP', 'PPM'])
@pytest.mark.parametrize('kept', [0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused_by_name(
    tmp_path: Path, kind: str, kept: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other code in the process may have made Pillow tolerant.
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True)
    content = encoded(Image.fromarray(photo(64, 64)), kind)
    path = tmp_path / 'cut.img'
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ImageReadError, match=r'cut\.img: '):
        read_image(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_a_png_that_lost_only_its_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'cut.png'
    path.write_bytes(encoded(Image.fromarray(photo()), 'PNG')[:-12])
    with pytest.raises(ImageReadError, match='incomplete'):
        read_image(path)


def test_a_flipped_byte_in_a_png_is_found(tmp_path: Path) -> None:
    content = bytearray(encoded(Image.fromarray(photo()), 'PNG'))
    content[len(content) // 2] ^= 255
    path = tmp_path / 'bad.png'
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match='damaged'):
        read_image(path)


@pytest.mark.parametrize(
    ('content', 'says'),
    [(b'', 'empty'), (b'hello, I am a letter\n' * 9, 'known format')],
)
def test_files_that_hold_no_picture(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / 'letter.png'
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match=says) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_missing_files_and_folders_have_errors_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='no such file'):
        read_image(tmp_path / 'nothing.png')
    with pytest.raises(IsADirectoryError, match='folder'):
        read_image(tmp_path)


def test_float_pixels_are_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / 'heat.tiff'
    Image.fromarray(np.ones((2, 2), dtype=np.float32)).save(path)
    with pytest.raises(ImageReadError, match='8 or 16 bits'):
        read_image(path)


def test_a_size_beyond_the_limit_is_refused_from_the_header_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'huge.png'
    Image.new('RGB', (40, 30)).save(path)
    monkeypatch.setattr(image_io, 'MAX_PIXELS', 40 * 30)
    assert read_image(path).shape == (30, 40, 3)
    monkeypatch.setattr(image_io, 'MAX_PIXELS', 40 * 30 - 1)
    monkeypatch.setattr(Image.Image, 'load', lambda self: pytest.fail('decoded'))
    with pytest.raises(ImageReadError, match='40 x 30'):
        read_image(path)


def test_more_pixels_than_pillows_own_limit_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'large.png'
    Image.new('RGB', (40, 30)).save(path)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    assert read_image(path).shape == (30, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


LABELS = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)


def _bands(mode: str, alpha: np.ndarray | None = None) -> Image.Image:
    """Return the labels in each band of a mode, and alpha."""
    labels = Image.fromarray(LABELS)
    bands = [labels] * (len(mode) - 1) + [
        labels if alpha is None else Image.fromarray(alpha)
    ]
    return Image.merge(mode, bands)


OPAQUE = np.full_like(LABELS, 255)
HALF = np.array([[0, 255, 255], [255, 255, 255]], np.uint8)


@pytest.mark.parametrize(
    ('name', 'image'),
    [
        ('a.png', Image.fromarray(LABELS)),
        ('a.bmp', Image.fromarray(LABELS)),
        ('p.png', Image.fromarray(LABELS).convert('P')),
        ('i16.png', Image.fromarray(LABELS.astype(np.uint16))),
        ('big_endian.tif', Image.fromarray(LABELS.astype('>u2'))),
        ('i32.tif', Image.fromarray(LABELS.astype(np.int32))),
        ('f.tif', Image.fromarray(LABELS.astype(np.float32))),
        ('la.png', _bands('LA', OPAQUE)),
        ('rgb.png', _bands('RGB')),
        ('rgba.png', _bands('RGBA', OPAQUE)),
    ],
)
def test_masks_keep_their_values(tmp_path: Path, name: str, image: Image.Image) -> None:
    image.save(tmp_path / name)
    assert decode_mask(tmp_path / name).grey.tolist() == LABELS.tolist()


def test_palettes_and_bits_are_values_too(tmp_path: Path) -> None:
    drawn = Image.fromarray(LABELS).convert('P')
    drawn.putpalette([7, 8, 9] * 256)
    drawn.save(tmp_path / 'a.png', transparency=0)
    mask = decode_mask(tmp_path / 'a.png')
    assert mask.pixels.tolist() == LABELS.tolist()
    assert mask.palette is not None
    assert mask.palette[2].tolist() == [7, 8, 9]
    Image.fromarray(LABELS > 0).save(tmp_path / 'bits.png')
    assert decode_mask(tmp_path / 'bits.png').pixels.tolist() == [[0, 1, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    ('name', 'image', 'options', 'message'),
    [
        ('la.png', _bands('LA', HALF), {}, r'la\.png has an alpha channel .*0 to 255'),
        ('rgba.png', _bands('RGBA', HALF), {}, r'alpha channel \(mode RGBA\)'),
        ('f.tif', Image.fromarray(LABELS / np.float32(2)), {}, r'floats such as 0\.5'),
        ('c.tif', _bands('CMYK'), {}, 'has the mode CMYK'),
        ('a.jpg', Image.fromarray(LABELS), {}, 'is a JPEG, which smears labels'),
        (
            'two.tif',
            Image.fromarray(LABELS),
            dict(save_all=True, append_images=[Image.fromarray(LABELS)]),
            'holds 2 frames',
        ),
    ],
)
def test_masks_without_labels_are_told_by_what_they_are(
    tmp_path: Path, name: str, image: Image.Image, options: dict, message: str
) -> None:
    image.save(tmp_path / name, **options)
    with pytest.raises(MaskError, match=message) as error:
        decode_mask(tmp_path / name)
    assert 'palette' not in str(error.value)
