"""Prepare a benchmark: find its files, bring them into shape, count them."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from .archives import FileTree, FolderTree, PreparationError, is_archive, open_archive
from .coco_objects import COCO20I, COCO20I_2017
from .counts import Count
from .job import Benchmark, Download, Job
from .pascal_context import PASCAL_CONTEXT
from .pixel_maps import ADE20K, CITYSCAPES, COCOSTUFF164K
from .voc12 import VOC12

_CHUNK = 2**20
_TIMEOUT = 60  # seconds without a byte


def fetch(download: Download, folder: Path, *, progress: bool = False) -> Path:
    """Return a published file, which is fetched if it is not there yet.

    What has arrived of a download that was cut off lies in ``NAME.part``, and the next
    call asks for the rest only. A file with another checksum than the published one is
    removed.
    """
    path = folder / download.name
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.part')
    try:
        with _bar(download.name, progress) as advance:
            _fetch_rest(download.url, part, advance)
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise PreparationError(
            f'{download.url} could not be fetched ({error}). Try again, which goes on '
            f'where it stopped, or get {download.name} another way and name it with '
            '--source'
        ) from error
    found = _md5(part)
    if found != download.md5:
        part.unlink()
        raise PreparationError(
            f'{download.url} has the MD5 sum {found} instead of {download.md5}: the '
            'file was damaged on the way, or is not the published one. It was removed'
        )
    os.replace(part, path)
    return path


def _fetch_rest(url: str, part: Path, advance: Callable[..., Any]) -> None:
    """Append to ``part`` what it lacks."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={'User-Agent': 'zs3_mmseg'})
    if have:
        request.add_header('Range', f'bytes={have}-')
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if have and error.code == 416:
            return  # nothing is missing: only the check was not reached
        raise
    with response:
        # A server that cannot continue answers with the whole file.
        continues = response.status == 206
        length = response.headers.get('Content-Length')
        start = have if continues else 0
        total = start + int(length) if length else None
        advance(start, total=total)
        with open(part, 'ab' if continues else 'wb') as stream:
            while chunk := response.read(_CHUNK):
                stream.write(chunk)
                advance(len(chunk), total=total)
    if total is not None and part.stat().st_size < total:
        raise OSError(f'{part.stat().st_size:,} of {total:,} bytes arrived')


@contextmanager
def _bar(name: str, shown: bool) -> Any:
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(name, total=None)
        yield lambda count, total: bar.update(task, advance=count, total=total)


def _md5(path: Path) -> str:
    with open(path, 'rb') as stream:
        # No secret is kept by it: it is the sum that the makers publish.
        return hashlib.file_digest(
            stream, lambda: hashlib.md5(usedforsecurity=False)
        ).hexdigest()


#: Every benchmark that can be prepared, by name.
BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        *(VOC12, PASCAL_CONTEXT, COCOSTUFF164K, COCO20I, COCO20I_2017),
        *(ADE20K, CITYSCAPES),
    )
}


@dataclass(frozen=True)
class Report:
    """What a preparation did and found.

    Attributes:
        root: the folder of the data set.
        counts: the lines of the summary.
        written: how many files were written.
        kept: how many were there already.
    """

    root: Path
    counts: tuple[Count, ...]
    written: int
    kept: int

    @property
    def complete(self) -> bool:
        """Whether everything is there, in the official numbers."""
        return all(count.verdict == 'ok' for count in self.counts)

    @property
    def usable(self) -> bool:
        """Whether something is there and nothing that is listed is missing."""
        found = sum(count.found for count in self.counts)
        return bool(found) and not any(count.missing for count in self.counts)


