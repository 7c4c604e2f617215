"""Claim: context, adversary, content loss and KL term of CaGNet, one by one, on Shapes.

``python benchmarks/cagnet_shapes.py`` trains ``configs/cagnet/shapes_clip.py`` as a
whole and with one part taken away at a time, and prints mean and spread. The features
are frozen, so they are computed once, without augmentation, and everything happens on
their grid; figures differ a little from those of whole runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from _comparison import ROOT, spread
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from mmengine.model import BaseModule
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import (
    DATASETS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    PARAM_SCHEDULERS,
)
from mmseg.structures import SegDataSample

import zs3_mmseg  # noqa: F401
from zs3_mmseg.evaluation import ZeroShotIoUMetric
from zs3_mmseg.models.decode_heads.cagnet_head import nearest

CONFIG = ROOT / 'configs/cagnet/shapes_clip.py'
SHOWN = ('mIoU_seen', 'mIoU_unseen', 'hIoU')


def without(weight: str) -> dict[str, float]:
    """Return the options that switch a loss off."""
    return {f'model.loss_weights.{step}.{weight}': 0.0 for step in ('joint', 'real')}


METHODS: dict[str, dict[str, Any]] = {
    'cagnet': {},
    'no_context': {'model.decode_head.context': None},
    'no_discriminator': without('adversarial'),
    'no_content': without('content'),
    'no_kl': without('kl'),
}


@MODELS.register_module()
class FeatureTrunk(BaseModule):
    """Features that were computed before, in place of a backbone."""

    def forward(self, features: Tensor) -> tuple[Tensor]:
        return (features,)


def features_of(config: Config, name: str, count: int, file: Path) -> dict[str, Tensor]:
    """Return features ``(N, C, h, w)`` and labels ``(N, H, W)``, kept on disk."""
    if file.exists():
        return torch.load(file, weights_only=True)
    loader = config[f'{name}_dataloader'].dataset
    if name == 'train':  # every scene once, as it is
        loader.pipeline = config.test_pipeline
    dataset = DATASETS.build(loader)
    model = MODELS.build(config.model).eval()
    features, labels = [], []
    for index in track(range(min(count, len(dataset))), f'features: {name}'):
        data = model.data_preprocessor(pseudo_collate([dataset[index]]), False)
        with torch.no_grad():
            features.append(model.extract_feat(data['inputs'])[0])
        labels.append(data['data_samples'][0].gt_sem_seg.data)
    found = dict(features=torch.cat(features), labels=torch.cat(labels))
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(found, file)
    return found


def samples_of(labels: Tensor) -> list[SegDataSample]:
    """Return samples with label maps ``(N, H, W)``."""
    samples = []
    for label_map in labels:
        size = tuple(label_map.shape)
        sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=size))
        sample.gt_sem_seg = PixelData(data=label_map[None].long())
        samples.append(sample)
    return samples


def trained(config: Config, data: Mapping[str, Tensor], seed: int) -> Any:
    """Train a model on features by the schedule of its config."""
    torch.manual_seed(seed)
    model = MODELS.build(config.model).train()
    options = dict(config.optim_wrapper)
    kind = options.pop('constructor')
    wrappers = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(type=kind, optim_wrapper_cfg=options)
    )(model)
    schedules = [
        PARAM_SCHEDULERS.build(dict(schedule), default_args={'optimizer': wrapper})
        for wrapper in wrappers.values()
        for schedule in config.param_scheduler
    ]
    features = data['features']
    labels = nearest(data['labels'], features.shape[2:])
    hub, size = MessageHub.get_current_instance(), config.train_dataloader.batch_size
    for iteration in range(config.train_cfg.max_iters):
        hub.update_info('iter', iteration)
        chosen = torch.randperm(len(features))[:size]
        batch = dict(inputs=features[chosen], data_samples=samples_of(labels[chosen]))
        model.train_step(batch, wrappers)
        for schedule in schedules:
            schedule.step()
    return model.eval()


@torch.no_grad()
def scores_of(model: Any, data: Mapping[str, Tensor], meta: Mapping) -> dict:
    """Score label maps at the size of the scenes."""
    metric = ZeroShotIoUMetric()
    metric.dataset_meta = dict(meta)
    for features, labels in zip(
        data['features'].split(50), data['labels'].split(50), strict=True
    ):
        found = model.predict(features, samples_of(labels))
        metric.process(None, [sample.to_dict() for sample in found])
    return metric.evaluate(len(data['features']))


def run(args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Train and score all methods with all seeds."""
    init_default_scope('mmseg')
    config = Config.fromfile(CONFIG)
    for name in ('train', 'test'):
        config[f'{name}_dataloader'].dataset.dataset.data_root = str(args.data_root)
    train, test = (
        features_of(config, name, count, args.work_dir / f'{name}_{count}.pth')
        for name, count in (('train', args.scenes), ('test', args.test_scenes))
    )
    meta = DATASETS.build(config.test_dataloader.dataset).metainfo
    rows: dict[str, dict[str, list[float]]] = {}
    for seed in args.seeds:
        for method in args.methods:
            changed = Config.fromfile(CONFIG)
            changed.merge_from_dict(
                {
                    'model.backbone': dict(_delete_=True, type='FeatureTrunk'),
                    'model.data_preprocessor': dict(
                        _delete_=True, type='BaseDataPreprocessor'
                    ),
                    **METHODS[method],
                }
            )
            scores = scores_of(trained(changed, train, seed), test, meta)
            row = rows.setdefault(method, {})
            for key in SHOWN:
                row.setdefault(key, []).append(float(scores[key]))
            print(f'{method}, seed {seed}: {[round(scores[k], 1) for k in SHOWN]}')
            text = json.dumps({'seeds': args.seeds, 'scores': rows}, indent=2)
            (args.work_dir / 'cagnet_shapes.json').write_text(text + '\n')
    return rows


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs/bench')
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data/shapes')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--methods', nargs='+', default=[*METHODS], choices=METHODS)
    parser.add_argument('--scenes', type=int, default=1200, help='of the training')
    parser.add_argument('--test-scenes', type=int, default=600)
    return parser.parse_args(arguments)


def main() -> None:
    table = Table('method', *SHOWN, title='test/shapes_a')
    for name, values in run(parse_args()).items():
        table.add_row(name, *(spread(values[key]) for key in SHOWN))
    Console().print(table)


if __name__ == '__main__':
    main()
