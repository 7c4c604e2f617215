"""SPT-SEG against the official code: the whole segmentor and its parts."""

from __future__ import annotations

import torch
from family import Recorded
from registry import GoldenFile, assert_close, check

from zs3_mmseg.engine.converters.zegclip_family import spt_rules
from zs3_mmseg.models.backbones.prompts import SpectralFilter
from zs3_mmseg.models.decode_heads.relation_decoder import HiLoAttention, Layout
from zs3_mmseg.models.losses import NonExclusiveLoss

#: Of the official decoder, whatever its configuration says.
HEADS = 8


@check('spt_inductive', 'spt_transductive')
def segmentor(golden: GoldenFile) -> None:
    config = golden.json['config']
    deep = config['backbone']['total_d_layer'] > 0
    trained = 'backbone.complex_weight' in golden.json['trainable_parameters']
    head, weights = config['decode_head'], config['decode_head']['loss_decode']
    recorded = Recorded(
        golden,
        spt_rules(head['num_layers']),
        tower=dict(spectral=dict(blocks=(0, 1) if deep else (0,), train=trained)),
        head=dict(
            attention='hilo',
            num_heads=HEADS,
            loss_decode=dict(
                type='NonExclusiveLoss',
                mask_weight=weights['mask_weight'],
                dice_weight=0.0,
                ssim_weight=weights['dice_weight'],
                loss_weight=weights['loss_weight'],
            ),
        ),
        losses={name: name for name in ('loss_mask', 'loss_ssim', 'acc_seg')},
    )
    assert recorded.model.backbone.spectral.weight.requires_grad == trained
    recorded.check_evaluation()
    recorded.check_training_step()


@check('spt_filter')
def spectral_filter(golden: GoldenFile) -> None:
    tensors = golden.tensors()
    weight, patches = tensors['complex_weight'], tensors['x'].requires_grad_()
    grid, width = (weight.shape[0], 2 * (weight.shape[1] - 1)), weight.shape[2]
    part = SpectralFilter(blocks=(0,), grid=grid, num_blocks=1, width=width)
    part.load_state_dict({'weight': weight})
    tokens = torch.cat([tensors['cls'], patches], dim=1)
    added = part.before(0, tokens, 0, grid)[:, 1:] - patches
    assert_close(added, tensors['out'], what='filtered patches')
    (added * tensors['probe']).sum().backward()
    assert_close(patches.grad, tensors['grad_x'], 'gradient', what='patches')
    assert_close(part.weight.grad, tensors['grad_complex_weight'], 'gradient')


@check('spt_hilo')
def hilo_attention(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    part = HiLoAttention(config['dim'], HEADS, dropout=0.0)
    state = {
        key if key.startswith('proj.') else f'filter.{key}': value
        for key, value in golden.state().items()
        if not key.startswith('h_proj.')
    }
    part.load_state_dict(state)
    query = tensors['query'].transpose(0, 1).requires_grad_()
    memory = tensors['memory'].requires_grad_()
    out, masks = part(query, memory, Layout((config['h'], config['w'])))
    assert_close(out.transpose(0, 1), tensors['out'], what='attended')
    assert_close(masks, tensors['map'], what='masks')
    probed = (out.transpose(0, 1) * tensors['probe_out']).sum()
    (probed + (masks * tensors['probe_map']).sum()).backward()
    gradient = query.grad.transpose(0, 1)
    assert_close(gradient, tensors['grad_query'], 'gradient', what='query')
    assert_close(memory.grad, tensors['grad_memory'], 'gradient', what='memory')
    for name, parameter in part.named_parameters():
        key = f'grad.{name.removeprefix("filter.")}'
        assert_close(parameter.grad, tensors[key], 'gradient', what=key)


@check('spt_ssim')
def similarity_loss(golden: GoldenFile) -> None:
    tensors = golden.tensors()
    loss = NonExclusiveLoss(mask_weight=0.0, dice_weight=0.0, ssim_weight=1.0)
    for name in golden.json['cases']:
        logits = tensors[f'{name}.logits'].requires_grad_()
        target = tensors[f'{name}.target'].long()
        labels = torch.where(target.any(1), target.argmax(1), 255)
        value = loss(logits, labels)['loss_ssim']
        assert_close(value, tensors[f'{name}.loss'][0], what=name)
        value.backward()
        assert_close(logits.grad, tensors[f'{name}.grad_logits'], 'gradient', what=name)