def prepare(
    name: str,
    root: str | os.PathLike | None = None,
    sources: Sequence[str | os.PathLike] = (),
    *,
    download: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    progress: bool = False,
) -> Report:
    """Bring a benchmark into the layout that its config reads.

    What is below the root already is used and left as it is, so this can be called
    again and again.

    Args:
        name: a key of :data:`BENCHMARKS`.
        root: the folder of the data set, ``data_root`` in the config; by default the
            one that our configs name.
        sources: folders and archives that hold the official files. Archives in a
            folder count if they have their official names.
        download: fetch the official archives whose checksums are known into
            ``downloads`` below the root, unless nothing is missing.
        overwrite: make files again that are there already.
        workers: how many label maps are converted at the same time; by default one
            for each processor.
        progress: whether to show bars on standard error.

    Raises:
        FileNotFoundError: if a source does not exist, or nothing was found at all; the
            message says where the official files are.
        PreparationError: if a file is damaged, unsafe, or not what it should be.
    """
    benchmark = BENCHMARKS[name]
    folder = Path(benchmark.root if root is None else root)
    archives = list(map(Path, sources))
    if download and not _is_complete(benchmark, folder):
        archives += _downloaded(benchmark, folder, archives, progress)
    trees = _open_trees(benchmark, folder, archives)
    job = Job(folder, trees, overwrite, workers or os.cpu_count() or 1, progress)
    benchmark.arrange(job)
    counts = tuple(benchmark.count(folder))
    if not any(count.found or count.missing for count in counts):
        raise FileNotFoundError(_nothing_found(benchmark, folder, sources))
    return Report(folder, counts, job.written, job.kept)


def convert_labels(
    name: str,
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    workers: int | None = None,
    progress: bool = False,
) -> int:
    """Make only the label maps and lists that the official files of a benchmark lack.

    Args:
        name: a key of :data:`BENCHMARKS`.
        source: folder or archive with the official files.
        out: where the label maps go, in the layout of the benchmark.
        workers: see :func:`prepare`.
        progress: see :func:`prepare`.

    Returns:
        How many files were written.

    Raises:
        ValueError: if the benchmark needs no conversion.
        FileNotFoundError: if the source does not exist or holds nothing to convert.
        PreparationError: see :func:`prepare`.
    """
    benchmark = BENCHMARKS[name]
    if benchmark.convert is None:
        raise ValueError(f'the official label maps of {name} are used as they are')
    out = Path(out)
    trees = _open_trees(benchmark, out, [Path(source)])
    job = Job(out, trees, False, workers or os.cpu_count() or 1, progress)
    benchmark.convert(job)
    if not job.written + job.kept:
        raise FileNotFoundError(_nothing_found(benchmark, out, [source]))
    return job.written


def _is_complete(benchmark: Benchmark, root: Path) -> bool:
    return all(count.verdict == 'ok' for count in benchmark.count(root))


def _downloaded(
    benchmark: Benchmark, root: Path, given: Sequence[Path], progress: bool
) -> list[Path]:
    """Fetch the official archives that are not among the sources."""
    there = {path.name for source in given for path in (source, *_children(source))}
    return [
        fetch(download, root / 'downloads', progress=progress)
        for download in benchmark.downloads
        if download.md5 and download.name not in there
    ]


def _children(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else []


def _open_trees(
    benchmark: Benchmark, root: Path, sources: Sequence[Path]
) -> list[FileTree]:
    """Open the root, the sources, and the official archives that lie in a folder.

    Folders come before archives, so that what has been unpacked already is used.
    """
    official = {download.name for download in benchmark.downloads}
    folders: list[FileTree] = [FolderTree(root)] if root.is_dir() else []
    archives = _archives_in(root / 'downloads', official)
    for source in sources:
        if not source.exists():
            raise FileNotFoundError(f'{source} (a source) does not exist')
        if source.is_dir():
            folders.append(FolderTree(source))
            archives += _archives_in(source, official)
        elif is_archive(source):
            archives.append(source)
        elif source.name in official:
            folders.append(FolderTree(source.parent, only=[source.name]))
        else:
            raise PreparationError(
                f'{source} is neither a folder, nor an archive, nor one of the files '
                f'of {benchmark.name}: {", ".join(sorted(official))}'
            )
    unique = dict.fromkeys(path.resolve() for path in archives)
    return [*folders, *(open_archive(path) for path in unique)]


def _archives_in(folder: Path, names: Collection[str]) -> list[Path]:
    return [p for p in _children(folder) if p.name in names and is_archive(p)]


def _nothing_found(
    benchmark: Benchmark, root: Path, sources: Sequence[str | os.PathLike]
) -> str:
    places = ', '.join(str(place) for place in (root, *sources))
    files = '\n'.join(
        f'  {download.name}: {download.holds}, {download.url}'
        for download in benchmark.downloads
    )
    return (
        f'nothing of {benchmark.name} was found in {places}. Get the official files '
        f'and name them, or the folder that holds them, with --source:\n{files}'
    )
