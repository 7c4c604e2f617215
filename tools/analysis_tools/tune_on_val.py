"""Choose one number of a config on the val set.

``python tools/analysis_tools/tune_on_val.py CONFIG [CHECKPOINT] --key K --values ...``
runs the val set once for each value, prints the scores and names the best one. Test
images are never read. hIoU looks at the unseen classes of the val set: say so where
you report a number that was tuned this way.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmengine.config import Config

import zs3_mmseg  # noqa: F401  (registers everything)
from zs3_mmseg.engine.launch import (
    add_launch_arguments,
    build_runner,
    close_processes,
    config_of,
    one_line_errors,
    trainable_names,
)
from zs3_mmseg.utils.cache import atomic_write

SHOWN = ('mIoU_seen', 'mIoU_unseen', 'hIoU')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_launch_arguments(parser)
    parser.add_argument('checkpoint', nargs='?', help='trained weights, if any')
    parser.add_argument('--key', required=True, help='e.g. model.calibrators.0.weight')
    parser.add_argument('--values', nargs='+', type=float, required=True)
    parser.add_argument(
        '--metric', default='hIoU', help='what the best value has most of'
    )
    parser.add_argument('--out', type=Path, help='JSON file for the scores')
    return parser.parse_args()


def prepare(arguments: argparse.Namespace) -> Config:
    """Read the config and refuse a key that it does not have."""
    config = config_of(arguments)
    holder: object = config
    for part in arguments.key.split('.'):
        try:
            index = int(part) if isinstance(holder, (list, tuple)) else part
            holder = holder[index]  # type: ignore[index]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f'--key {arguments.key}: the config has no {part!r} there'
            ) from error
    config.load_from = arguments.checkpoint
    config.resume = False
    config.log_level = 'WARNING'
    for unused in ('train', 'test'):
        config[f'{unused}_dataloader'] = None
        config[f'{unused}_cfg'] = None
    config.optim_wrapper = None
    config.param_scheduler = None
    config.test_evaluator = None
    return config


def score(config: Config, key: str, value: float) -> dict[str, float]:
    """Run the val set with one value."""
    trial = config.copy()
    trial.merge_from_dict({key: value})
    runner = build_runner(trial)
    learnt = trainable_names(runner.model)
    if learnt and not trial.load_from:
        raise ValueError(
            f'{len(learnt)} parameters of this model learn: name the CHECKPOINT'
        )
    return runner.val()


def main() -> None:
    arguments = parse_args()
    with one_line_errors(OSError, ValueError, KeyError, ImportError):
        config = prepare(arguments)
        scores = {
            value: score(config, arguments.key, value) for value in arguments.values
        }
    known = next(iter(scores.values()))
    if arguments.metric not in known:
        raise SystemExit(f'--metric {arguments.metric}: known are {", ".join(known)}')
    best = max(scores, key=lambda value: scores[value][arguments.metric])
    table = Table(arguments.key, *SHOWN)
    for value, metrics in scores.items():
        mark = '[bold]' if value == best else ''
        table.add_row(f'{mark}{value:g}', *(f'{mark}{metrics[k]:.2f}' for k in SHOWN))
    Console().print(table)
    if arguments.out:
        report = {
            'key': arguments.key,
            'metric': arguments.metric,
            'best': best,
            'scores': {f'{value:g}': metrics for value, metrics in scores.items()},
        }
        text = json.dumps(report, indent=2, default=float) + '\n'
        atomic_write(arguments.out, lambda stream: stream.write(text.encode()))
    close_processes()


if __name__ == '__main__':
    main()
