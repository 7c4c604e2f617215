"""Spread independent pieces of work over processes, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

import cv2
from rich.console import Console
from rich.progress import Progress

#: ``task(start, stop)`` does the items start to stop - 1.
Task = Callable[[int, int], object]

_CHUNK = 64


def usable_cores() -> int:
    """Cores that this process may use, where the system tells; else all of them."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_workers() -> int:
    """Processes to use when nothing is said: one per usable core, at most eight."""
    return min(usable_cores(), 8)


def _chunks(count: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, _CHUNK):
        yield start, min(start + _CHUNK, count)


def run_in_ranges(
    task: Task, count: int, workers: int | None = None, title: str | None = None
) -> None:
    """Run ``task`` over 0 to ``count`` - 1 in ranges, on several processes.

    Args:
        task: picklable; its ranges must not depend on each other.
        count: number of items.
        workers: processes; 1 stays in this one. Defaults to
            :func:`default_workers`. Within a daemonic process (a data loader
            worker), which may have no children, it is always 1.
        title: label of a progress bar on stderr; ``None`` shows none.

    Raises:
        ValueError: if ``workers`` is below 1.
    """
    workers = default_workers() if workers is None else workers
    if workers < 1:
        raise ValueError(f'expected at least 1 worker, got {workers}')
    alone = workers == 1 or count <= _CHUNK or multiprocessing.current_process().daemon
    with Progress(
        console=Console(stderr=True), transient=True, disable=title is None
    ) as progress:
        bar = progress.add_task(title or '', total=count)
        done = _here(task, count) if alone else _spread(task, count, workers)
        for finished in done:
            progress.update(bar, advance=finished)


def _here(task: Task, count: int) -> Iterator[int]:
    for start, stop in _chunks(count):
        task(start, stop)
        yield stop - start


def _spread(task: Task, count: int, workers: int) -> Iterator[int]:
    # A forked child has everything imported already, which saves seconds for each;
    # macOS and Windows cannot fork safely.
    method = 'fork' if sys.platform == 'linux' else 'spawn'
    with ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context(method),
        initializer=cv2.setNumThreads,
        initargs=(0,),
    ) as pool:
        futures = {pool.submit(task, *chunk): chunk for chunk in _chunks(count)}
        try:
            for future in as_completed(futures):
                future.result()
                start, stop = futures[future]
                yield stop - start
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
