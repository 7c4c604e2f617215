"""What benchmarks that compare methods on Shapes have in common."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmengine.config import Config
from mmseg.registry import DATASETS

from zs3_mmseg.apis import init_segmentor
from zs3_mmseg.utils.cache import atomic_write
from zs3_mmseg.utils.experiments import (
    ExperimentRunner,
    Method,
    Outcome,
    shortened,
    split_options,
)

ROOT = Path(__file__).resolve().parents[1]
SPLITS = ('shapes_a', 'shapes_b', 'shapes_c')
SUBSETS = ('test', 'test_neutral', 'test_hard')
SHOWN = ('mIoU_seen', 'mIoU_unseen', 'hIoU', 'hBIoU')
#: ``subset/split`` -> method -> score -> its value in each run.
Scores = dict[str, dict[str, dict[str, list[float]]]]
#: name -> method and weights that are timed.
Checkpoints = dict[str, tuple[Method, str | None]]
#: Images that are timed, and how often each.
TIMED, TURNS = 20, 3


def parse_args(
    description: str | None, methods: Sequence[Method], splits: Sequence[str]
) -> argparse.Namespace:
    """Read the flags of a comparison; arguments as of :func:`comparison_parser`."""
    return comparison_parser(description, methods, splits).parse_args()


def comparison_parser(
    description: str | None, methods: Sequence[Method], splits: Sequence[str]
) -> argparse.ArgumentParser:
    """Return what reads the flags of a comparison.

    Args:
        description: of the benchmark.
        methods: what it compares.
        splits: the splits it uses by default.
    """
    names = [method.name for method in methods]
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs/bench')
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data/shapes')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--splits', nargs='+', default=list(splits), choices=SPLITS)
    parser.add_argument('--methods', nargs='+', default=names, choices=names)
    parser.add_argument('--subsets', nargs='+', default=['test'], choices=SUBSETS)
    parser.add_argument(
        '--iterations',
        type=int,
        help='stop every training after so many, to try the command',
    )
    return parser


def compare(
    methods: Sequence[Method],
    args: argparse.Namespace,
    result: str,
    seconds_result: str | None = None,
    tests: Mapping[str, Sequence[Method]] | None = None,
) -> None:
    """Run methods over splits and seeds; print tables and write a JSON file.

    Args:
        methods: what to compare.
        args: from :func:`parse_args`.
        result: name of the JSON file in the work directory.
        seconds_result: name of another, for :func:`report_seconds`; None: nothing is
            timed.
        tests: what else the weights of a method are tested as, by its name.
    """
    runner = ExperimentRunner(ROOT / 'tools', args.work_dir)
    scores: Scores = {}
    seconds: dict[str, list[float]] = {}
    checkpoints: Checkpoints = {}
    for method, split, seed in track(planned_runs(methods, args), 'runs'):
        outcome = run_once(runner, method, split, seed, args)
        add_scores(scores, method.name, split, outcome)
        seconds.setdefault(method.name, []).append(outcome.train_seconds)
        checkpoints.setdefault(method.name, (method, outcome.checkpoint))
        for test in (tests or {}).get(method.name, ()):
            found = run_once(runner, test, split, seed, args, weights=outcome)
            add_scores(scores, test.name, split, found)
            checkpoints.setdefault(test.name, (test, outcome.checkpoint))
    report_scores(scores, args, result)
    if seconds_result is not None:
        report_seconds(seconds, checkpoints, args, seconds_result)


def run_once(
    runner: ExperimentRunner,
    method: Method,
    split: str,
    seed: int,
    args: argparse.Namespace,
    weights: Outcome | None = None,
) -> Outcome:
    """Run a method on one split with one seed, or read what it gave.

    Args:
        runner: what runs it.
        method: what to run.
        split: the split.
        seed: the seed.
        args: from :func:`parse_args`.
        weights: the training whose weights are tested, if the method has none.
    """
    return runner.run(
        method,
        run_name=f'{method.name}/{split}/seed{seed}',
        options=options_for(method, split, seed, args),
        subsets=args.subsets,
        weights=weights,
    )


def planned_runs(
    methods: Sequence[Method], args: argparse.Namespace
) -> list[tuple[Method, str, int]]:
    """Return method, split and seed of every run that the flags ask for."""
    # Without training there is nothing that a seed could change.
    return [
        (method, split, seed)
        for method in methods
        if method.name in args.methods
        for split in args.splits
        for seed in (args.seeds if method.trained else args.seeds[:1])
    ]


def add_scores(scores: Scores, name: str, split: str, outcome: Outcome) -> None:
    """Put what one run gave into the row of its method."""
    for subset, metrics in outcome.metrics.items():
        row = scores.setdefault(f'{subset}/{split}', {}).setdefault(name, {})
        for key in SHOWN:
            row.setdefault(key, []).append(metrics[key])


def report_scores(scores: Scores, args: argparse.Namespace, result: str) -> None:
    """Print one table for each subset and split, and write all scores to a file.

    Args:
        scores: of all runs.
        args: from :func:`parse_args`.
        result: name of the JSON file in the work directory.
    """
    for title, rows in scores.items():
        table = Table('method', *SHOWN, title=title)
        for name, values in rows.items():
            table.add_row(name, *(spread(values[key]) for key in SHOWN))
        Console().print(table)
    text = json.dumps({'seeds': args.seeds, 'scores': scores}, indent=2) + '\n'
    atomic_write(args.work_dir / result, lambda stream: stream.write(text.encode()))


def report_seconds(
    training: Mapping[str, list[float]],
    checkpoints: Checkpoints,
    args: argparse.Namespace,
    result: str,
) -> None:
    """Print how long trainings and images take, and write both to a file.

    Args:
        training: seconds of each training.
        checkpoints: what predicts the timed images.
        args: from :func:`parse_args`.
        result: name of the JSON file in the work directory.
    """
    images = image_seconds(checkpoints, args)
    typical = {name: statistics.median(values) for name, values in images.items()}
    first = next(iter(typical))
    table = Table('method', 's of training', 'ms per image', f'times {first}')
    for name, value in typical.items():
        trained = training.get(name, [0.0])
        ratio = f'{value / typical[first]:.1f}'
        table.add_row(name, spread(trained), f'{1000 * value:.1f}', ratio)
    Console().print(table)
    text = json.dumps({'train_seconds': training, 'image_seconds': typical}, indent=2)
    atomic_write(args.work_dir / result, lambda stream: stream.write(text.encode()))


@torch.inference_mode()
def image_seconds(
    checkpoints: Checkpoints, args: argparse.Namespace
) -> dict[str, list[float]]:
    """Return the seconds of each timed image, the methods taking turns on each."""
    models: dict[str, Any] = {}
    for name, (method, checkpoint) in checkpoints.items():
        options = options_for(method, args.splits[0], args.seeds[0], args)
        options = {**method.options, **options}
        options = {k: v for k, v in options.items() if k.startswith('model.')}
        models[name] = init_segmentor(
            str(method.config), checkpoint, cfg_options=options
        )
    first = next(iter(models.values()))
    config = first.cfg.test_dataloader.dataset
    config.dataset.data_root = str(args.data_root)
    dataset = DATASETS.build(config)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for index in range(TIMED):
        for turn in range(TURNS):
            for name, model in models.items():
                sample = dataset[index]
                data = dict(
                    inputs=[sample['inputs']], data_samples=[sample['data_samples']]
                )
                began = time.perf_counter()
                model.test_step(data)
                # In the first turn caches are filled, of segments of images as well.
                if turn:
                    seconds[name].append(time.perf_counter() - began)
    return seconds


def options_for(
    method: Method, split: str, seed: int, args: argparse.Namespace
) -> dict[str, object]:
    """Return the config options of one run."""
    options = {**split_options(split), 'randomness.seed': seed}
    phases = ('train', 'val', 'test')
    options |= {
        f'{phase}_dataloader.dataset.dataset.data_root': str(args.data_root)
        for phase in phases
    }
    config = Config.fromfile(method.config, import_custom_modules=False)
    if 'split' not in config.model:
        del options['model.split']  # a stock segmentor knows no splits
    if not method.trained:
        return {k: v for k, v in options.items() if not k.startswith('train_')}
    if args.iterations is not None:
        options |= shortened(config, args.iterations)
    return options


def spread(values: list[float]) -> str:
    """Write mean and standard deviation; one value stands alone."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f'{mean:.1f}'
    return f'{mean:.1f} ± {statistics.stdev(values):.1f}'
