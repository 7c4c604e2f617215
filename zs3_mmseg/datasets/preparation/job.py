"""What a preparation consists of: rules, the job that follows them, the benchmark."""

from __future__ import annotations

import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from rich.console import Console
from rich.progress import Progress

from zs3_mmseg.utils.cache import atomic_write

from .archives import FileTree, FolderTree, PreparationError, Readable
from .counts import Count
from .labels import png_bytes

Converter = Callable[[bytes, str], np.ndarray]


@dataclass(frozen=True)
class Rule:
    """Which files are wanted, and where they go.

    Attributes:
        pattern: regular expression for the end of a path, from the start of a folder
            or file name on.
        target: path below the root, with ``\\1`` for groups of the pattern.
        convert: makes the label map from the bytes of the file and its name; None
            takes the file as it is.
    """

    pattern: str
    target: str
    convert: Converter | None = None

    def target_of(self, path: str) -> str | None:
        """Return where a file goes, or None if this rule is not about it."""
        found = re.search(f'(?:^|/){self.pattern}$', path)
        return found.expand(self.target) if found else None


def _first_match(rules: Sequence[Rule], path: str) -> tuple[Rule | None, str]:
    for rule in rules:
        target = rule.target_of(path)
        if target is not None:
            return rule, target
    return None, ''


@dataclass
class Job:
    """Everything that one preparation reads and writes.

    Every file appears whole or not at all, and a file that is there already stays as it
    is: a run that was stopped goes on where it ended, and one more changes nothing.

    Attributes:
        root: the folder that the configs call ``data_root``.
        trees: where the files come from; of two files for one place, the first counts.
        overwrite: make files again that are there already.
        workers: how many label maps are converted at the same time.
        progress: whether to show a bar on standard error.
        written: how many files were written.
        kept: how many were there already.
    """

    root: Path
    trees: Sequence[FileTree]
    overwrite: bool = False
    workers: int = 1
    progress: bool = False
    written: int = 0
    kept: int = 0
    _claimed: set[str] = field(default_factory=set)

    def apply(self, *rules: Rule, label: str = 'files') -> int:
        """Take or convert the files that rules are about; the first rule counts.

        ``label`` is what the progress bar calls them. Returns how many files the rules
        are about, those in place already included.
        """
        before = self.written + self.kept
        plans = [(tree, self._plan(tree, rules)) for tree in self.trees]
        self._require_space(plans)
        with self._writer(label, sum(len(plan) for _, plan in plans)) as writer:
            for tree, plan in plans:
                for path, stream in tree.read(plan):
                    target, convert = plan[path]
                    origin = f'{tree.origin}/{path}'
                    if convert is not None:
                        make = partial(convert, stream.read(), origin)
                        writer.draw(target, make)
                    else:
                        writer.take(target, stream, tree, path)
        return self.written + self.kept - before

    def draw_all(
        self,
        targets: Sequence[str],
        make: Callable[[str], np.ndarray],
        label: str = 'label maps',
    ) -> None:
        """Make the label maps, by paths below the root, that are not there yet."""
        wanted = [target for target in targets if self._must_write(target)]
        with self._writer(label, len(wanted)) as writer:
            for target in wanted:
                writer.draw(target, partial(make, target))

    def write_list(self, target: str, names: Sequence[str]) -> None:
        """Write a list of names, one a line, unless it says the same already."""
        text = ''.join(f'{name}\n' for name in names)
        path = self.root / target
        if path.is_file() and path.read_text() == text:
            self.kept += 1
            return
        atomic_write(path, lambda stream: stream.write(text.encode()))
        self.written += 1

    def find(self, name: str) -> Iterator[tuple[str, Readable]]:
        """Yield the files called ``name`` in any folder, with open streams."""
        for tree in self.trees:
            wanted = {path for path in tree.sizes if path.split('/')[-1] == name}
            for path, stream in tree.read(wanted):
                yield f'{tree.origin}/{path}', stream

    def _plan(
        self, tree: FileTree, rules: Sequence[Rule]
    ) -> dict[str, tuple[str, Converter | None]]:
        """Decide which files of a tree to take, by path."""
        plan: dict[str, tuple[str, Converter | None]] = {}
        owners: dict[str, str] = {}
        for path in tree.sizes:
            rule, target = _first_match(rules, f'{tree.origin.name}/{path}')
            if rule is None or self._is_itself(tree, path, target):
                continue
            if target in owners:
                raise PreparationError(
                    f'{tree.origin} holds two files for {target}: {owners[target]} '
                    f'and {path}; name a source that holds one'
                )
            owners[target] = path
            if target not in self._claimed and self._must_write(target):
                self._claimed.add(target)
                plan[path] = (target, rule.convert)
        return plan

    def _is_itself(self, tree: FileTree, path: str, target: str) -> bool:
        """Whether a file lies where it belongs."""
        if not isinstance(tree, FolderTree):
            return False
        source = os.path.normpath(tree.origin / path)
        return source == os.path.normpath(self.root.resolve() / target)

    def _must_write(self, target: str) -> bool:
        """Whether a file is not there yet; counts those that are."""
        if not self.overwrite and (self.root / target).exists():
            self.kept += 1
            return False
        return True

    def _require_space(
        self, plans: Sequence[tuple[FileTree, dict[str, tuple[str, Converter | None]]]]
    ) -> None:
        needed = sum(tree.sizes[path] for tree, plan in plans for path in plan)
        if not needed:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if needed > free:
            raise PreparationError(
                f'{self.root} has {free / 1e9:.1f} GB left on its disk, but '
                f'{needed / 1e9:.1f} GB are needed'
            )

    @contextmanager
    def _writer(self, label: str, total: int) -> Iterator[_Writer]:
        with (
            Progress(
                console=Console(stderr=True), disable=not (self.progress and total)
            ) as bar,
            ThreadPoolExecutor(self.workers) as pool,
        ):
            task = bar.add_task(label, total=total)
            writer = _Writer(self, pool, lambda: bar.advance(task))
            yield writer
            writer.finish()


