"""What users type or pass becomes a list of pictures."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zs3_mmseg.apis import inputs
from zs3_mmseg.apis.inputs import (
    Picture,
    collect_files,
    list_pictures,
    load_picture,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ('b.png', 'a.JPG', 'notes.txt', 'odd[1].png'):
        Image.new('RGB', (2, 2)).save(tmp_path / name, 'PNG')
    (tmp_path / '._b.png').write_text('macOS leaves such files')
    (tmp_path / 'empty').mkdir()
    return tmp_path


def names(files: list[Path]) -> list[str]:
    return [path.name for path in files]


def test_a_folder_gives_its_pictures_in_order(folder: Path) -> None:
    files, problems = collect_files([folder])
    assert names(files) == ['a.JPG', 'b.png', 'odd[1].png']
    assert not problems


def test_folders_are_searched_to_their_depth_but_hidden_ones(folder: Path) -> None:
    for place in ('deep/er', 'deep/.cache'):
        (folder / place).mkdir(parents=True)
        Image.new('RGB', (2, 2)).save(folder / place / 'c.png')
    assert names(collect_files([folder / 'deep'])[0]) == ['c.png']
    assert len(collect_files([folder])[0]) == 4


def test_written_results_are_no_input(folder: Path) -> None:
    for name in ('b_overlay.png', 'b_labels.png', 'x_overlay.png'):
        Image.new('RGB', (2, 2)).save(folder / name)
    (folder / 'b.json').write_text('{}')
    found = names(collect_files([folder])[0])
    assert found == ['a.JPG', 'b.png', 'odd[1].png', 'x_overlay.png']


@pytest.mark.parametrize('address', ['s3://bucket/a.png', 'FILE:///a.png', 'http:///a'])
def test_other_addresses_than_those_of_the_web_are_refused(address: str) -> None:
    files, (problem,) = collect_files([address])
    assert not files
    assert problem.startswith(f'{address}: pictures come from http or https addresses')


class Site(BaseHTTPRequestHandler):
    """Serves one picture, whole, cut off, moved, and as more than it is."""

    picture = b''

    def do_GET(self) -> None:
        body = b'no picture' if self.path == '/text.png' else self.picture
        if self.path == '/moved.png':
            self.send_response(302)
            self.send_header('Location', '/blue%20sea.png?size=2')
            self.end_headers()
            return
        if self.path == '/gone.png':
            self.send_error(404)
            return
        length = {'/cut.png': len(body) + 9, '/huge.png': 10**12}.get(self.path)
        self.send_response(200)
        if self.path != '/endless.png':
            self.send_header('Content-Length', str(length or len(body)))
        self.end_headers()
        repeats = 100 if self.path == '/endless.png' else 1
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body * repeats)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    stream = io.BytesIO()
    Image.new('RGB', (2, 2), (1, 2, 3)).save(stream, 'PNG')
    Site.picture = stream.getvalue()
    with ThreadingHTTPServer(('localhost', 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://localhost:{server.server_port}'
        server.shutdown()


def test_a_picture_from_the_web_is_a_file_while_it_is_used(site: str) -> None:
    address = f'{site}/blue%20sea.png?size=2'
    (picture,), problems = collect_files([address, address])
    assert not problems
    assert (str(picture), picture.stem) == (address, 'blue sea')
    file = Path(picture)
    assert load_picture(picture).pixels.tolist() == [[[1, 2, 3]] * 2] * 2
    del picture
    assert not file.exists()


def test_addresses_are_followed(site: str) -> None:
    (picture,) = list_pictures(f'{site}/moved.png')
    assert load_picture(picture).pixels.shape == (2, 2, 3)


@pytest.mark.parametrize(
    ('page', 'says'),
    [
        ('gone.png', 'the server answers 404'),
        ('cut.png', 'bytes arrived'),
        ('huge.png', 'more than 1,000 bytes'),
        ('endless.png', 'more than 1,000 bytes'),
    ],
)
def test_what_cannot_be_had_from_the_web_is_named(
    site: str, page: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, '_LARGEST_DOWNLOAD', 1000)
    files, (problem,) = collect_files([f'{site}/{page}'])
    assert not files
    assert problem.startswith(f'{site}/{page}: ')
    assert says in problem


def test_what_is_no_picture_is_named_by_its_address(site: str) -> None:
    (picture,) = list_pictures(f'{site}/text.png')
    with pytest.raises(OSError, match='no picture in a known format') as caught:
        load_picture(picture)
    assert str(caught.value).startswith(f'{site}/text.png: ')


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.create_server(('localhost', 0)) as free:
        port = free.getsockname()[1]
    _, (problem,) = collect_files([f'http://localhost:{port}/a.png'])
    assert problem.startswith(f'http://localhost:{port}/a.png: cannot be fetched (')


def test_a_pattern_gives_its_matches(folder: Path) -> None:
    assert names(collect_files([f'{folder}/?.*'])[0]) == ['a.JPG', 'b.png']


def test_a_file_with_brackets_in_its_name_is_no_pattern(folder: Path) -> None:
    assert names(collect_files([folder / 'odd[1].png'])[0]) == ['odd[1].png']


def test_a_picture_named_twice_is_listed_once(folder: Path) -> None:
    assert names(collect_files([folder / 'b.png', f'{folder}/b.*'])[0]) == ['b.png']


def test_a_missing_file_is_named(folder: Path) -> None:
    files, (problem,) = collect_files([folder / 'gone.png'])
    assert not files
    assert problem == f'{folder}/gone.png: no such file or folder'


def test_items_that_stand_for_nothing_are_named(folder: Path) -> None:
    items = [folder / 'empty', f'{folder}/*.bmp', f'{folder}/emp*']
    files, problems = collect_files(items)
    assert not files
    assert 'no pictures' in problems[0]
    assert 'matches no file' in problems[1]
    assert 'matches no file' in problems[2]
    with pytest.raises(FileNotFoundError, match='matches no file'):
        list_pictures(f'{folder}/*.bmp')


def test_arrays_and_files_can_be_mixed(folder: Path) -> None:
    array = np.zeros((2, 2, 3), dtype=np.uint8)
    listed = list_pictures([array, str(folder / 'b.png')])
    assert listed[0] is array
    assert listed[1] == folder / 'b.png'


def test_bgr_arrays_are_swapped_and_grey_ones_repeated() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    assert load_picture(array).pixels.tolist() == array.tolist()
    assert load_picture(array, 'bgr').pixels.tolist() == [[[2, 1, 0], [5, 4, 3]]]
    assert load_picture(array[..., 0]).pixels.tolist() == [[[0, 0, 0], [3, 3, 3]]]


RGBA = np.array([[[10, 20, 30, 255], [40, 50, 60, 0]]], dtype=np.uint8)
RGB = [[[10, 20, 30], [40, 50, 60]]]


@pytest.mark.parametrize(
    ('item', 'pixels', 'noted'),
    [
        (RGBA, RGB, True),
        (RGBA[:, :1], [RGB[0][:1]], False),
        (RGBA[..., :3].astype(np.int64), RGB, False),
        (RGBA[..., :3] / 255, RGB, False),
        (RGBA[..., :3].astype(np.float16) / 255, RGB, False),
        (RGBA[..., 0] > 20, [[[0] * 3, [255] * 3]], False),
        (RGBA[..., [0, 3]], [[[10] * 3, [40] * 3]], True),
        (RGBA[..., :1], [[[10] * 3, [40] * 3]], False),
        (torch.from_numpy(RGBA).permute(2, 0, 1), RGB, True),
        (torch.from_numpy(RGBA / 255)[..., :3].permute(2, 0, 1), RGB, False),
        (torch.from_numpy(RGBA)[..., 0], [[[10] * 3, [40] * 3]], False),
        (Image.fromarray(RGBA), RGB, True),
        (Image.fromarray(RGBA[..., 0]), [[[10] * 3, [40] * 3]], False),
        (Image.fromarray(RGBA[..., 0]).convert('P'), [[[10] * 3, [40] * 3]], False),
    ],
)
def test_pictures_in_memory(item: Picture, pixels: list, noted: bool) -> None:
    (listed,) = list_pictures(item)
    loaded = load_picture(listed)
    assert loaded.pixels.dtype == np.uint8
    assert loaded.pixels.tolist() == pixels
    assert bool(loaded.notes) == noted


@pytest.mark.parametrize(
    ('item', 'says'),
    [
        (np.zeros((2, 2, 5), np.uint8), r'\(H, W, 3\)'),
        (np.zeros((1, 2, 2, 3), np.uint8), 'several go into a list'),
        (np.zeros((0, 2, 3), np.uint8), 'at least one pixel'),
        (np.full((2, 2, 3), 200.0), 'from 0 to 1'),
        (np.full((2, 2, 3), np.nan), 'from 0 to 1'),
        (np.full((2, 2, 3), -0.5), 'from 0 to 1'),
        (np.full((2, 2, 3), 256), 'from 0 to 255'),
        (np.full((2, 2), 'x'), 'of numbers'),
        (torch.zeros(64, 48, 3), r'tensor of shape \(3, H, W\)'),
        (torch.zeros(1, 3, 8, 8), 'several go into a list'),
        (Image.fromarray(np.zeros((2, 2), np.float32)), 'floating-point'),
    ],
)
def test_what_is_no_picture_is_refused(item: Picture, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load_picture(item)
