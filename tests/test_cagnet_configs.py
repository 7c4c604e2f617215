"""Every published config of CaGNet builds, without weights and without data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS, PARAM_SCHEDULERS

from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.models.segmentors.cagnet import Step
from zs3_mmseg.utils.config_check import require_inherited_variables

CONFIGS = Path(__file__).parents[1] / 'configs/cagnet'
FILES = sorted(CONFIGS.glob('*_r101_deeplabv2_*.py'))
#: Rates of trunk, classifier and generator at some iterations, by the official configs.
RATES = {
    'voc_r101_deeplabv2_train': {
        0: (2.5e-4, 2.5e-4, 2e-4),
        9999: (2.5e-4 * (1 - 9990 / 40000) ** 0.9, 2.5e-4, 2e-4),
        10000: (2.5e-4 * 0.75**0.9, 2.5e-4 * 0.71, 2e-4 * 0.71),
        20001: (2.5e-4 * 0.5**0.9, 2.5e-4 * 0.71**3, 2e-4 * 0.71**3),
    },
    'context33_r101_deeplabv2_train': {
        20000: (2.5e-4 * 0.5**0.9, 2.5e-4 * 0.3**2, 2e-4 * 0.3**2)
    },
    'cocostuff_r101_deeplabv2_train': {
        20099: (2.5e-4 * 0.5**0.9, 5e-4 * 0.3**2, 2e-4 * 0.3**3)
    },
    'voc_r101_deeplabv2_finetune': {
        2999: (2.5e-4, 5e-5, 5e-5),
        4000: (2.5e-4, 5e-7, 5e-7),
    },
    'context33_r101_deeplabv2_finetune': {6500: (2.5e-4, 5e-5 * 0.09, 5e-5 * 0.09)},
    'cocostuff_r101_deeplabv2_finetune': {5000: (2.5e-4, 1e-5 * 0.09, 1e-5 * 0.09)},
}
#: Classes, and the share of unseen ones among labels that are drawn.
DATA = {
    'voc': ('voc12_15_5', 0.769),
    'context33': ('cagnet_context33', 0.674),
    'cocostuff': ('cocostuff_167_15', 0.843),
}


def build(config: Config) -> Any:
    init_default_scope('mmseg')
    with torch.device('meta'):
        return MODELS.build(config.model)


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_parts_of_a_config_fit(path: Path) -> None:
    config = Config.fromfile(path)
    require_inherited_variables(config)
    model = build(config)
    data, _, _, part = path.stem.split('_')
    name, share = DATA[data]
    split = get_split(name)
    assert model.split == split
    for loader in (config.train_dataloader, config.test_dataloader):
        assert loader.dataset.split == name
    unseen = config.model.unseen_weight * len(split.unseen)
    assert unseen / (unseen + len(split.seen)) == pytest.approx(share, abs=5e-4)
    outputs = model.decode_head.discriminator.classes.out_channels
    assert outputs == len(split.classes) + 1
    assert sum(p.numel() for p in model.generator.parameters()) == 4720088
    transfer = model.loss_weights[Step.GENERATED]
    stuff = data == 'cocostuff'
    assert transfer.classifier_fake == (1.0 if stuff else 0.125)
    assert transfer.generator_fake == (1.0 if stuff else 0.0)
    steps = [model.cycle.step_at(i) for i in (0, 99, 100, 199, 200, 300)]
    if part == 'finetune':
        assert ''.join(step[0] for step in steps) == 'rrggrg'
    else:
        assert {*steps} == {Step.JOINT}
    assert (model.self_training_top is None) == (part != 'st')


@pytest.mark.parametrize('name', RATES)
def test_learning_rates_are_the_official_ones(name: str) -> None:
    config = Config.fromfile(CONFIGS / f'{name}.py')
    model = build(config)
    options = dict(config.optim_wrapper)
    kind = options.pop('constructor')
    wrappers = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(type=kind, optim_wrapper_cfg=options)
    )(model)
    settings = {
        id(parameter): (group['lr'], group['weight_decay'])
        for _, wrapper in wrappers.items()
        for group in wrapper.param_groups
        for parameter in group['params']
    }
    head = model.decode_head
    for parameter, factor, decay in (
        (model.backbone.layer3[0].conv1.weight, 1, 5e-4),
        (head.context.pool.weight, 5, 5e-4),
        (head.pyramid[1].weight, 10, 5e-4),
        (head.pyramid[1].bias, 20, 0),
    ):
        assert settings[id(parameter)] == pytest.approx((2.5e-4 * factor, decay))
    assert not head.context.selector.weight.requires_grad
    # One parameter each, as a schedule of so many steps takes its time.
    alone = {
        part: torch.optim.SGD(
            [torch.nn.Parameter(torch.zeros(1))], lr=wrapper.param_groups[0]['lr']
        )
        for part, wrapper in wrappers.items()
    }
    schedules = [
        PARAM_SCHEDULERS.build(
            {'end': config.train_cfg.max_iters, **schedule},
            default_args={'optimizer': alone[part]},
        )
        for part, several in config.param_scheduler.items()
        for schedule in several
    ]
    expected = RATES[name]
    for iteration in range(max(expected) + 1):
        if iteration in expected:
            rates = [optimizer.param_groups[0]['lr'] for optimizer in alone.values()]
            assert rates == pytest.approx(expected[iteration])
        for optimizer in alone.values():
            optimizer.step()
        for schedule in schedules:
            schedule.step()
