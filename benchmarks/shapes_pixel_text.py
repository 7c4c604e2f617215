"""Claim: what pixels compared with text give on Shapes, with and without shape.

``python benchmarks/shapes_pixel_text.py`` trains and tests LSeg, LSeg-CLIP, SAZS and
SpecFuse beside dense CLIP and ZegCLIP through ``tools/train.py`` and ``tools/test.py``,
over three splits and several seeds, prints mean and spread, and can be interrupted and
started again. SAZS is trained once and tested in four ways: all classes competing; and
by name, as released, without segments, with segments that the prediction chooses, and
with those that the GROUND TRUTH chooses (oracle). At the end the time per image of each
method is measured in turns with that of dense CLIP.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from _comparison import (
    ROOT,
    SPLITS,
    Scores,
    add_scores,
    options_for,
    parse_args,
    planned_runs,
    report_scores,
    spread,
)
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmseg.registry import DATASETS

from zs3_mmseg.apis import init_segmentor
from zs3_mmseg.utils.cache import atomic_write
from zs3_mmseg.utils.experiments import ExperimentRunner, Method, shapes_methods

CONFIGS = ROOT / 'configs'
BESIDE = ('dense_clip', 'zegclip', 'zegclip_ce')
METHODS = (
    *(method for method in shapes_methods(CONFIGS) if method.name in BESIDE),
    Method('specfuse_training_free', CONFIGS / 'specfuse/shapes_tiny_training_free.py'),
    Method('specfuse', CONFIGS / 'specfuse/shapes_tiny.py', trained=True),
    Method('lseg_clip', CONFIGS / 'lseg/shapes_tiny_clip.py', trained=True),
    Method('sazs', CONFIGS / 'sazs/shapes_tiny.py', trained=True),
    Method('lseg', CONFIGS / 'lseg/shapes_tiny.py', trained=True),
)
#: What else the weights of SAZS are asked.
SAZS_TESTS = (
    Method('sazs_all_classes', CONFIGS / 'sazs/shapes_tiny_gzs3.py'),
    Method(
        'sazs_no_segments',
        CONFIGS / 'sazs/shapes_tiny.py',
        options={'model.post_processors': []},
    ),
    Method('sazs_oracle', CONFIGS / 'sazs/shapes_tiny_oracle.py'),
)
BY_NAME = ('mIoU', 'FB_IoU')
#: Images that are timed, and how often each.
TIMED, TURNS = 20, 3
#: ``subset/split`` -> method -> the scores of each run.
PairScores = dict[str, dict[str, list[Mapping[str, float]]]]


def main() -> None:
    args = parse_args(__doc__, METHODS, SPLITS)
    runner = ExperimentRunner(ROOT / 'tools', args.work_dir)
    scores: Scores = {}
    by_name: PairScores = {}
    seconds: dict[str, list[float]] = {}
    checkpoints: dict[str, tuple[Method, str | None]] = {}
    for method, split, seed in track(planned_runs(METHODS, args), 'runs'):
        outcome = runner.run(
            method,
            run_name=f'{method.name}/{split}/seed{seed}',
            options=options_for(method, split, seed, args),
            subsets=args.subsets,
        )
        seconds.setdefault(method.name, []).append(outcome.train_seconds)
        outcomes = {method.name: outcome}
        if method.name == 'sazs':
            for test in SAZS_TESTS:
                options = options_for(test, split, seed, args)
                outcomes[test.name] = runner.run(
                    test,
                    run_name=f'{test.name}/{split}/seed{seed}',
                    options={**options, 'load_from': outcome.checkpoint},
                    subsets=args.subsets,
                )
        for name, found in outcomes.items():
            if all('hIoU' in metrics for metrics in found.metrics.values()):
                add_scores(scores, name, split, found)
                tested = method if name == method.name else SAZS_TESTS[0]
                checkpoints.setdefault(name, (tested, outcome.checkpoint))
                continue
            for subset, metrics in found.metrics.items():
                rows = by_name.setdefault(f'{subset}/{split}', {})
                rows.setdefault(name, []).append(
                    {key.removeprefix('oracle_'): v for key, v in metrics.items()}
                )
    report_scores(scores, args, 'shapes_pixel_text.json')
    report_pairs(by_name)
    report_seconds(seconds, image_seconds(checkpoints, args), args)


def report_pairs(by_name: PairScores) -> None:
    """Print the scores of pairs of an image and a name."""
    for title, rows in by_name.items():
        table = Table('method', *BY_NAME, title=f'{title}, by name')
        for name, runs in rows.items():
            values = (spread([run[key] for run in runs]) for key in BY_NAME)
            table.add_row(name, *values)
        Console().print(table)


@torch.inference_mode()
def image_seconds(
    checkpoints: Mapping[str, tuple[Method, str | None]], args: argparse.Namespace
) -> dict[str, list[float]]:
    """Return the seconds of each timed image, the methods taking turns on each."""
    models: dict[str, Any] = {}
    for name, (method, checkpoint) in checkpoints.items():
        options = options_for(method, args.splits[0], args.seeds[0], args)
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


def report_seconds(
    training: Mapping[str, list[float]],
    images: Mapping[str, list[float]],
    args: argparse.Namespace,
) -> None:
    """Print how long trainings and images took, and write both to a file."""
    table = Table('method', 's of training', 'ms per image', 'times dense CLIP')
    typical = {name: statistics.median(values) for name, values in images.items()}
    base = typical.get('dense_clip')
    for name, value in typical.items():
        trained = training.get(name, [0.0])
        ratio = f'{value / base:.1f}' if base else ''
        table.add_row(name, spread(trained), f'{1000 * value:.1f}', ratio)
    Console().print(table)
    text = json.dumps({'train_seconds': training, 'image_seconds': typical}, indent=2)
    path = args.work_dir / 'shapes_pixel_text_seconds.json'
    atomic_write(path, lambda stream: stream.write(text.encode()))


if __name__ == '__main__':
    main()
