"""Claim: a run of ``tools/test.py`` spends its time in the network, once it has begun.

``python benchmarks/end_to_end.py`` makes the test run of a config of Shapes without its
checkpoint, each in a process of its own, and prints CPU seconds of the start (imports
and building), of the network, of the metric and of the rest, which is reading pictures
and labels. That happens in the same process here, so that all of it counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _inference import Stopwatch

ROOT = Path(__file__).resolve().parents[1]
PARTS = ('start', 'network', 'metric', 'data')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--config', type=Path, default=ROOT / 'configs/zegclip/shapes_tiny.py'
    )
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data/shapes')
    parser.add_argument('--images', type=int, default=100)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument(
        '--out', type=Path, default=ROOT / 'work_dirs/bench/end_to_end.json'
    )
    # Set by this script for its own child processes.
    parser.add_argument('--child', help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> None:
    """Print what each part of one run costs, as JSON."""
    from zs3_mmseg.engine.launch import build_loops, build_runner
    from zs3_mmseg.utils.config_check import read_config

    options = {
        'work_dir': arguments.child,
        'launcher': 'none',
        'log_level': 'ERROR',
        'test_dataloader.num_workers': 0,
        'test_dataloader.persistent_workers': False,
        'test_dataloader.dataset.dataset.num_images': arguments.images,
    }
    config = read_config(arguments.config, options)
    for phase in ('train', 'val', 'test'):
        config[f'{phase}_dataloader'].dataset.dataset.data_root = str(
            arguments.data_root
        )
    runner = build_runner(config)
    build_loops(runner, 'test')
    watch, evaluator = Stopwatch('cpu'), runner.test_loop.evaluator
    runner.model.test_step = watch.watch('network', runner.model.test_step)
    evaluator.process = watch.watch('metric', evaluator.process)
    evaluator.evaluate = watch.watch('metric', evaluator.evaluate)
    watch.seconds['start'] = began = time.process_time()
    runner.test()
    known = watch.seconds['network'] + watch.seconds['metric']
    watch.seconds['data'] = time.process_time() - began - known
    print(json.dumps(watch.seconds))


def main() -> None:
    arguments = parse_args()
    if arguments.child:
        measure(arguments)
        return
    from rich.console import Console
    from rich.table import Table

    from zs3_mmseg.utils.cache import atomic_write

    command = [sys.executable, __file__, '--images', str(arguments.images)]
    command += ['--config', str(arguments.config)]
    command += ['--data-root', str(arguments.data_root)]
    runs = []
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [*command, '--child', folder],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    table = Table('part', 'CPU, s', 'ms an image')
    for part in PARTS:
        values = [run[part] for run in runs]
        middle, spread = statistics.median(values), (max(values) - min(values)) / 2
        each = '' if part == 'start' else f'{1000 * middle / arguments.images:.1f}'
        table.add_row(part, f'{middle:.2f} ± {spread:.2f}', each)
    Console().print(table)
    text = json.dumps(runs, indent=2) + '\n'
    atomic_write(arguments.out, lambda stream: stream.write(text.encode()))


if __name__ == '__main__':
    main()
