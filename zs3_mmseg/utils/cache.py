"""A cache directory that several processes can share safely."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from mmengine.logging import print_log

CACHE_ENV = 'ZS3_MMSEG_CACHE'


def cache_dir() -> Path:
    """Return the cache directory: ``$ZS3_MMSEG_CACHE`` or ``~/.cache/zs3_mmseg``.

    It is not created here: importing or reading must not write.
    """
    chosen = os.environ.get(CACHE_ENV)
    return Path(chosen) if chosen else Path.home() / '.cache' / 'zs3_mmseg'


def content_hash(*parts: bytes | str) -> str:
    """Return a SHA-256 hex digest of the parts, with their borders hashed too."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, 'little'))
        digest.update(raw)
    return digest.hexdigest()


@contextmanager
def _temporary_beside(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix='.', suffix='.part', dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, 'wb') as stream:
            yield stream, temporary
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(
    path: str | os.PathLike,
    write: Callable[[BinaryIO], object],
    *,
    sync: bool = True,
) -> Path:
    """Write a file so that readers see all of it or nothing.

    ``write`` fills a temporary file beside ``path``, which then replaces it in one
    step: a killed process or a second rank never leaves half a file behind.

    Args:
        path: the file to make; missing folders are made.
        write: called with the open binary stream.
        sync: whether to wait until the disk has it, for files that cannot be made
            again; without, only a crash of the whole machine can lose it.

    Returns:
        ``path`` as a :class:`~pathlib.Path`.
    """
    target = Path(path)
    with _temporary_beside(target) as (stream, temporary):
        write(stream)
        stream.flush()
        if sync:
            os.fsync(stream.fileno())
        # mkstemp makes private files; a shared cache must stay readable.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
        if sync:
            sync_to_disk(target.parent)
    return target


def sync_to_disk(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    try:
        number = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders, and needs no such call
        return
    try:
        os.fsync(number)
    finally:
        os.close(number)


def cached_tensors(
    folder: str,
    key: str,
    compute: Callable[[], dict[str, Tensor]],
    complaint: Callable[[dict[str, Tensor]], str | None],
) -> dict[str, Tensor]:
    """Return tensors from the cache, or compute and keep them.

    Several processes may do so at once: each writes the same tensors in one step. A
    damaged file is computed again, and a cache that cannot be written is done without.

    Args:
        folder: where in the cache directory.
        key: hash of everything that the tensors depend on.
        compute: makes them.
        complaint: says what is wrong with tensors read from a file; None if nothing.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load, save

    path = cache_dir() / folder / f'{key}.safetensors'
    try:
        # Opened once: another process may replace or remove the file meanwhile.
        known = load(path.read_bytes())
    except FileNotFoundError:
        pass
    except (SafetensorError, OSError) as error:
        _warn(f'{path} is computed again: {error}')
    else:
        wrong = complaint(known)
        if wrong is None:
            return known
        _warn(f'{path} is computed again: {wrong}')
    made = {name: tensor.contiguous() for name, tensor in compute().items()}
    content = save(made)
    try:
        atomic_write(path, lambda stream: stream.write(content))
    except OSError as error:
        _warn(f'{path.parent.name} are not cached: {error}')
    return made


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)
