"""Downloads from a server of this machine that can be told to fail."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from official_layouts import CASES

from zs3_mmseg.datasets.preparation import BENCHMARKS, PreparationError, prepare
from zs3_mmseg.datasets.preparation.job import Download
from zs3_mmseg.datasets.preparation.prepare import fetch

CONTENT = bytes(range(256)) * 4096


class Server(ThreadingHTTPServer):
    """Serves files by name; remembers what was asked for.

    Attributes:
        files: content by path.
        asked: the Range header of each request.
        limit: the connection ends after that many bytes of a file.
        ranges: whether the server can continue.
    """

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), Handler)
        self.files = {'/data.zip': CONTENT}
        self.asked: list[str | None] = []
        self.limit: int | None = None
        self.ranges = True

    def download(self, name: str = 'data.zip', **changes: str) -> Download:
        url = f'http://127.0.0.1:{self.server_port}/{name}'
        md5 = hashlib.md5(self.files[f'/{name}']).hexdigest()
        return replace(Download(name, url, 'test data', md5), **changes)


class Handler(BaseHTTPRequestHandler):
    """Answers one request of :class:`Server`."""

    server: Server

    def do_GET(self) -> None:
        asked = self.headers['Range']
        self.server.asked.append(asked)
        content = self.server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        start = 0
        if asked and self.server.ranges:
            start = int(asked.removeprefix('bytes=').removesuffix('-'))
            if start >= len(content):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header('Content-Length', str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: self.server.limit])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,)).start()
        yield running
        running.shutdown()


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        path = fetch(server.download(), tmp_path / 'downloads')
        assert path.read_bytes() == CONTENT
    assert server.asked == [None]
    assert [p.name for p in path.parent.iterdir()] == ['data.zip']


@pytest.mark.parametrize('ranges', [True, False])
def test_a_download_that_was_cut_off_goes_on(
    server: Server, tmp_path: Path, ranges: bool
) -> None:
    server.limit, server.ranges = 300_000, ranges
    with pytest.raises(PreparationError, match='goes on where it stopped'):
        fetch(server.download(), tmp_path)
    assert not (tmp_path / 'data.zip').exists()
    server.limit = None
    assert fetch(server.download(), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, 'bytes=300000-']


def test_a_whole_file_whose_check_was_not_reached(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / 'data.zip.part').write_bytes(CONTENT)
    assert fetch(server.download(), tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(PreparationError, match=r'MD5 sum .* instead of 000'):
        fetch(server.download(md5='000'), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_named(server: Server, tmp_path: Path) -> None:
    download = server.download()
    server.files.clear()
    with pytest.raises(PreparationError, match=r'data\.zip could not be fetched .*404'):
        fetch(download, tmp_path)


def test_preparation_fetches_what_it_was_not_given(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official = CASES['coco20i'].make(tmp_path / 'official')
    archives = official.pack(tmp_path / 'archives')
    server.files = {f'/{p.name}': p.read_bytes() for p in archives.iterdir()}
    benchmark = BENCHMARKS['coco20i']
    downloads = [server.download(download.name) for download in benchmark.downloads]
    changed = replace(benchmark, downloads=downloads)
    monkeypatch.setitem(BENCHMARKS, 'coco20i', changed)
    given = archives / 'val2014.zip'
    root = tmp_path / 'root'
    report = prepare('coco20i', root, [given], download=True)
    assert [count.found for count in report.counts] == [3, 2]
    fetched = sorted(path.name for path in (root / 'downloads').iterdir())
    assert fetched == ['annotations_trainval2014.zip', 'train2014.zip']


def test_only_files_with_checksums_are_fetched() -> None:
    """Those that cannot be checked are left to the user, whose message names them."""
    for benchmark in BENCHMARKS.values():
        for download in benchmark.downloads:
            assert download.url.startswith(('https://', 'http://'))
            assert len(download.md5) in (0, 32)
