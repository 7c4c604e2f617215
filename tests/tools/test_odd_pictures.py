"""Odd pictures through each way in: the same labels, or a line that says what is wrong.

The command takes all of them at once; the inferencer takes each as a file, from a web
server, and, where Pillow opens it, as a picture of Pillow; ``inference_model`` of mmseg
takes the files.
"""

from __future__ import annotations

import functools
import io
import json
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mmseg.apis import inference_model

from zs3_mmseg.apis import ZeroShotInferencer

pytestmark = pytest.mark.slow

CLASSES = ('grass', 'water', 'star', 'boat')


def scene(width: int = 60, height: int = 44) -> Image.Image:
    noise = np.random.default_rng(width).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def deep(dtype: str) -> Image.Image:
    return Image.fromarray(np.asarray(scene().convert('L')).astype(dtype) * 251)


def see_through(mode: str) -> Image.Image:
    picture = scene().convert('RGBA')
    picture.putalpha(scene(61, 44).resize((60, 44)).convert('L'))
    return picture.convert(mode)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(scene(), 'JPEG', exif=exif)


def with_text() -> bytes:
    notes = PngImagePlugin.PngInfo()
    notes.add_text('comment', 'x' * 5000)
    return saved(scene(), 'PNG', pnginfo=notes)


def claims(width: int, height: int) -> bytes:
    """Return a PNG that says it is of this size, and holds next to nothing."""
    header = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    data = b'IDAT' + zlib.compress(bytes(9))
    chunks = (
        struct.pack('>I', len(part) - 4) + part + struct.pack('>I', zlib.crc32(part))
        for part in (header, data, b'IEND')
    )
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunks)


FRAMES = dict(save_all=True, append_images=[scene().rotate(180)])
UPRIGHT, LYING = (60, 44), (44, 60)
PNG, JPEG = saved(scene(), 'PNG'), saved(scene(), 'JPEG')
LARGE = saved(scene(600, 440), 'JPEG')

