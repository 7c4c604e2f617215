"""Cascade-CLIP's image encoder and whole segmentor against the official code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from checks_zegclip import (
    FixedRows,
    backbone_config,
    build_segmentor,
    check_evaluation,
    check_training_step,
    tensors_of,
)
from registry import GoldenFile, assert_close, check
from torch import Tensor, nn

from mmseg.registry import MODELS

from zs3_mmseg.engine.converters import apply_rules
from zs3_mmseg.engine.converters.zegclip import cascade_rules

#: How many taps there are in a group; the official code has it in its lines.
GROUP = 3


def tap_options(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(
        out_indices=(*config['out_indices'], -1), tap_projection='frozen_random'
    )


def load_cascade(
    model: nn.Module, state: Mapping[str, Tensor], layers: int
) -> dict[str, str]:
    """Load an official state dict; return our key of each of theirs."""
    conversion = apply_rules(state, cascade_rules(layers), tensors_of(model))
    assert conversion.complete, str(conversion)
    model.load_state_dict(conversion.state, strict=False)
    return {old: new for new, old in conversion.sources.items()}


@check('cascade_backbone')
def backbone(golden: GoldenFile) -> None:
    tensors = golden.tensors()
    for name, variant in golden.json['variants'].items():
        config = variant['config']
        holder = nn.Module()
        holder.backbone = MODELS.build(
            backbone_config(config, **tap_options(config))
        ).eval()
        state = golden.state(f'{name}.state.')
        load_cascade(holder, {f'backbone.{k}': v for k, v in state.items()}, 1)
        for place in range(len(variant['inputs'])):
            where = f'{name}.in{place}'
            with torch.no_grad():
                *maps, token = holder.backbone(tensors[f'{where}.img'])
            assert f'{where}.feat{len(maps)}' not in tensors
            for index, feature in enumerate(maps):
                recorded = tensors[f'{where}.feat{index}']
                assert_close(feature, recorded, what=f'{where} {index}')
            assert_close(token, tensors[f'{where}.global'], what=where)


@check('cascade_inductive', 'cascade_transductive')
def segmentor(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    rows = tensors['text_feat']
    names = [f'class{index}' for index in range(len(rows))]
    taps = range(len(config['backbone']['out_indices']))
    model = build_segmentor(
        config,
        names,
        FixedRows(names, rows),
        backbone=tap_options(config['backbone']),
        tap_groups=[taps[i : i + GROUP] for i in range(0, len(taps), GROUP)],
    )
    layers = config['decode_head']['num_layers']
    official = load_cascade(model, golden.state(), layers)
    frozen = {key for key, p in model.named_parameters() if not p.requires_grad}
    assert {official[key] for key in golden.json['frozen_parameters_outside_clip']} == {
        key for key in frozen if not key.startswith('backbone.visual.')
    }
    patches = tensors[f'eval.feat{len(taps)}']
    check_evaluation(model, {**tensors, 'eval.patch_feat': patches})
    check_inside(model, tensors)
    check_training_step(model, tensors, official)


@torch.no_grad()
def check_inside(model: Any, tensors: dict[str, Tensor]) -> None:
    """Compare taps, and queries, memories and masks of every group."""
    head, seen = model.decode_head, []
    groups = [*head.tap_groups, head]
    handles = [
        group.decoder.register_forward_hook(
            lambda _, given, made: seen.append((*given[:2], made.masks[-1]))
        )
        for group in groups
    ]
    model.eval()
    queries = model.current_queries()
    maps, given = model._features(tensors['img'], queries)
    logits = head.query_logits(
        maps, queries=queries, global_token=given['global_token']
    )
    for handle in handles:
        handle.remove()
    for index, feature in enumerate(maps):
        assert_close(feature, tensors[f'eval.feat{index}'], what=f'map {index}')
    own, *others = seen  # the head's own group runs first and stands last there
    for stage, parts in enumerate([*others, own], start=1):
        for name, part in zip(('query', 'memory', 'mask'), parts, strict=True):
            recorded = tensors[f'eval.{name}_s{stage}']
            assert_close(part.view_as(recorded), recorded, what=f'{name} {stage}')
    recorded = tensors['eval.pred_masks']
    masks = F.interpolate(logits, recorded.shape[-2:], mode='bilinear')
    assert_close(masks, recorded, what='masks')
