"""FC-CLIP against the official code: deformable attention and its pixel decoder."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from registry import GoldenFile, assert_close, check
from torch import Tensor, nn

from zs3_mmseg.models.decode_heads.deformable import (
    DeformableAttention,
    DeformablePixelDecoder,
    weighted_samples,
)

#: Official keys of the pixel decoder (patterns), and ours.
PIXEL_DECODER_KEYS = {
    r'input_proj\.(\d+)\.0\.': r'input_proj.\1.conv.',
    r'input_proj\.(\d+)\.1\.': r'input_proj.\1.gn.',
    r'transformer\.(?:encoder\.)?': '',
    r'adapter_1\.norm\.': 'lateral.gn.',
    r'adapter_1\.': 'lateral.conv.',
    r'layer_1\.norm\.': 'output.gn.',
    r'layer_1\.': 'output.conv.',
}


def renamed(key: str, names: Mapping[str, str]) -> str:
    """Return our name of an official key."""
    for theirs, ours in names.items():
        if re.match(theirs, key):
            return re.sub(rf'^{theirs}', ours, key)
    return key


def load(model: nn.Module, golden: GoldenFile, names: Mapping[str, str]) -> None:
    state = {renamed(key, names): value for key, value in golden.state().items()}
    model.load_state_dict(state)


def check_gradients(
    model: nn.Module, tensors: Mapping[str, Tensor], names: Mapping[str, str]
) -> None:
    """Compare the recorded gradients of weights."""
    parameters = dict(model.named_parameters())
    keys = [
        key
        for key in tensors
        if key.startswith('grad.') and not key.startswith(('grad.in.', 'grad.text.'))
    ]
    assert keys
    for key in keys:
        found = parameters[renamed(key.removeprefix('grad.'), names)].grad
        assert_close(found, tensors[key], 'gradient', what=key)


def inputs(tensors: Mapping[str, Tensor], *names: str) -> list[Tensor]:
    return [tensors[f'in.{name}'].clone().requires_grad_() for name in names]


@check('fcclip_deform_attn')
def deformable_attention(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    sizes = [(height, width) for height, width in config['levels']]
    model = DeformableAttention(
        config['d_model'],
        config['heads'],
        num_levels=len(sizes),
        num_points=config['points'],
    )
    key = 'init.sampling_offsets.bias'
    assert_close(model.sampling_offsets.bias, tensors[key], what=key)
    load(model, golden, {})
    names = ['query', 'reference_points', 'value']
    given = inputs(tensors, *names)
    out = model(*given, sizes)
    assert_close(out, tensors['out.no_padding'], what='out.no_padding')
    (out * tensors['cotangent']).sum().backward()
    for name, value in zip(names, given, strict=True):
        key = f'grad.in.{name}'
        assert_close(value.grad, tensors[key], 'gradient', what=key)
    check_gradients(model, tensors, {})
    with torch.no_grad():
        query, references, value = given
        points, weights = model.places(query, references, sizes)
        core = weighted_samples(model.value_proj(value), sizes, points, weights)
        padded = model(*given, sizes, tensors['in.padding'].bool())
    assert_close(points, tensors['out.sampling_locations'], what='points')
    assert_close(weights, tensors['out.attention_weights'], what='weights')
    assert_close(core, tensors['out.core'], what='core')
    assert_close(padded, tensors['out.padding'], what='out.padding')


@check('fcclip_pixel_decoder')
def pixel_decoder(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    model = DeformablePixelDecoder(
        config['channels'],
        config['conv_dim'],
        config['mask_dim'],
        num_layers=config['enc_layers'],
        num_heads=config['heads'],
        num_points=config['points'],
        feedforward_channels=config['dim_feedforward'],
        dropout=config['dropout'],
    )
    load(model, golden, PIXEL_DECODER_KEYS)
    names = [f'res{level + 2}' for level in range(len(config['channels']))]
    maps = inputs(tensors, *names)
    with torch.no_grad():
        projected = [
            project(each)
            for project, each in zip(model.input_proj, maps[:0:-1], strict=True)
        ]
        cells, positions, references = model.cells(projected)
        references = references.expand(len(cells), -1, -1, -1)
        sizes = [tuple(each.shape[-2:]) for each in projected]
        assert_close(cells, tensors['out.encoder_in'], what='cells')
        recorded = tensors['out.encoder_pos'].expand_as(cells)
        assert_close(positions.expand_as(cells), recorded, what='positions')
        assert_close(references, tensors['out.reference_points'], what='centres')
        for index, layer in enumerate(model.layers):
            key = f'out.attention.{index}'
            if key in tensors:
                seen = layer.self_attn(cells + positions, references, cells, sizes)
                assert_close(seen, tensors[key], what=key)
            cells = layer(cells, positions, references, sizes)
            key = f'out.encoder.{index}'
            assert_close(cells, tensors[key], what=key)
    features, found = model(maps)
    assert_close(features, tensors['out.mask_features'], what='mask features')
    total = (features * tensors['cotangent.mask_features']).sum()
    for index, each in enumerate(found):
        key = f'multi_scale.{index}'
        assert_close(each, tensors[f'out.{key}'], what=key)
        total = total + (each * tensors[f'cotangent.{key}']).sum()
    total.backward()
    for name, value in zip(names, maps, strict=True):
        key = f'grad.in.{name}'
        if key in tensors:
            assert_close(value.grad, tensors[key], 'gradient', what=key)
    check_gradients(model, tensors, PIXEL_DECODER_KEYS)