#: File name -> its bytes and the size that it is seen at.
GOOD: dict[str, tuple[bytes, tuple[int, int]]] = {
    # sizes
    'dot.png': (saved(scene(1, 1), 'PNG'), (1, 1)),
    'row.png': (saved(scene(700, 1), 'PNG'), (700, 1)),
    'column.png': (saved(scene(2, 700), 'PNG'), (2, 700)),
    'prime.png': (saved(scene(101, 97), 'PNG'), (101, 97)),
    'large.jpg': (saved(scene(2100, 1500), 'JPEG'), (2100, 1500)),
    # modes
    'bits.png': (saved(scene().convert('1'), 'PNG'), UPRIGHT),
    'grey.png': (saved(scene().convert('L'), 'PNG'), UPRIGHT),
    'grey.jpg': (saved(scene().convert('L'), 'JPEG'), UPRIGHT),
    'grey_alpha.png': (saved(see_through('LA'), 'PNG'), UPRIGHT),
    'alpha.png': (saved(see_through('RGBA'), 'PNG'), UPRIGHT),
    'alpha.webp': (saved(see_through('RGBA'), 'WEBP', lossless=True), UPRIGHT),
    'palette.png': (saved(scene().quantize(16), 'PNG'), UPRIGHT),
    'clear.png': (saved(scene().quantize(16), 'PNG', transparency=3), UPRIGHT),
    'print.jpg': (saved(scene().convert('CMYK'), 'JPEG'), UPRIGHT),
    'print.tif': (saved(scene().convert('CMYK'), 'TIFF'), UPRIGHT),
    'lab.tif': (saved(scene().convert('LAB'), 'TIFF'), UPRIGHT),
    'deep.png': (saved(deep('u2'), 'PNG'), UPRIGHT),
    'deep.tif': (saved(deep('u2'), 'TIFF'), UPRIGHT),
    'deeper.tif': (saved(deep('i4'), 'TIFF'), UPRIGHT),
    # formats
    'fine.jpg': (saved(scene(), 'JPEG', quality=100, subsampling=0), UPRIGHT),
    'poor.jpg': (saved(scene(), 'JPEG', quality=1), UPRIGHT),
    'waves.jpg': (saved(scene(), 'JPEG', progressive=True), UPRIGHT),
    'notes.png': (with_text(), UPRIGHT),
    'plain.bmp': (saved(scene(), 'BMP'), UPRIGHT),
    'plain.ppm': (saved(scene(), 'PPM'), UPRIGHT),
    'plain.gif': (saved(scene(), 'GIF'), UPRIGHT),
    'moving.gif': (saved(scene(), 'GIF', **FRAMES), UPRIGHT),
    'moving.webp': (saved(scene(), 'WEBP', lossless=True, **FRAMES), UPRIGHT),
    'moving.png': (saved(scene(), 'PNG', **FRAMES), UPRIGHT),
    'pages.tif': (saved(scene(), 'TIFF', **FRAMES), UPRIGHT),
    'packed.tif': (saved(scene(), 'TIFF', compression='tiff_lzw'), UPRIGHT),
    'photo.webp': (saved(scene(), 'WEBP'), UPRIGHT),
    'photo.avif': (saved(scene(), 'AVIF'), UPRIGHT),
    'photo.jp2': (saved(scene(), 'JPEG2000'), UPRIGHT),
    # orientations
    **{
        f'turned{number}.jpg': (turned(number), LYING if number > 4 else UPRIGHT)
        for number in range(2, 9)
    },
    # names
    'wrong.jpg': (PNG, UPRIGHT),
    'UPPER.PNG': (PNG, UPRIGHT),
    'without_suffix': (PNG, UPRIGHT),
    'two.dots.png': (PNG, UPRIGHT),
    'two words.png': (PNG, UPRIGHT),
    'odd[1]?#%20.png': (PNG, UPRIGHT),
    '草 \N{SMILING FACE WITH OPEN MOUTH}.png': (PNG, UPRIGHT),
    f'{"long" * 50}.png': (PNG, UPRIGHT),
    # beginnings of a picture that a reader could take for a whole one
    'longer.png': (PNG + b'more', UPRIGHT),
    'longer.jpg': (JPEG + b'more', UPRIGHT),
}
#: OpenCV, by which the config reads files, has other rules for these colours and depths
#: than Pillow.
READ_OTHERWISE = {'print.jpg', 'lab.tif', 'deep.png', 'deep.tif'}
UNKNOWN_TO_OPENCV = {'deeper.tif'}
#: File name -> its bytes and what is said of it.
BAD: dict[str, tuple[bytes, str]] = {
    'empty.png': (b'', 'the file is empty'),
    'words.png': (b'no picture', 'no picture in a known format'),
    'page.jpg': (b'<!DOCTYPE html><html></html>', 'no picture in a known format'),
    'drawing.svg': (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'no picture in a'),
    'paper.pdf': (saved(scene(), 'PDF'), 'no picture in a known format'),
    'script.eps': (saved(scene(), 'EPS'), 'no picture in a known format'),
    'icon.tga': (saved(scene(), 'TGA'), 'no picture in a known format'),
    'archive.png': (b'PK\x03\x04' + bytes(60), 'no picture in a known format'),
    'half.png': (PNG[: len(PNG) // 2], 'damaged or incomplete'),
    'half.jpg': (LARGE[: len(LARGE) // 2], 'damaged or incomplete'),
    'half.webp': (saved(scene(), 'WEBP')[:-40], 'damaged or incomplete'),
    'bomb.png': (claims(10**5, 10**5), 'more than the'),
    'hollow.png': (claims(3000, 3000), 'damaged or incomplete'),
    'floats.tif': (
        saved(Image.fromarray(np.zeros((9, 9), 'f4')), 'TIFF'),
        'floating-point',
    ),
    'below.tif': (
        saved(Image.fromarray(np.full((9, 9), -5, 'i4')), 'TIFF'),
        'no 16-bit picture',
    ),
    'film.mp4': (b'no film', 'OpenCV can read no frame'),
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('pictures')
    for name, (content, _) in {**GOOD, **BAD}.items():
        (root / name).write_bytes(content)
    return root


@pytest.fixture(scope='module')
def inferencer() -> ZeroShotInferencer:
    return ZeroShotInferencer(classes=CLASSES)


@pytest.fixture(scope='module')
def expected(folder: Path, inferencer: ZeroShotInferencer) -> dict[str, np.ndarray]:
    """Return the labels of each good file."""
    return {
        name: inferencer(folder / name)['predictions'][0]['labels'] for name in GOOD
    }


@pytest.fixture(scope='module')
def site(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    serve = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(('localhost', 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://localhost:{server.server_port}/'
        server.shutdown()


def test_each_is_labelled_at_the_size_it_is_seen_at(
    expected: dict[str, np.ndarray],
) -> None:
    assert len(GOOD) >= 50
    sizes = {name: labels.shape[::-1] for name, labels in expected.items()}
    assert sizes == {name: size for name, (_, size) in GOOD.items()}


def test_the_web_and_pillow_give_the_labels_of_the_file(
    inferencer: ZeroShotInferencer,
    expected: dict[str, np.ndarray],
    folder: Path,
    site: str,
) -> None:
    for name, labels in expected.items():
        found, _ = inferencer.segment(site + quote(name))
        np.testing.assert_array_equal(found.labels, labels, err_msg=name)
        found, _ = inferencer.segment(Image.open(folder / name))
        if name in READ_OTHERWISE:
            assert found.labels.shape == labels.shape
        else:
            np.testing.assert_array_equal(found.labels, labels, err_msg=name)


def test_mmsegs_own_function_gives_the_same(
    inferencer: ZeroShotInferencer, expected: dict[str, np.ndarray], folder: Path
) -> None:
    for name in expected.keys() - UNKNOWN_TO_OPENCV:
        found = inference_model(inferencer.model, str(folder / name))
        np.testing.assert_array_equal(
            found.pred_sem_seg.data[0].numpy(), expected[name], err_msg=name
        )


def test_another_reader_is_said(inferencer: ZeroShotInferencer, folder: Path) -> None:
    for name in UNKNOWN_TO_OPENCV:
        found, _ = inferencer.segment(folder / name)
        assert any('read by Pillow' in note for note in found.notes)


@pytest.mark.parametrize('name', BAD)
def test_what_is_none_is_told(
    inferencer: ZeroShotInferencer, folder: Path, site: str, name: str
) -> None:
    is_video = name == 'film.mp4'
    says = 'a video' if is_video else BAD[name][1]
    # What has an address is taken for a picture, whatever its name.
    for given in (folder / name, *([] if is_video else [site + quote(name)])):
        with pytest.raises((OSError, ValueError)) as caught:
            inferencer(given)
        assert str(caught.value).startswith(str(given))
        assert says in str(caught.value)
        assert '\n' not in str(caught.value)


def test_the_command_labels_the_good_and_names_the_others(
    run_tool, expected: dict[str, np.ndarray], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / 'loop.png').symlink_to('loop.png')
    os.mkfifo(tmp_path / 'pipe.png')
    finished = run_tool(
        'segment.py',
        *(folder / name for name in sorted([*GOOD, *BAD])),
        *(tmp_path / name for name in ('loop.png', 'pipe.png')),
        *('--classes', *CLASSES, '--out-dir', tmp_path / 'out'),
        folder=tmp_path,
    )
    assert finished.status == 1
    assert 'Traceback' not in finished.output
    lines = finished.output.splitlines()
    for name, (_, says) in BAD.items():
        begin = f'error: {folder / name}: '
        (told,) = (line for line in lines if line.startswith(begin))
        assert says in told
    for name in ('loop.png', 'pipe.png'):
        assert f'error: {tmp_path / name}: ' in finished.output
    records = [
        json.loads(path.read_text()) for path in (tmp_path / 'out').glob('*.json')
    ]
    assert {Path(record['file']).name for record in records} == GOOD.keys()
    for record in records:
        found = np.asarray(Image.open(tmp_path / 'out' / record['labels']))
        name = Path(record['file']).name
        np.testing.assert_array_equal(found, expected[name], err_msg=name)
