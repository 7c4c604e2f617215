"""Archives that are looked through before anything is taken from them.

An archive from the network is somebody else's idea of where files belong. Nothing is
ever unpacked as it says: files are picked by name, and an archive with a single entry
that is not a plain file below its own folder is refused as a whole.
"""

from __future__ import annotations

import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Protocol


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
    another disk. ``only`` names paths below it, if not all files are meant.
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


#: How many times larger than the archive its files may be together ...
MAX_RATIO = 100
#: ... if they are larger than this, in bytes.
ALWAYS_ALLOWED = 2**30

# Types of tar entries that belong to the next one, and what they may hold, in bytes.
_IN_HEADERS = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
_LONGEST_HEADER = 2**20

ARCHIVE_SUFFIXES = ('.zip', '.tar', '.tar.gz', '.tgz', '.tar.bz2', '.tar.xz')

_READ_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    OSError,
    OverflowError,
    UnicodeDecodeError,
    NotImplementedError,
)


class UnsafeArchiveError(PreparationError):
    """An archive that would write outside of its folder, or fill the disk."""


def is_archive(path: Path) -> bool:
    """Tell whether a file is an archive, by its name."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def open_archive(path: Path) -> FileTree:
    """List a zip or a (compressed) tar file, and refuse it if an entry is unsafe.

    That is one whose path is absolute or leads out of the archive, or which is a link
    or a device; or files larger than any data set of this size could be.
    """
    kind = ZipTree if path.name.lower().endswith('.zip') else TarTree
    try:
        return kind(path)
    except _READ_ERRORS as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> PreparationError:
    return PreparationError(
        f'{path} is no readable archive ({error or type(error).__name__}); was its '
        'download cut off?'
    )


class _Stream:
    """A file in an archive; what is damaged shows only when its bytes are read."""

    def __init__(self, stream: IO[bytes], archive: Path) -> None:
        self._stream = stream
        self._archive = archive

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._stream.read(size)
        except _READ_ERRORS as error:
            raise _unreadable(self._archive, error) from error


class ZipTree(FileTree):
    """The files of a zip archive; see :func:`open_archive`."""

    def __init__(self, path: Path) -> None:
        self.origin = path
        self._entries: dict[str, zipfile.ZipInfo] = {}
        with zipfile.ZipFile(path) as archive:
            self.sizes = _checked_sizes(path, self._files(archive))

    def _files(self, archive: zipfile.ZipFile) -> Iterator[tuple[str, int]]:
        for entry in archive.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(self.origin, entry.filename, 'is a link or a device')
            if entry.flag_bits & 1:
                raise _refused(self.origin, entry.filename, 'is encrypted')
            name = safe_path(entry.filename, self.origin)
            if not entry.is_dir():
                self._entries[name] = entry
                yield name, entry.file_size

    def read(self, wanted: Collection[str]) -> Iterator[tuple[str, Readable]]:
        try:
            with zipfile.ZipFile(self.origin) as archive:
                for name, entry in self._entries.items():
                    if name in wanted:
                        with archive.open(entry) as stream:
                            yield name, _Stream(stream, self.origin)
        except _READ_ERRORS as error:
            raise _unreadable(self.origin, error) from error


class _Entry(tarfile.TarInfo):
    """An entry whose long name or attributes are no bomb: tarfile reads them whole."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type not in tarfile.SUPPORTED_TYPES + _IN_HEADERS:
            raise tarfile.ReadError(f'an entry of the unknown type {self.type!r}')
        if self.type in _IN_HEADERS and self.size > _LONGEST_HEADER:
            raise tarfile.ReadError(f'{self.size:,} bytes of a name or attributes')
        return super()._proc_member(archive)  # type: ignore[misc]


class TarTree(FileTree):
    """The files of a tar archive; see :func:`open_archive`."""

    def __init__(self, path: Path) -> None:
        self.origin = path
        with tarfile.open(path, tarinfo=_Entry) as archive:
            files = ((name, entry.size) for name, entry in self._files(archive))
            self.sizes = _checked_sizes(path, files)

    def _files(self, archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
        for entry in archive:
            if entry.isdir():
                if entry.name not in ('.', './'):
                    safe_path(entry.name, self.origin)
                continue
            if not entry.isreg() or entry.issparse():
                raise _refused(self.origin, entry.name, 'is a link or a device')
            yield safe_path(entry.name, self.origin), entry

    def read(self, wanted: Collection[str]) -> Iterator[tuple[str, Readable]]:
        try:
            with tarfile.open(self.origin, tarinfo=_Entry) as archive:
                for name, entry in self._files(archive):
                    stream = archive.extractfile(entry) if name in wanted else None
                    if stream is not None:
                        yield name, _Stream(stream, self.origin)
        except _READ_ERRORS as error:
            raise _unreadable(self.origin, error) from error


def safe_path(name: str, archive: Path) -> str:
    """Return the name of an entry as a plain relative path, or refuse it.

    Refused are also characters that some system reads as a separator.
    """
    parts = [part for part in name.split('/') if part not in ('', '.')]
    if not parts or name.startswith('/') or re.match('[A-Za-z]:', name):
        raise _refused(archive, name, 'is no relative path')
    if '..' in parts:
        raise _refused(archive, name, 'leads out of the archive')
    if '\\' in name or any(ord(letter) < 32 for letter in name):
        raise _refused(archive, name, 'holds characters that no data set needs')
    return '/'.join(parts)


def _checked_sizes(path: Path, files: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Collect sizes by name; stop as soon as the sum is too large.

    As soon as, because listing a compressed tar file unpacks it too.
    """
    limit = max(ALWAYS_ALLOWED, MAX_RATIO * path.stat().st_size)
    total = 0
    sizes: dict[str, int] = {}
    for name, size in files:
        total += size
        if total > limit:
            raise UnsafeArchiveError(
                f'{path} is refused: {path.stat().st_size:,} bytes that unpack to '
                f'more than {limit:,} are no data set'
            )
        if name in sizes:
            raise _refused(path, name, 'is there twice')
        sizes[name] = size
    return sizes


def _refused(path: Path, entry: str, reason: str) -> UnsafeArchiveError:
    return UnsafeArchiveError(f'{path} is refused: its entry {entry!r} {reason}')
