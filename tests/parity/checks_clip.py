"""CLIP's text tower, its tokens, and the resizing of position embeddings."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import torch
from registry import GoldenFile, assert_close, check
from safetensors.torch import save_file

from zs3_mmseg.models.towers import load_clip, resize_positions, resolve_architecture
from zs3_mmseg.models.towers.architectures import build_tokenizer


@check('zegclip_text_tower')
def text_tower(golden: GoldenFile) -> None:
    sizes, tensors = golden.json['config'], golden.tensors()
    arch = dict(
        embed_dim=sizes['embed_dim'],
        quick_gelu=True,
        # Never run: the recording has the text tower alone.
        vision_cfg=dict(image_size=8, patch_size=8, width=8, head_width=8, layers=1),
        text_cfg=dict(
            context_length=sizes['context_length'],
            vocab_size=sizes['vocab_size'],
            width=sizes['transformer_width'],
            heads=sizes['transformer_heads'],
            layers=sizes['transformer_layers'],
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'text_tower.safetensors'
        save_file(golden.state(), path)
        model = load_clip(arch, path, need='text').model
    with torch.no_grad():
        rows = model.encode_text(tensors['tokens'])
        unit_rows = model.encode_text(tensors['tokens'], normalize=True)
    assert_close(rows, tensors['embedding'], what='embedding')
    assert_close(
        unit_rows, tensors['embedding_normalised'], what='normalised embedding'
    )


@check('clip_tokens')
def clip_tokens(golden: GoldenFile) -> None:
    tokenizer = build_tokenizer(resolve_architecture('ViT-B-16-quickgelu'))
    length = golden.json['context_length']
    for text, ids in golden.json['tokens'].items():
        row = tokenizer([text])[0].tolist()
        assert row == ids + [0] * (length - len(ids)), text


@check('zegclip_pos_resize')
def position_resize(golden: GoldenFile) -> None:
    tensors = golden.tensors()
    reference = tensors['pos_embed_resized']
    side = math.isqrt(len(reference) - 1)
    resized = resize_positions(tensors['pos_embed_224'], (side, side), mode='bilinear')
    assert_close(resized, reference, what='position embedding')