class _Writer:
    """Converts in threads and writes in this one, a few files ahead."""

    def __init__(
        self, job: Job, pool: ThreadPoolExecutor, done: Callable[[], None]
    ) -> None:
        self._job = job
        self._pool = pool
        self._done = done
        self._waiting: deque[tuple[str, Future[bytes]]] = deque()

    def draw(self, target: str, make: Callable[[], np.ndarray]) -> None:
        """Write a label map as soon as it is made."""
        future = self._pool.submit(lambda: png_bytes(make()))
        self._waiting.append((target, future))
        while len(self._waiting) > 4 * self._job.workers:
            self._write_first()

    def take(self, target: str, stream: Readable, tree: FileTree, path: str) -> None:
        """Write a file as it is; from a folder of the same disk, as a hard link."""
        place = self._job.root / target
        if isinstance(tree, FolderTree) and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link((tree.origin / path).resolve(), place)
                return self._count()
            except OSError:
                pass  # another disk, or one that knows no hard links
        self._write(target, lambda out: shutil.copyfileobj(stream, out, 2**20))

    def finish(self) -> None:
        """Write what is still being made."""
        while self._waiting:
            self._write_first()

    def _write_first(self) -> None:
        target, future = self._waiting.popleft()
        data = future.result()
        self._write(target, lambda out: out.write(data))

    def _write(self, target: str, write: Callable[[BinaryIO], object]) -> None:
        atomic_write(self._job.root / target, write, sync=False)
        self._count()

    def _count(self) -> None:
        self._job.written += 1
        self._done()


Step = Callable[[Job], None]


def voc_year(year: int) -> str:
    """Return how a pattern begins that is about one year of the VOC challenge.

    The years have the same folder names; what lies in another year's is left alone.
    """
    return rf'(?<!VOC20\d\d/)(?:VOC{year}/)?'


@dataclass(frozen=True)
class Download:
    """A file that its makers publish: where, or on which page, and what it holds.

    Only a file whose checksum is known is fetched by us.
    """

    name: str
    url: str
    holds: str
    md5: str = ''


@dataclass(frozen=True)
class Benchmark:
    """A published data set: where it comes from, and how it is brought into shape.

    Attributes:
        name: what ``tools/prepare_data.py`` calls it.
        root: where the configs look for it.
        downloads: the official files.
        arrange: puts files and label maps below the root.
        count: counts what is below a root.
        convert: makes only the label maps and lists that the official files lack; None
            if they lack nothing.
    """

    name: str
    root: str
    downloads: Sequence[Download]
    arrange: Step
    count: Callable[[Path], list[Count]]
    convert: Step | None = None


def taking(**rules: Rule) -> Step:
    """Return a step that takes the files of some rules, one rule after the other.

    Each has the name that the progress bar shows, ``_`` standing for a space.
    """

    def step(job: Job) -> None:
        for label, rule in rules.items():
            job.apply(rule, label=label.replace('_', ' '))

    return step
