"""Learning rates and weight decay of our configs against those of the official code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from registry import GoldenFile, check
from torch import nn

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmseg.registry import MODELS, PARAM_SCHEDULERS

from zs3_mmseg.engine.converters import apply_rules
from zs3_mmseg.engine.converters.zegclip import cascade_rules, zegclip_rules

CONFIGS = Path(__file__).parents[2] / 'configs'
#: Our config for each recorded schedule of ZegCLIP; all have the same shape.
RECORDED = {
    'voc_20k': 'voc_vitb16',
    'coco_80k': 'cocostuff_vitb16',
    'st_10k': 'voc_vitb16_transductive',
}


def without_weights(config: Any) -> Any:
    """Return a model config whose towers are built but not loaded."""
    if isinstance(config, Mapping):
        return {
            key: None if key == 'pretrained' else without_weights(value)
            for key, value in config.items()
            if key != 'data_preprocessor'  # needs mmseg as the default scope
        }
    return config


def values_over(
    schedulers: Sequence[Mapping], optimizer: Any, steps: int
) -> list[list[float]]:
    """Return the learning rates of all groups in force at each step."""
    built = [
        PARAM_SCHEDULERS.build(
            {'end': steps, **scheduler}, default_args={'optimizer': optimizer}
        )
        for scheduler in schedulers
    ]
    values = []
    for _ in range(steps):
        values.append([group['lr'] for group in optimizer.param_groups])
        optimizer.step()
        for scheduler in built:
            scheduler.step()
    return values


def sgd(*rates: float) -> torch.optim.Optimizer:
    groups = [dict(params=[nn.Parameter(torch.zeros(1))], lr=rate) for rate in rates]
    return torch.optim.SGD(groups, lr=rates[0])


#: Recordings of optimisers -> the config of that training and the rules of its keys.
OPTIMIZERS = {
    'zegclip': ('zegclip/voc_vitb16', zegclip_rules(3)),
    'otseg': ('otseg/voc_vitb16', zegclip_rules(3)),
    'cascade': ('cascade_clip/voc_vitb16', cascade_rules(3)),
}


@check(*(f'{method}_optimizer' for method in OPTIMIZERS))
def optimizers(golden: GoldenFile) -> None:
    path, rules = OPTIMIZERS[golden.name.partition('_')[0]]
    config = Config.fromfile(CONFIGS / f'{path}.py')
    with torch.device('meta'):  # the values of such towers take their time
        model = MODELS.build(without_weights(config.model))
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    assert type(optimizer).__name__ == golden.json['optimizer'].split(',')[0]
    assert (optimizer.defaults['betas'], optimizer.defaults['eps']) == (
        (0.9, 0.999),
        1e-8,
    )
    settings = {
        id(parameter): {key: group[key] for key in ('lr', 'weight_decay')}
        for group in optimizer.param_groups
        for parameter in group['params']
    }
    official = golden.json['groups']
    conversion = apply_rules(
        dict.fromkeys(official, torch.zeros(())), rules, dict(model.named_parameters())
    )
    assert not conversion.unknown
    learning = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert set(conversion.sources) == set(learning)
    for ours, theirs in conversion.sources.items():
        assert settings[id(learning[ours])] == official[theirs], ours

    dead = set(conversion.dropped)
    assert set(golden.json.get('trainable_never_used_in_forward', ())) <= dead
    for name, recorded in golden.json.get('lr_schedule', {}).items():
        check_rates(name, recorded)


def check_rates(name: str, recorded: Mapping[str, float]) -> None:
    """Compare with the config of ours for that data and so many thousand iterations."""
    length = 1000 * int(re.search(r'(\d+)k$', name)[1])
    ours = Config.fromfile(CONFIGS / f'zegclip/{RECORDED.get(name, "voc_vitb16")}.py')
    assert name not in RECORDED or ours.train_cfg.max_iters == length
    rate = ours.optim_wrapper.optimizer.lr
    values = values_over(ours.param_scheduler, sgd(rate), length)
    for step, expected in recorded.items():
        np.testing.assert_allclose(values[int(step)], expected, rtol=1e-9)


@check('lr_schedules')
def lr_schedules(golden: GoldenFile) -> None:
    """ZS3Net's and CaGNet's schedules, as a config of this package writes them."""
    config = golden.json['config']
    length = config['epochs'] * config['ipe']
    poly = dict(type='WarmupPolyLR', power=0.9, by_epoch=False)
    step = config['lr_step'] * config['ipe']
    milestones = list(range(config['start'], config['n'], config['step']))
    schedules = {
        'poly': poly,
        'cos': dict(type='CosineAnnealingLR', by_epoch=False),
        'step': dict(type='StepLR', step_size=step, gamma=0.1, by_epoch=False),
        'cagnet_poly': dict(poly, update_interval=config['decay_iter']),
        'cagnet_lambda': dict(
            type='MultiStepLR',
            milestones=milestones,
            gamma=config['gamma'],
            by_epoch=False,
        ),
    }
    factors = {'cagnet_poly': (1, 5, 10, 20), 'cagnet_lambda': (1,)}
    assert set(schedules) == set(golden.json['values'])
    for name, expected in golden.json['values'].items():
        ours = name.startswith('cagnet')
        rate, steps = (
            (config['cag_lr'], config['n']) if ours else (config['lr'], length)
        )
        rates = [rate * factor for factor in factors.get(name, (1, 10))]
        values = values_over([schedules[name]], sgd(*rates), steps)
        np.testing.assert_allclose(values, expected, rtol=1e-9, err_msg=name)
