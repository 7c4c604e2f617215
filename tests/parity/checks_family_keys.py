"""Official checkpoints of full size, and what they train, in our published models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from checks_schedules import CONFIGS, without_weights
from checks_zegclip import tensors_of
from registry import GoldenFile, check
from torch import nn

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from zs3_mmseg.engine.converters import KeyRule, apply_rules
from zs3_mmseg.engine.converters.core import empty_model
from zs3_mmseg.engine.converters.zegclip_family import (
    clip_rc_rules,
    spt_rules,
    tagclip_rules,
)
from zs3_mmseg.models.towers import resolve_architecture

Rules = Callable[[], Sequence[KeyRule]]
#: First word of a recording -> our config and its rules.
METHODS: dict[str, tuple[str, Rules]] = {
    'cliprc': ('clip_rc/voc_vitb16', clip_rc_rules),
    'spt': ('spt_seg/voc_vitb16', lambda: spt_rules(3)),
    'tagclip': ('tagclip/voc_vitb16', lambda: tagclip_rules(3, (0,))),
}


def published(golden: GoldenFile) -> tuple[Config, nn.Module, Sequence[KeyRule]]:
    """Return a config, its backbone and head without memory, and the rules of keys."""
    name, rules = METHODS[golden.name.partition('_')[0]]
    config = Config.fromfile(CONFIGS / f'{name}.py')
    model = without_weights(config.model)
    width = resolve_architecture(config.arch).embed_dim
    return config, empty_model(model, in_channels=width), rules()


@check(*(f'{method}_vitb16_keys' for method in METHODS))
def full_size(golden: GoldenFile) -> None:
    _, model, rules = published(golden)
    shapes = golden.json['keys'].items()
    state = {key: torch.empty(shape, device='meta') for key, shape in shapes}
    conversion = apply_rules(state, rules, tensors_of(model))
    assert conversion.complete, str(conversion)


@check(*(f'{method}_optimizer' for method in METHODS))
def optimizer(golden: GoldenFile) -> None:
    config, model, rules = published(golden)
    built = build_optim_wrapper(model, config.optim_wrapper).optimizer
    assert type(built).__name__ == golden.json['optimizer'].split(',')[0]
    assert (built.defaults['betas'], built.defaults['eps']) == ((0.9, 0.999), 1e-8)
    settings = {
        id(parameter): {key: group[key] for key in ('lr', 'weight_decay')}
        for group in built.param_groups
        for parameter in group['params']
    }
    official, frozen = golden.json['groups'], golden.json['frozen_outside_clip']
    every = dict.fromkeys([*official, *frozen], torch.zeros(()))
    conversion = apply_rules(every, rules, tensors_of(model))
    assert not conversion.unknown
    ours = {old: new for new, old in conversion.sources.items()}
    learning = {n: p for n, p in model.named_parameters() if p.requires_grad}
    # Ours trains the filter of SPT-SEG, which is an option.
    extra = {'backbone.spectral.weight'} & learning.keys()
    assert {ours[name] for name in official if name in ours} == set(learning) - extra
    for name, recorded in official.items():
        if name in ours:
            assert settings[id(learning[ours[name]])] == recorded, name
