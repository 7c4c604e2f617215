"""Folders and archives as the same thing: relative paths with bytes behind them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Protocol


class PreparationError(ValueError):
    """Data that cannot be prepared; the message says which file and why."""


class Readable(Protocol):
    """What is needed of a stream."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, all of them by default."""


class FileTree(ABC):
    """A folder or an archive.

    Attributes:
        origin: the folder or the archive on disk.
        sizes: bytes of each file by its relative path with ``/``, in the order in
            which reading is cheap.
    """

    origin: Path
    sizes: dict[str, int]

    @abstractmethod
    def read(self, wanted: Collection[str]) -> Iterator[tuple[str, Readable]]:
        """Yield the wanted paths with open streams, in the order of ``sizes``.

        A stream may be used until the next one is asked for.
        """


class FolderTree(FileTree):
    """All files below a folder.

    Links are followed: a folder is the user's own, and data sets are often linked from
    another disk.

    Args:
        folder: the folder.
        only: paths below it, if not all files are meant.
    """

    def __init__(self, folder: Path, only: Iterable[str] | None = None) -> None:
        self.origin = folder.resolve()
        if only is None:
            self.sizes = dict(sorted(_walk(self.origin)))
        else:
            self.sizes = {path: (self.origin / path).stat().st_size for path in only}

    def read(self, wanted: Collection[str]) -> Iterator[tuple[str, Readable]]:
        for path in self.sizes:
            if path in wanted:
                with open(self.origin / path, 'rb') as stream:
                    yield path, stream


def _walk(folder: Path) -> Iterator[tuple[str, int]]:
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()  # a link that leads back up
            continue
        seen.add((status.st_dev, status.st_ino))
        for name in files:
            path = os.path.join(parent, name)
            if os.path.isfile(path):  # no broken link, no device
                relative = os.path.relpath(path, folder).replace(os.sep, '/')
                yield relative, os.path.getsize(path)
