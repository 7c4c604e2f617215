"""What GenerativeRetrainingHook cannot work with is refused by its name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from retraining_runs import (
    CLASSES,
    SEEN,
    build_runner,
    head,
    retraining,
    write_vectors,
)

from mmseg.registry import HOOKS, MODELS

from zs3_mmseg.engine.generative import classifier
from zs3_mmseg.engine.generative.hook import require_fitting_data

CE = dict(type='CrossEntropyLoss')
#: Options of synthesisers that the toy hook sets, at their defaults.
NO_OPTIONS = dict(generator=None, generator_optimizer=None, samples_per_class=128)


def check_head(config: dict[str, Any]) -> None:
    """Ask all that the hook asks about a head."""
    decode_head = MODELS.build(config)
    segmentor = SimpleNamespace(decode_head=decode_head)
    assert classifier.find_head(segmentor) is decode_head
    classifier.find_criterion(decode_head)
    classifier.require_classes(decode_head, CLASSES)


def train(folder: Path, hook: dict[str, Any], **changes: Any) -> None:
    build_runner(folder, hook=hook, **changes).train()


@pytest.mark.parametrize(
    'changes',
    [dict(), dict(type='FPNHead', feature_strides=[4]), dict(type='ASPPHead')],
)
def test_ordinary_heads_pass(changes: dict) -> None:
    config = head(**changes)
    if config['type'] != 'FCNHead':
        for key in ('num_convs', 'concat_input'):
            del config[key]
    if config['type'] == 'FPNHead':
        config |= dict(in_channels=[8], in_index=[0])
    check_head(config)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(type='DAHead', pam_channels=4), 'DAHead: DANet has two classifiers'),
        (dict(type='EncHead', in_channels=[8] * 3, in_index=(0, 1, 2)), 'EncNet'),
        (dict(sampler=dict(type='OHEMPixelSampler')), 'OHEM'),
        (dict(loss_decode=dict(type='DiceLoss')), 'loss_decode DiceLoss takes no'),
        (
            dict(loss_decode=dict(type='OhemCrossEntropy')),
            'loss_decode OhemCrossEntropy takes no',
        ),
        (dict(loss_decode=[CE, CE]), 'must be one loss'),
        (dict(loss_decode=dict(CE, use_sigmoid=True)), 'use_sigmoid'),
        (dict(loss_decode=dict(CE, avg_non_ignore=True)), 'avg_non_ignore=True'),
        (dict(loss_decode=dict(CE, reduction='sum')), "reduction must be 'mean'"),
        (dict(num_classes=3), 'has 3 outputs, but .* 5 classes'),
    ],
)
def test_heads(changes: dict, message: str) -> None:
    decode_head = head(**changes)
    if decode_head['type'] != 'FCNHead':
        for key in ('num_convs', 'concat_input'):
            del decode_head[key]
    if decode_head['type'] == 'EncHead':
        decode_head |= dict(num_codes=2, use_se_loss=False)
    with pytest.raises(ValueError, match=message):
        check_head(decode_head)


@pytest.mark.parametrize(
    ('decode_head', 'message'),
    [
        (
            dict(
                type='SegmenterMaskTransformerHead',
                in_channels=8,
                in_index=0,
                channels=8,
                num_classes=5,
                num_layers=1,
                num_heads=1,
                embed_dims=8,
            ),
            'SegmenterMaskTransformerHead has no conv_seg',
        ),
        (
            dict(
                type='IterativeDecodeHead',
                num_stages=0,
                kernel_update_head=[],
                kernel_generate_head=head(),
            ),
            'K-Net',
        ),
        (
            dict(
                type='PIDHead',
                in_channels=8,
                channels=8,
                num_classes=5,
                norm_cfg=dict(type='BN'),
                loss_decode=[CE] * 4,
            ),
            'PIDNet',
        ),
        (
            dict(
                type='DDRHead',
                in_channels=8,
                channels=8,
                num_classes=5,
                norm_cfg=dict(type='BN'),
                loss_decode=[CE] * 2,
            ),
            'DDRNet',
        ),
    ],
)
def test_heads_of_their_own_kind(decode_head: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_head(decode_head)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(compile=True), 'compile is set'),
        (dict(activation_checkpointing=['decode_head']), 'activation_checkpointing'),
        (
            dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters=8)),
            'the run ends after 8',
        ),
        (
            dict(
                optim_wrapper=dict(
                    type='OptimWrapper',
                    accumulative_counts=3,
                    optimizer=dict(type='SGD', lr=0.1),
                )
            ),
            'in the middle of a step of accumulative_counts=3',
        ),
        (dict(dataset=dict(type='StripesDataset', classes=SEEN)), 'different classes'),
    ],
)
def test_runs(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(tmp_path, retraining(tmp_path), **changes)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(setting='oracle'), 'setting must be one of .*layout_oracle'),
        (dict(setting='layout_oracle', layout=dict()), 'takes from the data set'),
        (dict(layout=dict(kind='random')), 'layout.kind must be one of'),
        (dict(layout=dict(image_share=0)), r'image_share must lie in \(0, 1\]'),
        (dict(reset_classifier='zero'), 'reset_classifier must be one of'),
        (dict(samples_per_class=0), 'samples_per_class >= 1'),
        (dict(merge='region'), 'merge must be one of'),
        (dict(generator_step='batch'), 'generator_step must be one of'),
        (dict(unseen_weight=0), 'unseen_weight > 0'),
        (dict(synthesisers=[dict(type='PixelSynthesis')]), 'Hook.generator is an opt'),
        (dict(NO_OPTIONS, synthesisers=[]), 'must be a list of Synthesisers.* none'),
        (
            dict(NO_OPTIONS, synthesisers=[dict(type='GraphSynthesis')] * 2),
            'each of another type, got GraphSynthesis, GraphSynthesis',
        ),
        (
            dict(NO_OPTIONS, synthesisers=[dict(type='MMDLoss')]),
            'list of Synthesisers.* got MMDLoss',
        ),
        (dict(generator_iters=-1), 'negative'),
    ],
)
def test_options(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HOOKS.build(retraining(tmp_path, **changes))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(split=None), 'must name who is unseen'),
        (dict(vector_names=dict(dog='cat')), 'dog, which are no classes'),
    ],
)
def test_names(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(tmp_path, retraining(tmp_path, **changes))


def test_a_class_without_a_vector(tmp_path: Path) -> None:
    (tmp_path / 'seen').mkdir()
    vectors = write_vectors(tmp_path / 'seen', SEEN)
    hook = retraining(tmp_path, class_embeddings=vectors)
    with pytest.raises(ValueError, match="no rows for 'cow', 'cat'"):
        train(tmp_path, hook)


@pytest.mark.parametrize(
    ('setting', 'found'),
    [
        ('layout_oracle', 'inductive'),
        ('strict', 'layout_oracle'),
        ('strict', 'supervised'),
    ],
)
def test_setting_of_the_data_set(setting: str, found: str) -> None:
    with pytest.raises(ValueError, match=f'not with {found!r}'):
        require_fitting_data(setting, dict(setting=found))


def test_pseudo_labels() -> None:
    meta = dict(setting='inductive', pseudo_labels='some model')
    with pytest.raises(ValueError, match='pseudo_label_dir'):
        require_fitting_data('strict', meta)
