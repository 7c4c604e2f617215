"""Claim: inference of thousands of pictures keeps memory flat, also from 8 threads.

``python benchmarks/soak.py`` lets the shipped dense CLIP segment one picture again and
again: from one thread, then from 8 that each ask for words of their own. It tells by
how much the resident memory rose after the first tenth of the calls, how many calls a
second there were, and how many results had other words than they were asked with. Linux
only (``/proc``).
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from zs3_mmseg.apis import ZeroShotInferencer

WORDS = ('star', 'circle', 'square', 'triangle', 'ring', 'cross', 'heart', 'moon')
THREADS = 8
SIZE = 64


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--calls', type=int, default=1000, help='of each thread')
    parser.add_argument('--out', type=Path, help='write the figures to this JSON file')
    return parser.parse_args()


def resident() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * 4096 / 1e6


def words_of(thread: int, call: int) -> list[str]:
    """Return 2 to 5 of the words, others for each thread and call."""
    number = 2 + (thread + call) % 4
    return [WORDS[(thread + i) % len(WORDS)] for i in range(number)]


def soak(inferencer: ZeroShotInferencer, threads: int, calls: int) -> dict[str, Any]:
    """Segment ``calls`` pictures in each of some threads."""
    picture = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)

    def work(thread: int, begin: int, end: int) -> int:
        wrong = 0
        for call in range(begin, end):
            words = words_of(thread, call)
            found, _ = inferencer.segment(picture, words)
            kept = found.classes == tuple(words) and found.labels.max() < len(words)
            wrong += not kept
        return wrong

    first = max(calls // 10, 1)
    with ThreadPoolExecutor(threads) as pool:
        wrong = sum(pool.map(lambda thread: work(thread, 0, first), range(threads)))
        before, start = resident(), time.perf_counter()
        wrong += sum(
            pool.map(lambda thread: work(thread, first, calls), range(threads))
        )
        seconds = time.perf_counter() - start
    return dict(
        calls=threads * calls,
        wrong=wrong,
        calls_per_second=round(threads * (calls - first) / seconds, 1),
        risen_mb=round(resident() - before, 1),
    )


def main() -> None:
    arguments = parse_args()
    inferencer = ZeroShotInferencer(device='cpu')
    figures = {}
    for threads in (1, THREADS):
        figures[f'{threads} threads'] = soak(inferencer, threads, arguments.calls)
        print(f'{threads} threads: {figures[f"{threads} threads"]}', flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(figures, indent=2) + '\n')


if __name__ == '__main__':
    main()
