"""How many Shapes scenes a second are rendered, on one and on two processes."""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

from zs3_mmseg.datasets.shapes.scene import render_scene, run_in_ranges


def _render(subset: str, start: int, stop: int) -> None:
    for index in range(start, stop):
        render_scene(0, subset, index)


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--count', type=int, default=1000)
    parser.add_argument('--subset', default='train')
    parser.add_argument('--out', type=Path, help='write the figures to this JSON file')
    args = parser.parse_args()
    figures: dict[str, float] = {}
    for workers in (1, 2):
        start = time.perf_counter()
        run_in_ranges(partial(_render, args.subset), args.count, workers)
        seconds = time.perf_counter() - start
        figures[f'images_per_second_{workers}'] = round(args.count / seconds, 1)
    print(json.dumps(figures, indent=2))
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2) + '\n')


if __name__ == '__main__':
    main()
