"""Which key of a config is named when a part of it cannot be built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mmengine.registry import init_default_scope
from mmengine.runner import LogProcessor
from mmseg.registry import (
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIMIZERS,
    TRANSFORMS,
    VISUALIZERS,
)

import zs3_mmseg  # noqa: F401  (registers everything)
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.config_keys import naming_keys

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='RandomFlip', probb=0.5)]


@pytest.fixture(autouse=True, scope='module')
def _scope() -> None:
    init_default_scope('mmseg')


def in_head(**options: Any) -> dict:
    head = dict(type='DenseTextHead', in_channels=8, **options)
    return dict(model=dict(decode_head=head))


@pytest.mark.parametrize(
    ('config', 'build', 'named'),
    [
        (
            in_head(scael=3),
            lambda c: MODELS.build(c['model']['decode_head']),
            "model.decode_head.scael: DenseTextHead takes no option 'scael'. "
            "Did you mean 'scale'",
        ),
        (
            in_head(loss_decode=dict(type='CrossEntropyLoss', class_weight=[1.0, 2.0])),
            lambda c: MODELS.build(c['model']['decode_head']),
            'model.decode_head.loss_decode: DenseTextHead takes no option '
            "'loss_decode'; its loss",
        ),
        (
            in_head(sampler=dict(type='OHEMPixelSampler')),
            lambda c: MODELS.build(c['model']['decode_head']),
            'model.decode_head.sampler: ',
        ),
        (
            dict(model=dict(decode_head=dict(type='CosineRegressionHead'))),
            lambda c: MODELS.build(c['model']['decode_head']),
            'CosineRegressionHead needs model.decode_head.in_channels',
        ),
        (
            # The parent's constructor complains.
            dict(
                model=dict(
                    auxiliary_head=[
                        dict(
                            type='FCNHead',
                            in_channels=4,
                            channels=4,
                            num_classes=2,
                            ignor_index=0,
                        )
                    ]
                )
            ),
            lambda c: MODELS.build(c['model']['auxiliary_head'][0]),
            'model.auxiliary_head.0.ignor_index: FCNHead takes no option '
            "'ignor_index'. Did you mean 'ignore_index'",
        ),
        (
            dict(model=dict(decode_head=dict(type='DenseTextHaed'))),
            lambda c: MODELS.build(c['model']['decode_head']),
            "model.decode_head.type = 'DenseTextHaed': no model is registered so. "
            "Did you mean 'DenseTextHead'",
        ),
        (
            dict(
                train_pipeline=PIPELINE,
                train_dataloader=dict(dataset=dict(datasets=[dict(pipeline=PIPELINE)])),
            ),
            lambda c: [TRANSFORMS.build(step) for step in PIPELINE],
            'train_dataloader.dataset.datasets.0.pipeline.1.probb: RandomFlip takes no '
            "option 'probb'. Did you mean 'prob'",
        ),
        (
            dict(
                val_dataloader=dict(dataset=dict(type='ZeroShotDataset', faze='test'))
            ),
            lambda c: DATASETS.build(c['val_dataloader']['dataset']),
            'val_dataloader.dataset.faze: ZeroShotDataset takes no option',
        ),
        (
            dict(train_dataloader=dict(samples_per_gpu=2)),
            lambda c: torch.utils.data.DataLoader([], **c['train_dataloader']),
            'train_dataloader.samples_per_gpu: DataLoader takes no option '
            "'samples_per_gpu'; it is called batch_size now",
        ),
        (
            dict(
                val_evaluator=[dict(type='IoUMetric'), dict(type='FoldIoUMetric', k=1)]
            ),
            lambda c: [METRICS.build(part) for part in c['val_evaluator']],
            "val_evaluator.1.k: FoldIoUMetric takes no option 'k'. It takes absent",
        ),
        (
            dict(default_hooks=dict(chekpoint=dict(interval=2))),
            lambda c: HOOKS.build(c['default_hooks']['chekpoint']),
            'default_hooks.chekpoint: there is no type',
        ),
        (
            dict(custom_hooks=[dict(type='ProtocolCheckHook', samples=3)]),
            lambda c: HOOKS.build(c['custom_hooks'][0]),
            "custom_hooks.0.samples: ProtocolCheckHook takes no option 'samples'. "
            "Did you mean 'num_samples'",
        ),
        (
            dict(train_cfg=dict(type='IterBasedTrainLoop', max_iter=5)),
            lambda c: LOOPS.build({**c['train_cfg'], 'runner': 1, 'dataloader': 2}),
            "train_cfg.max_iter: IterBasedTrainLoop takes no option 'max_iter'. "
            "Did you mean 'max_iters'",
        ),
        (
            dict(optim_wrapper=dict(optimizer=dict(type='SGD', lrr=0.1))),
            lambda c: OPTIMIZERS.build(
                {**c['optim_wrapper']['optimizer'], 'params': [torch.zeros(1)]}
            ),
            "optim_wrapper.optimizer.lrr: SGD takes no option 'lrr'. Did you mean 'lr'",
        ),
        (
            dict(visualizer=dict(type='SegLocalVisualizer', alhpa=1)),
            lambda c: VISUALIZERS.build({**c['visualizer'], 'name': 'of_a_test'}),
            "visualizer.alhpa: SegLocalVisualizer takes no option 'alhpa'. "
            "Did you mean 'alpha'",
        ),
        (
            dict(log_processor=dict(windowsize=5)),
            lambda c: LogProcessor(**c['log_processor']),
            "log_processor.windowsize: LogProcessor takes no option 'windowsize'. "
            "Did you mean 'window_size'",
        ),
    ],
)
def test_the_key_is_named(
    config: dict, build: Callable[[dict], object], named: str
) -> None:
    with pytest.raises(ConfigError) as caught, naming_keys(config):
        build(config)
    assert named in str(caught.value)


def test_errors_of_something_else_stay_as_they_are() -> None:
    with pytest.raises(TypeError, match='surplus'), naming_keys(in_head()):
        test_errors_of_something_else_stay_as_they_are(surplus=1)  # type: ignore
    with pytest.raises(KeyError, match='nothing'), naming_keys(in_head()):
        raise KeyError('nothing')
