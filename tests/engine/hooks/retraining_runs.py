"""Runs of a few iterations on images from numbers, with the hook in them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, HOOKS, MODELS
from mmseg.structures import SegDataSample

from zs3_mmseg.engine import SafeRunner
from zs3_mmseg.utils.checkpoint import safe_load

CLASSES = ('sky', 'tree', 'cow', 'road', 'cat')
UNSEEN = ('cow', 'cat')
SEEN = tuple(name for name in CLASSES if name not in UNSEEN)
SPLIT = dict(classes=CLASSES, unseen=UNSEEN)
_NUMBERS = itertools.count()


@DATASETS.register_module()
class StripesDataset(Dataset):
    """Twelve images of 16 x 16 with vertical stripes of three classes each."""

    def __init__(self, classes: Sequence[str] = CLASSES, void: bool = True) -> None:
        self.metainfo = dict(classes=tuple(classes))
        self.void = void

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng(int(index))
        chosen = rng.choice(len(self.metainfo['classes']), 3)
        labels = np.repeat(chosen, (6, 5, 5))[None].repeat(16, 0)
        if self.void:
            labels[:2] = 255
        image = labels[None] * 40 % 251 + rng.integers(0, 40, (3, 16, 16))
        sample = SegDataSample(metainfo=dict(img_shape=(16, 16), ori_shape=(16, 16)))
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(labels)[None])
        return dict(
            inputs=torch.from_numpy(image.astype(np.uint8)), data_samples=sample
        )


@MODELS.register_module()
class TwoConvolutions(nn.Module):
    """A backbone of stride 2 with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
        )

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return (self.layers(image),)


class Lost(Exception):
    """The machine is gone."""


@HOOKS.register_module()
class LoseMachine(Hook):
    """End the run without a chance to clean up."""

    priority = 'LOWEST'

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        if runner.iter + 1 == self.iteration:
            raise Lost


def head(**changes: Any) -> dict[str, Any]:
    return (
        dict(
            type='FCNHead',
            in_channels=8,
            in_index=0,
            channels=8,
            num_convs=1,
            concat_input=False,
            dropout_ratio=0.3,
            num_classes=5,
            norm_cfg=dict(type='BN'),
            loss_decode=dict(type='CrossEntropyLoss'),
        )
        | changes
    )


def write_vectors(folder: Path, names: Sequence[str] = CLASSES) -> dict[str, Any]:
    """Write class vectors; return the config of a bank."""
    rng = np.random.default_rng(5)
    path = folder / 'vectors.npy'
    np.save(path, rng.normal(size=(len(names), 6)).astype(np.float32))
    return dict(source=dict(type='tensor', path=str(path), names=list(names)))


def retraining(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the config of the hook."""
    return (
        dict(
            type='GenerativeRetrainingHook',
            class_embeddings=write_vectors(folder),
            split=SPLIT,
            generator=dict(type='GMMNGenerator', hidden_channels=12),
            generator_optimizer=dict(type='Adam', lr=1e-2),
            samples_per_class=16,
            segmentor_iters=4,
            generator_iters=4,
        )
        | changes
    )


def build_runner(
    folder: Path,
    *,
    hook: dict[str, Any] | None,
    hooks: Sequence[dict[str, Any]] = (),
    decode_head: dict[str, Any] | None = None,
    auxiliary_head: dict[str, Any] | None = None,
    dataset: dict[str, Any] | None = None,
    batch_size: int = 4,
    **changes: Any,
) -> SafeRunner:
    config = dict(
        default_scope='mmseg',
        work_dir=str(folder / 'run'),
        experiment_name=f'retraining_{next(_NUMBERS)}',
        randomness=dict(seed=3),
        log_level='WARNING',
        log_processor=dict(by_epoch=False),
        model=dict(
            type='EncoderDecoder',
            data_preprocessor=dict(
                type='SegDataPreProcessor',
                mean=[100.0] * 3,
                std=[60.0] * 3,
                size=(16, 16),
            ),
            backbone=dict(type='TwoConvolutions'),
            decode_head=decode_head or head(),
            auxiliary_head=auxiliary_head,
            train_cfg=dict(),
            test_cfg=dict(mode='whole'),
        ),
        train_dataloader=dict(
            batch_size=batch_size,
            sampler=dict(type='DrawSampler'),
            dataset=dataset or dict(type='StripesDataset'),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=12),
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-3),
        ),
        param_scheduler=[dict(type='PolyLR', begin=0, end=12, by_epoch=False)],
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
            random_state=dict(type='RandomStateHook'),
            logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
        ),
        custom_hooks=[*([hook] if hook else []), *hooks],
    )
    return SafeRunner.from_cfg(Config(config | changes))


def checkpoint_of(folder: Path, iteration: int = 12) -> dict[str, Any]:
    return safe_load(folder / 'run' / f'iter_{iteration}.pth')


def tensors_of(content: Any, name: str = '') -> dict[str, Tensor]:
    """Return every tensor in a checkpoint by its place, logs left out."""
    if isinstance(content, Tensor):
        return {name: content}
    if isinstance(content, dict):
        pairs = content.items()
    elif isinstance(content, (list, tuple)):
        pairs = enumerate(content)
    else:
        return {}
    found: dict[str, Tensor] = {}
    for key, value in pairs:
        if key != 'message_hub':
            found |= tensors_of(value, f'{name}.{key}')
    return found
