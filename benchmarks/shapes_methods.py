"""Claim: how the methods compare on Shapes, over three splits and several seeds.

``python benchmarks/shapes_methods.py`` runs every method through ``tools/train.py`` and
``tools/test.py``, prints mean and spread, and can be interrupted and started again.
The gate's weight is the config's own, which was chosen on val scenes of ``shapes_a``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from zs3_mmseg.utils.cache import atomic_write
from zs3_mmseg.utils.experiments import (
    ExperimentRunner,
    Method,
    shapes_methods,
    split_options,
)

ROOT = Path(__file__).resolve().parents[1]
METHODS = shapes_methods(ROOT / 'configs')
SPLITS = ('shapes_a', 'shapes_b', 'shapes_c')
SUBSETS = ('test', 'test_neutral', 'test_hard')
SHOWN = ('mIoU_seen', 'mIoU_unseen', 'hIoU')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs/bench')
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data/shapes')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--splits', nargs='+', default=list(SPLITS))
    parser.add_argument('--methods', nargs='+', default=[m.name for m in METHODS])
    parser.add_argument('--subsets', nargs='+', default=['test'], choices=SUBSETS)
    return parser.parse_args()


def options_for(method: Method, split: str, seed: int, data: Path) -> dict[str, object]:
    """Return the config options of one run."""
    options = {**split_options(split), 'randomness.seed': seed}
    phases = ('train', 'val', 'test')
    options |= {
        f'{phase}_dataloader.dataset.dataset.data_root': str(data) for phase in phases
    }
    if not method.trained:
        options = {k: v for k, v in options.items() if not k.startswith('train_')}
    return options


def spread(values: list[float]) -> str:
    """Write mean and standard deviation; one value stands alone."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f'{mean:.1f}'
    return f'{mean:.1f} ± {statistics.stdev(values):.1f}'


def main() -> None:
    args = parse_args()
    runner = ExperimentRunner(ROOT / 'tools', args.work_dir)
    methods = [method for method in METHODS if method.name in args.methods]
    # Without training there is nothing that a seed could change.
    runs = [
        (method, split, seed)
        for method in methods
        for split in args.splits
        for seed in (args.seeds if method.trained else args.seeds[:1])
    ]
    scores: dict[str, dict[str, dict[str, list[float]]]] = {}
    for method, split, seed in track(runs, 'runs'):
        outcome = runner.run(
            method,
            run_name=f'{method.name}/{split}/seed{seed}',
            options=options_for(method, split, seed, args.data_root),
            subsets=args.subsets,
        )
        for subset, metrics in outcome.metrics.items():
            row = scores.setdefault(f'{subset}/{split}', {}).setdefault(method.name, {})
            for key in SHOWN:
                row.setdefault(key, []).append(metrics[key])
    for title, rows in scores.items():
        table = Table('method', *SHOWN, title=title)
        for name, values in rows.items():
            table.add_row(name, *(spread(values[key]) for key in SHOWN))
        Console().print(table)
    text = json.dumps({'seeds': args.seeds, 'scores': scores}, indent=2) + '\n'
    result = args.work_dir / 'shapes_methods.json'
    atomic_write(result, lambda stream: stream.write(text.encode()))


if __name__ == '__main__':
    main()
