"""Claim: ESDA beats dense CLIP with the best single threshold, asked class by class.

``python benchmarks/shapes_folds.py`` trains ESDA as released and as evidently meant on
three folds of Shapes with several seeds, through ``tools/train.py`` and
``tools/test.py``, and prints mean fold IoU and FB-IoU. It can be interrupted and
started again. Dense CLIP's mask of a name is where the cosine with its row is above one
threshold for all classes: the best on the val scenes for the seen classes, or the best
on the test scenes themselves, which no method could know.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _comparison import ROOT, SPLITS, options_for, parse_args, spread
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmengine.config import Config
from mmseg.registry import DATASETS

from zs3_mmseg.apis import init_segmentor
from zs3_mmseg.evaluation.fold_iou_metric import Episode, FoldScores, fold_scores
from zs3_mmseg.utils.cache import atomic_write, content_hash
from zs3_mmseg.utils.experiments import (
    ExperimentRunner,
    Method,
    package_hash,
)

ESDA = ROOT / 'configs/esda'
DENSE = ROOT / 'configs/clip_dense/shapes_tiny.py'
FOLDS = (
    Method('esda', ESDA / 'shapes_tiny.py', trained=True),
    Method('esda_fixed', ESDA / 'shapes_tiny_fixed.py', trained=True),
)
SHOWN = ('mIoU', 'FB_IoU')
THRESHOLDS = np.linspace(-0.2, 0.8, 201)


@torch.inference_mode()
def threshold_counts(split: str, subset: str, data: Path) -> list[list[Episode]]:
    """Count dense CLIP's masks of every pair of a subset, for each threshold.

    Pairs of val are those that a checkpoint would be chosen by.
    """
    config = Config.fromfile(ESDA / 'shapes_tiny.py')
    phase = 'val' if subset == 'val' else 'test'
    dataset_config = config[f'{phase}_dataloader'].dataset
    dataset_config.split = split
    dataset_config.dataset.update(data_root=str(data), subset=subset)
    model: Any = init_segmentor(str(DENSE), cfg_options={'model.split': split})
    dataset = DATASETS.build(dataset_config)
    scale = float(model.decode_head.scale)
    episodes: list[list[Episode]] = [[] for _ in THRESHOLDS]
    for sample in track(dataset, f'dense CLIP, {split}, {subset}', len(dataset)):
        packed = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
        batch = model.data_preprocessor(packed)
        cosines = model(batch['inputs'], mode='tensor') / scale
        truth = sample['data_samples'].gt_sem_seg.data[0].numpy()
        prompt = sample['data_samples'].prompt_class
        size = batch['inputs'].shape[-2:]
        full = F.interpolate(cosines[:, [prompt]], size, mode='bilinear')[0, 0].numpy()
        full = full[: truth.shape[0], : truth.shape[1]]
        for counts, confusion in zip(episodes, confusions(full, truth), strict=True):
            counts.append(Episode(prompt, confusion))
    return episodes


def confusions(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the confusion matrix (2, 2) of ``scores >= t`` for each threshold."""
    above = []
    for label in (0, 1):
        ordered = np.sort(scores[truth == label])
        above.append(len(ordered) - np.searchsorted(ordered, THRESHOLDS))
    totals = [(truth == label).sum() for label in (0, 1)]
    rows = [
        np.stack([total - hit, hit], axis=-1)
        for total, hit in zip(totals, above, strict=True)
    ]
    return np.stack(rows, axis=1)


def dense_scores(
    split: str, subset: str, args: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Return mIoU and FB-IoU of dense CLIP at both thresholds, kept on disk."""
    key = content_hash(package_hash(), split, subset, DENSE.read_text())
    path = args.work_dir / f'dense_clip_threshold/{split}_{subset}.json'
    if path.is_file() and (kept := json.loads(path.read_text()))['key'] == key:
        return kept['scores']
    scored: dict[str, list[FoldScores]] = {}
    for part in ('val', subset):
        episodes = threshold_counts(split, part, args.data_root)
        prompted = sorted({episode.prompt for episode in episodes[0]})
        scored[part] = [fold_scores(counts, prompted) for counts in episodes]
    scores = {}
    for name, part in (('dense_clip_val', 'val'), ('dense_clip_best', subset)):
        best = int(np.argmax([found.mean_iou for found in scored[part]]))
        found = scored[subset][best]
        scores[name] = dict(
            mIoU=100 * found.mean_iou,
            FB_IoU=100 * found.fb_iou,
            threshold=float(THRESHOLDS[best]),
        )
    text = json.dumps(dict(key=key, scores=scores), indent=2)
    atomic_write(path, lambda stream: stream.write(text.encode()))
    return scores


def report(title: str, rows: Mapping[str, list[Mapping[str, float]]]) -> None:
    table = Table('method', *SHOWN, title=title)
    for name, runs in rows.items():
        table.add_row(name, *(spread([run[key] for run in runs]) for key in SHOWN))
    Console().print(table)


def main() -> None:
    args = parse_args(__doc__, FOLDS, SPLITS)
    runner = ExperimentRunner(ROOT / 'tools', args.work_dir)
    methods = [method for method in FOLDS if method.name in args.methods]
    results: dict[str, dict[str, dict[str, list[Mapping[str, float]]]]] = {}
    for split in args.splits:
        for subset in args.subsets:
            for name, scores in dense_scores(split, subset, args).items():
                results.setdefault(subset, {}).setdefault(split, {})[name] = [scores]
        for method in methods:
            for seed in args.seeds:
                outcome = runner.run(
                    method,
                    run_name=f'{method.name}/{split}/seed{seed}',
                    options=options_for(method, split, seed, args),
                    subsets=args.subsets,
                )
                for subset, metrics in outcome.metrics.items():
                    results[subset][split].setdefault(method.name, []).append(metrics)
    for subset, splits in results.items():
        for split, rows in splits.items():
            report(f'{subset}, {split}', rows)
        first = next(iter(splits.values()))
        together = {
            name: [run for rows in splits.values() for run in rows[name]]
            for name in first
        }
        report(f'{subset}, all folds', together)
    text = json.dumps({'seeds': args.seeds, 'scores': results}, indent=2) + '\n'
    result = args.work_dir / 'shapes_folds.json'
    atomic_write(result, lambda stream: stream.write(text.encode()))


if __name__ == '__main__':
    main()
