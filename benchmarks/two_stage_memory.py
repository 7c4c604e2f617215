"""Memory of 200 masks on a 1024 x 2048 picture, above the loaded model.

Claim: with the pool namer on a ViT-B/16 it stays below 3 GB, as masks stay bool until
they are summed and are pooled in blocks. Weights are random, which changes no size.
Linux only (``/proc``).
"""

from __future__ import annotations

import time
from typing import Any

import torch
from streaming_memory import peak_memory, reset_peak
from torch import Tensor

from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import zs3_mmseg  # noqa: F401
from zs3_mmseg.models.proposers import Proposer

SIZE, NUM_MASKS, NUM_CLASSES, LIMIT_GB = (1024, 2048), 200, 150, 3.0


class Boxes(Proposer):
    """Masks of random boxes."""

    fingerprint = 'boxes'

    def propose(self, image: Tensor) -> Tensor:
        random = torch.Generator().manual_seed(0)
        masks = torch.zeros(NUM_MASKS, *image.shape[1:], dtype=torch.bool)
        for mask in masks:
            top, left = (torch.rand(2, generator=random) * torch.tensor(SIZE)).long()
            mask[top : top + 300, left : left + 400] = True
        return masks


def main() -> None:
    """Measure, and fail if the claim does not hold."""
    init_default_scope('mmseg')
    rows = torch.nn.functional.normalize(torch.randn(NUM_CLASSES, 512), dim=-1)
    names = [f'class {number}' for number in range(NUM_CLASSES)]
    head: dict[str, Any] = dict(
        type='ProposalHead',
        proposer=Boxes(cache=False),
        region_classifier=dict(type='MaskPoolingClassifier'),
        output='log_mean',
        area_power=0.25,
        fallback=dict(type='DenseTextHead'),
    )
    model = MODELS.build(
        dict(
            type='ZeroShotEncoderDecoder',
            backbone=dict(type='OpenCLIPViT', arch='ViT-B-16', last_attn='naclip'),
            decode_head=head,
            class_embeddings=dict(
                type='ClassEmbeddingBank',
                source=dict(type='clip_text', arch='ViT-B-16'),
            ),
            split=dict(classes=['a', 'b'], unseen=['b']),
            setting='inductive',
            test_cfg=dict(
                mode='slide',
                crop_size=(512, 512),
                stride=(512, 512),
                slide_batch_size=1,
                return_scores=False,
            ),
        )
    ).eval()
    model.set_classes(names, embeddings=rows)
    reset_peak()
    before, started = peak_memory(), time.perf_counter()
    with torch.no_grad():
        model.predict(
            torch.randn(1, 3, *SIZE), [SegDataSample(metainfo=dict(ori_shape=SIZE))]
        )
    above = (peak_memory() - before) / 2**30
    print(
        f'{NUM_MASKS} masks, {NUM_CLASSES} classes, {SIZE[1]} x {SIZE[0]} pixels: '
        f'{above:.2f} GB above the loaded model, {time.perf_counter() - started:.0f} s'
    )
    if above > LIMIT_GB:
        raise SystemExit(f'expected at most {LIMIT_GB} GB')


if __name__ == '__main__':
    main()
