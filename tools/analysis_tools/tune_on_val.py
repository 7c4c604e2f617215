"""Choose one number of a config on the val set.

``python tools/analysis_tools/tune_on_val.py CONFIG [CHECKPOINT] --key K --values ...``
runs the val set once for each value, prints the scores and names the best one. Test
images are never read. hIoU looks at the unseen classes of the val set: say so where
you report a number that was tuned this way.
"""

from __future__ import annotations

import argparse
import json
import math
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
    require_keys,
    require_no_learning,
)
from zs3_mmseg.utils.cache import atomic_write
from zs3_mmseg.utils.config_check import require_config_files

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
    require_keys(config, 'val_dataloader', 'val_cfg', 'val_evaluator')
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
    require_config_files(config, ['val_dataloader'])
    return config


def score(
    config: Config, arguments: argparse.Namespace, value: float
) -> dict[str, float]:
    """Run the val set with one value.

    Raises:
        ValueError: if the val set gives no such metric.
    """
    trial = config.copy()
    trial.merge_from_dict({arguments.key: value})
    runner = build_runner(trial)
    if not trial.load_from:
        require_no_learning(runner.model, 'Name the CHECKPOINT')
    metrics = runner.val()
    if arguments.metric not in metrics:
        raise ValueError(f'--metric {arguments.metric}: known are {", ".join(metrics)}')
    return metrics


def rank(metric: float) -> float:
    """Return what metrics are compared by: one that is undefined is no best one."""
    return -math.inf if math.isnan(metric) else metric


def main() -> None:
    arguments = parse_args()
    with one_line_errors():
        config = prepare(arguments)
        scores = {value: score(config, arguments, value) for value in arguments.values}
    best = max(scores, key=lambda value: rank(scores[value][arguments.metric]))
    shown = [key for key in SHOWN if key in scores[best]]
    shown += [arguments.metric] * (arguments.metric not in shown)
    table = Table(arguments.key, *shown)
    for value, metrics in scores.items():
        mark = '[bold]' if value == best else ''
        table.add_row(f'{mark}{value:g}', *(f'{mark}{metrics[k]:.2f}' for k in shown))
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
