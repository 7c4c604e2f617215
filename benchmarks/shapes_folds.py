"""Claim: ESDA beats dense CLIP with the best single threshold, asked class by class.

``python benchmarks/shapes_folds.py`` trains ESDA as released, with one of three options
as evidently meant and with all of them, and LSeg and SAZS beside them, on three folds
of the things of Shapes with several seeds, through ``tools/train.py`` and
``tools/test.py``, and prints mean fold IoU and FB-IoU. It can be interrupted and
started again. The weights of SAZS are tested three times: with eigensegments that the
prediction chooses, without, and with those that the GROUND TRUTH chooses, which is no
result of a method and is called oracle. Dense CLIP's mask of a name is
where the cosine with its row is above one threshold for all classes: the best on the
val scenes for the seen classes, or the best on the test scenes themselves, for mIoU or
for FB-IoU, which no method could know.
"""

from __future__ import annotations

import argparse
import json
import statistics
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
from zs3_mmseg.datasets.shapes.vocabulary import THINGS
from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.evaluation.fold_iou_metric import Episode, FoldScores, fold_scores
from zs3_mmseg.utils.cache import atomic_write, content_hash
from zs3_mmseg.utils.experiments import (
    ExperimentRunner,
    Method,
    Outcome,
    package_hash,
)

PAIRS = ROOT / 'configs/esda/shapes_tiny_things.py'
DENSE = ROOT / 'configs/clip_dense/shapes_tiny.py'
SAZS = ROOT / 'configs/sazs/shapes_tiny_things.py'
# The last iteration is tested, so that validation would choose nothing.
NO_VALIDATION: dict[str, object] = {'train_cfg.val_begin': 10**9}
AS_RELEASED: dict[str, object] = {
    'model.decode_head.token_order': 'official',
    'model.decode_head.prior_target': 'official',
    'model.decode_head.void_pixels': 'background',
}


def variant(name: str, *as_meant: str) -> Method:
    """Return ESDA as released but for some options of its head."""
    options = {
        key: value
        for key, value in AS_RELEASED.items()
        if key.removeprefix('model.decode_head.') not in as_meant
    }
    return Method(name, PAIRS, trained=True, options={**NO_VALIDATION, **options})


FOLDS = (
    variant('esda'),
    variant('esda_fixed_order', 'token_order'),
    variant('esda_fixed_prior', 'prior_target'),
    variant('esda_fixed_void', 'void_pixels'),
    variant('esda_fixed', 'token_order', 'prior_target', 'void_pixels'),
    Method('lseg_things', ROOT / 'configs/lseg/shapes_tiny_things.py', trained=True),
    Method('sazs_things', SAZS, trained=True),
)
#: Further tests of weights that another method has trained.
MORE_TESTS = {
    'sazs_things': (
        Method('sazs_things_plain', SAZS, options={'model.post_processors': []}),
        Method(
            'sazs_things_oracle',
            SAZS,
            options={
                'model.post_processors': [],
                'test_evaluator.oracle': True,
                **{
                    f'test_evaluator.proposer.{key}': value
                    for key, value in Config.fromfile(SAZS)
                    .model.post_processors[0]
                    .proposer.items()
                },
            },
        ),
    ),
}
#: Which threshold of dense CLIP: the best on this part for this score.
BEST = {
    'dense_clip_val': ('val', 'mean_iou'),
    'dense_clip_best': ('tested', 'mean_iou'),
    'dense_clip_best_fb': ('tested', 'fb_iou'),
}
SHOWN = ('mIoU', 'FB_IoU')
THRESHOLDS = np.linspace(-0.2, 0.8, 201)


def fold_of(split: str) -> dict[str, Any]:
    """Return the things of a split; its grounds are background, as in PASCAL-5i."""
    whole = get_split(split)
    return dict(
        name=f'{split}_things',
        classes=[name for name in whole.classes if name in THINGS],
        unseen=[name for name in whole.unseen if name in THINGS],
    )


def fold_options(options: Mapping[str, object], split: str) -> dict[str, object]:
    """Name the fold where options name the split."""
    changed = {k: v for k, v in options.items() if not k.endswith('.split')}
    for key in options.keys() - changed.keys():
        fold = fold_of(split)
        changed |= {f'{key}.{part}': fold[part] for part in ('name', 'unseen')}
    return dict(sorted(changed.items()))


