"""Choose one number of a config on the val set.

``python tools/analysis_tools/tune_on_val.py CONFIG [CHECKPOINT] --key K --values ...``
runs the val set once for each value, prints the scores and names the best one. Test
images are never read. hIoU looks at the unseen classes of the val set: say so where
you report a number that was tuned this way.

With ``--pseudo-unseen N`` no label of an unseen class is read, neither in training nor
on the val set: the split's unseen classes are left out, and N of its seen classes, or
those that are named, play their part. The model is trained on the others first, unless
a CHECKPOINT of such a training is given; once for all values of a key that only tests
look at, and for each value of any other key. Calibrators that are fitted learn from the
images of the val set, without labels.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine.config import Config

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _arguments import add_launch_arguments

if TYPE_CHECKING:
    from zs3_mmseg.datasets.splits import ZeroShotSplit

SHOWN = ('mIoU_seen', 'mIoU_unseen', 'hIoU')
#: Beginnings of keys that a training does not look at.
TESTED_ONLY = ('model.calibrators.', 'model.post_processors.', 'model.test_cfg.')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_launch_arguments(parser)
    parser.add_argument('checkpoint', nargs='?', help='trained weights, if any')
    parser.add_argument('--key', required=True, help='e.g. model.calibrators.0.weight')
    parser.add_argument('--values', nargs='+', type=float, required=True)
    parser.add_argument(
        '--metric', default='hIoU', help='what the best value has most of'
    )
    parser.add_argument(
        '--pseudo-unseen',
        nargs='+',
        metavar='N or CLASS',
        help='seen classes, or how many, that stand for unseen ones: no label of an '
        'unseen class is read',
    )
    parser.add_argument(
        '--pseudo-seed', type=int, default=0, help='of the draw of N classes'
    )
    parser.add_argument('--out', type=Path, help='JSON file for the scores')
    return parser.parse_args()


def prepare(arguments: argparse.Namespace) -> Config:
    """Read the config and refuse a key that it does not have."""
    from zs3_mmseg.engine.launch import config_of, require_keys
    from zs3_mmseg.utils.config_check import require_config_files

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
    for unused in ('dataloader', 'cfg', 'evaluator'):
        config[f'test_{unused}'] = None
    if arguments.pseudo_unseen:
        config.split_tuned_on = use_pseudo_unseen(config, arguments).as_dict()
    if not trains(config):
        drop_training(config)
    require_config_files(config, ['val_dataloader'])
    return config


def use_pseudo_unseen(config: Config, arguments: argparse.Namespace) -> ZeroShotSplit:
    """Put a split of the seen classes alone wherever the config names its own."""
    from zs3_mmseg.datasets.splits import pseudo_unseen, resolve_split
    from zs3_mmseg.utils.config_check import walk

    loader = config.val_dataloader
    given = config.model.get('split') or loader.dataset.get('split')
    if given is None:
        raise ValueError(
            f'--pseudo-unseen: {config.filename} has neither model.split nor '
            'val_dataloader.dataset.split'
        )
    split = resolve_split(given)
    chosen: Any = arguments.pseudo_unseen
    if len(chosen) == 1 and chosen[0].isdigit():
        chosen = int(chosen[0])
    tuned_on = pseudo_unseen(split, chosen, arguments.pseudo_seed)
    for _, part in [*walk(config._cfg_dict, '')]:
        if not isinstance(part, dict):
            continue
        if 'split' in part and _is_split(part['split'], split):
            part['split'] = tuned_on.as_dict()
        if part.get('num_classes') == len(split.classes):
            part['num_classes'] = len(tuned_on.classes)
    return tuned_on


def _is_split(value: Any, split: ZeroShotSplit) -> bool:
    from zs3_mmseg.datasets.splits import resolve_split

    try:
        return resolve_split(value).fingerprint == split.fingerprint
    except (KeyError, TypeError, ValueError):  # another thing of that name
        return False


def trains(config: Config) -> bool:
    """Tell whether weights are still to be made."""
    learns = config.get('train_dataloader') is not None
    return 'split_tuned_on' in config and learns and not config.load_from


def drop_training(config: Config) -> None:
    """Take out of a config what only trainings read."""
    for unused in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        config[unused] = None


def train(config: Config, folder: Path) -> str:
    """Train in a folder; return the path of the weights."""
    from zs3_mmseg.engine.launch import build_loops, build_runner, running

    trial = config.copy()
    trial.work_dir = str(folder)
    runner = build_runner(trial)
    build_loops(runner, 'train')
    with running(trial):
        runner.train()
    return (folder / 'last_checkpoint').read_text().strip()


def score(
    config: Config, arguments: argparse.Namespace, value: float
) -> dict[str, float]:
    """Run the val set with one value.

    Raises:
        ValueError: if the val set gives no such metric.
    """
    from zs3_mmseg.engine.launch import build_runner, require_no_learning
    from zs3_mmseg.utils.checkpoint import unwrap

    trial = config.copy()
    trial.merge_from_dict({arguments.key: value})
    if trains(trial):
        trial.load_from = train(trial, Path(trial.work_dir) / f'pseudo_unseen/{value}')
        drop_training(trial)
    runner = build_runner(trial)
    if not trial.load_from:
        require_no_learning(runner.model, 'Name the CHECKPOINT')
    model = unwrap(runner.model)
    if any(hasattr(c, 'fit') for c in getattr(model, 'calibrators', ())):
        runner.load_or_resume()
        model.fit_calibrators(runner.val_dataloader.dataset)
    metrics = runner.val()
    if arguments.metric not in metrics:
        raise ValueError(f'--metric {arguments.metric}: known are {", ".join(metrics)}')
    return metrics


def rank(metric: float) -> float:
    """Return what metrics are compared by: one that is undefined is no best one."""
    return -math.inf if math.isnan(metric) else metric


def main() -> None:
    arguments = parse_args()
    from rich.console import Console
    from rich.table import Table

    from zs3_mmseg.engine.launch import close_processes, one_line_errors
    from zs3_mmseg.utils.cache import atomic_write
    from zs3_mmseg.utils.names import as_list

    with one_line_errors():
        config = prepare(arguments)
        if trains(config) and arguments.key.startswith(TESTED_ONLY):
            folder = Path(config.work_dir) / 'pseudo_unseen'
            config.load_from = train(config, folder)
            drop_training(config)
        scores = {value: score(config, arguments, value) for value in arguments.values}
    best = max(scores, key=lambda value: rank(scores[value][arguments.metric]))
    shown = [key for key in SHOWN if key in scores[best]]
    shown += [arguments.metric] * (arguments.metric not in shown)
    table = Table(arguments.key, *shown)
    for value, metrics in scores.items():
        mark = '[bold]' if value == best else ''
        table.add_row(f'{mark}{value:g}', *(f'{mark}{metrics[k]:.2f}' for k in shown))
    console = Console()
    console.print(table)
    tuned_on = config.get('split_tuned_on')
    if tuned_on is not None:
        names = as_list(tuned_on['unseen'], spelling=str)
        console.print(f'Unseen here, by choice: {names}.', highlight=False)
    if arguments.out:
        report = {
            'key': arguments.key,
            'metric': arguments.metric,
            'best': best,
            'pseudo_unseen': None if tuned_on is None else tuned_on['unseen'],
            'checkpoint': config.load_from,
            'scores': {f'{value:g}': metrics for value, metrics in scores.items()},
        }
        text = json.dumps(report, indent=2, default=float) + '\n'
        atomic_write(arguments.out, lambda stream: stream.write(text.encode()))
    close_processes()


if __name__ == '__main__':
    main()
