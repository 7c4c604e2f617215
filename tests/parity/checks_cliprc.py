"""CLIP-RC against the official code: the whole segmentor and its image encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from checks_zegclip import backbone_config, tensors_of
from family import Recorded
from registry import GoldenFile, assert_close, check
from torch import nn

from mmseg.registry import MODELS

from zs3_mmseg.engine.converters import apply_rules
from zs3_mmseg.engine.converters.core import OfficialWeights
from zs3_mmseg.engine.converters.zegclip_family import clip_rc_rules

LOSSES = {
    'loss_mask': 'loss_mask',
    'loss_dice': 'loss_dice',
    'loss_recovery_query': 'recovery_loss_q',
    'loss_recovery_patch': 'recovery_loss_k',
    'acc_seg': 'acc_seg',
}


def region_tokens(config: Mapping[str, Any], trainable: bool = False) -> dict[str, Any]:
    """Translate the official options of region tokens."""
    return dict(
        type='RegionTokens',
        num_tokens=config['region_level_bridge_size'],
        trainable=trainable,
    )


@check('cliprc_inductive', 'cliprc_transductive')
def segmentor(golden: GoldenFile) -> None:
    config = golden.json['config']
    head = config['decode_head']
    weights = OfficialWeights(golden.state(), golden.name)
    trained = 'backbone.region_level_bridge' in golden.json['trainable_parameters']
    recorded = Recorded(
        golden,
        clip_rc_rules(),
        tower=dict(extra_tokens=region_tokens(config['backbone'], trained)),
        head=dict(
            query_context='groups',
            memory=('group', 'image', 'patch'),
            two_way=True,
            mask_from='dot',
            recovery=dict(
                num_layers=weights.count('decode_head.recovery_decoder.decouple_q'),
                loss_weight=head['loss_decode']['recovery_loss_weight'],
            ),
        ),
        losses=LOSSES,
    )
    model, tensors = recorded.model, recorded.tensors
    assert model.backbone.extra_tokens.tokens.requires_grad == trained
    found, given = recorded.check_evaluation()
    groups = given['group_tokens']
    assert_close(
        groups.transpose(1, 2).view_as(tensors['eval.rlb_feat']),
        tensors['eval.rlb_feat'],
        what='region tokens',
    )
    regions = groups.shape[1]

    def region_major(rows: torch.Tensor) -> torch.Tensor:
        """Ours has the regions of a class side by side, theirs the classes of one."""
        return rows.unflatten(1, (-1, regions)).transpose(1, 2).flatten(1, 2)

    with torch.no_grad():
        query = model.decode_head.q_proj(found.described)
        patches = model._features(tensors['img'], None)[0][-1]
        memory = model.decode_head._memory(patches, given['global_token'], groups)
    assert_close(region_major(query), tensors['eval.query'], what='queries')
    assert_close(memory, tensors['eval.memory'], what='memory')
    decoded = found.decoded
    masks = region_major(decoded.query) @ decoded.memory.transpose(1, 2)
    recorded_masks = tensors['eval.region_masks']
    assert_close(masks.view_as(recorded_masks), recorded_masks, what='region masks')
    assert_close(found.masks[-1], tensors['eval.fused_masks'], what='fused masks')

    outputs = recorded.check_training_step()
    query, wanted = outputs.recovered['loss_recovery_query']
    assert_close(region_major(query), tensors['train.recovery_query'])
    assert_close(region_major(wanted), tensors['train.recovery_target_query'])
    patches, wanted = outputs.recovered['loss_recovery_patch']
    assert_close(patches, tensors['train.recovery_patch'])
    assert_close(wanted, tensors['train.recovery_target_patch'])


@check('cliprc_backbone')
def image_encoder(golden: GoldenFile) -> None:
    tensors = golden.tensors()
    for name, variant in golden.json['variants'].items():
        config = variant['config']
        holder = nn.Module()
        holder.backbone = model = MODELS.build(
            backbone_config(config) | dict(extra_tokens=region_tokens(config))
        ).eval()
        state = {
            f'backbone.{key}': value
            for key, value in golden.state(f'{name}.state.').items()
        }
        conversion = apply_rules(state, clip_rc_rules(), tensors_of(holder))
        assert conversion.complete, str(conversion)
        holder.load_state_dict(conversion.state)
        images = [k for k in tensors if k.startswith(f'{name}.') and k.endswith('.img')]
        assert images, name
        for key in images:
            where = key.removesuffix('.img')
            with torch.no_grad():
                found = model(tensors[key])
            grid = found.maps[0].shape[-2:]
            seen = model.extra_tokens.attention_mask(
                tuple(grid), config['num_tokens'], torch.device('cpu')
            )
            assert torch.equal(~seen, tensors[f'{name}.mask_blocked'].bool())
            assert_close(found.maps[0], tensors[f'{where}.feat0'], what=where)
            assert_close(found.global_token, tensors[f'{where}.global'], what=where)
            recorded = tensors[f'{where}.rlb']
            groups = found.group_tokens.transpose(1, 2).view_as(recorded)
            assert_close(groups, recorded, what=where)