@torch.inference_mode()
def threshold_counts(split: str, subset: str, data: Path) -> list[list[Episode]]:
    """Count dense CLIP's masks of every pair of a subset, for each threshold.

    Pairs of val are those that a checkpoint would be chosen by.
    """
    config = Config.fromfile(PAIRS)
    phase = 'val' if subset == 'val' else 'test'
    dataset_config = config[f'{phase}_dataloader'].dataset
    dataset_config.split = fold_of(split)
    dataset_config.dataset.update(data_root=str(data), subset=subset)
    model: Any = init_segmentor(str(DENSE), cfg_options={'model.split': split})
    dataset = DATASETS.build(dataset_config)
    scale = float(model.decode_head.scale)
    episodes: list[list[Episode]] = [[] for _ in THRESHOLDS]
    shown, cosines = None, torch.empty(0)
    for sample in track(dataset, f'dense CLIP, {split}, {subset}', len(dataset)):
        data_sample = sample['data_samples']
        if data_sample.img_path != shown:  # several names of one image come in turn
            shown = data_sample.img_path
            packed = dict(inputs=[sample['inputs']], data_samples=[data_sample])
            batch = model.data_preprocessor(packed)
            cosines = model(batch['inputs'], mode='tensor') / scale
            size = batch['inputs'].shape[-2:]
        truth = data_sample.gt_sem_seg.data[0].numpy()
        prompt = data_sample.prompt_class
        channel = model.class_names.index(data_sample.prompt_name)
        full = F.interpolate(cosines[:, [channel]], size, mode='bilinear')[0, 0].numpy()
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
    configs = [Config.fromfile(path).pretty_text for path in (DENSE, PAIRS)]
    sources = package_hash(), Path(__file__).read_bytes()
    key = content_hash(*sources, split, subset, str(args.data_root), *configs)
    path = args.work_dir / f'dense_clip_threshold/{split}_{subset}.json'
    if path.is_file() and (kept := json.loads(path.read_text()))['key'] == key:
        return kept['scores']
    scored: dict[str, list[FoldScores]] = {}
    for part in ('val', subset):
        episodes = threshold_counts(split, part, args.data_root)
        prompted = sorted({episode.prompt for episode in episodes[0]})
        scored[part] = [fold_scores(counts, prompted) for counts in episodes]
    scores = {}
    for name, (where, score) in BEST.items():
        part = 'val' if where == 'val' else subset
        best = int(np.argmax([getattr(found, score) for found in scored[part]]))
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


def mean_of_folds(
    folds: list[dict[str, list[Mapping[str, float]]]],
) -> dict[str, list[Mapping[str, float]]]:
    """Return the mean over the folds for each method and seed."""
    return {
        name: [
            {key: statistics.fmean(run[key] for run in runs) for key in SHOWN}
            for runs in zip(*(fold[name] for fold in folds), strict=True)
        ]
        for name in folds[0]
    }


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
                trained: Outcome | None = None
                for test in (method, *MORE_TESTS.get(method.name, ())):
                    options = options_for(test, split, seed, args)
                    outcome = runner.run(
                        test,
                        run_name=f'{test.name}/{split}/seed{seed}',
                        options=fold_options(options, split),
                        subsets=args.subsets,
                        weights=trained,
                    )
                    trained = trained or outcome
                    for subset, metrics in outcome.metrics.items():
                        named = {
                            k.removeprefix('oracle_'): v for k, v in metrics.items()
                        }
                        results[subset][split].setdefault(test.name, []).append(named)
    for subset, splits in results.items():
        for split, rows in splits.items():
            report(f'{subset}, {split}', rows)
        report(f'{subset}, mean of the folds', mean_of_folds(list(splits.values())))
    text = json.dumps({'seeds': args.seeds, 'scores': results}, indent=2) + '\n'
    result = args.work_dir / 'shapes_folds.json'
    atomic_write(result, lambda stream: stream.write(text.encode()))


if __name__ == '__main__':
    main()
