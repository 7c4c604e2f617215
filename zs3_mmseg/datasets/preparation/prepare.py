"""Prepare a benchmark: find its files, bring them into shape, count them."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from zs3_mmseg.datasets.preparation.ade20k import ADE20K
from zs3_mmseg.datasets.preparation.archives import is_archive, open_archive
from zs3_mmseg.datasets.preparation.benchmark import Benchmark
from zs3_mmseg.datasets.preparation.cityscapes import CITYSCAPES
from zs3_mmseg.datasets.preparation.coco_objects import COCO20I, COCO20I_2017
from zs3_mmseg.datasets.preparation.cocostuff import COCOSTUFF164K
from zs3_mmseg.datasets.preparation.counts import Count
from zs3_mmseg.datasets.preparation.downloads import fetch
from zs3_mmseg.datasets.preparation.job import Job
from zs3_mmseg.datasets.preparation.pascal_context import PASCAL_CONTEXT
from zs3_mmseg.datasets.preparation.trees import FileTree, FolderTree, PreparationError
from zs3_mmseg.datasets.preparation.voc12 import VOC12

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
