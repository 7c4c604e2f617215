"""Fetch official archives: go on where a download was cut off, and check the sum."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import contextmanager
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

from zs3_mmseg.datasets.preparation.benchmark import Download
from zs3_mmseg.datasets.preparation.trees import PreparationError

_CHUNK = 2**20
_TIMEOUT = 60  # seconds without a byte


def fetch(download: Download, folder: Path, *, progress: bool = False) -> Path:
    """Return a published file, which is fetched if it is not there yet.

    What has arrived of a download that was cut off lies in ``NAME.part``, and the next
    call asks for the rest only.

    Args:
        download: a file with a checksum.
        folder: where to keep it.
        progress: whether to show a bar on standard error.

    Raises:
        PreparationError: if the network fails, or the checksum is not the published
            one; what was fetched is removed in that case.
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
