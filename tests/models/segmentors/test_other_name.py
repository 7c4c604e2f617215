"""Pairs of an image and a name, with a row for everything else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from zs3_mmseg.models.segmentors import ClassPromptedSegmentor

VIT = dict(
    type='TimmViT',
    model='vit_tiny_patch16_224',
    img_size=64,
    embed_dim=16,
    depth=4,
    num_heads=2,
    out_indices=(0, 1, 2, 3),
)
HEAD = dict(
    type='LSegHead',
    in_channels=[16] * 4,
    in_index=[0, 1, 2, 3],
    post_process_channels=[4] * 4,
    channels=8,
)
SPLIT = dict(name='toy', classes=['ant', 'bee', 'cat'], unseen=['bee'])


def build(bank: Any, head: dict[str, Any] | None = None, **options: Any) -> Any:
    torch.manual_seed(0)
    return ClassPromptedSegmentor(
        **{
            **dict(
                backbone=VIT,
                decode_head={**HEAD, **(head or {})},
                class_embeddings=bank,
                split=SPLIT,
                setting='inductive',
                other_name='others',
            ),
            **options,
        }
    ).eval()


def pairs(*names: str) -> list[SegDataSample]:
    size = dict(ori_shape=(64, 96), img_shape=(64, 96), pad_shape=(64, 96))
    samples = []
    for name in names:
        sample = SegDataSample(metainfo={**size, 'prompt_name': name})
        labels = torch.zeros(1, 64, 96).long()
        labels[:, :20], labels[:, 20:30] = 1, 255
        sample.gt_sem_seg = PixelData(data=labels)
        samples.append(sample)
    return samples


@torch.no_grad()
def test_vocabularies_ask_for_the_same_pairs(toy_bank) -> None:
    model, images = build(toy_bank), torch.randn(2, 3, 64, 96)
    samples = model.predict(images, pairs('bee', 'cat'))
    scores = model.encode_decode(images, [{}, {}])
    for image, (sample, name) in enumerate(zip(samples, (1, 2), strict=True)):
        own = sample.seg_logits.data.softmax(dim=0)[1]
        torch.testing.assert_close(own, scores[image, name], rtol=1e-4, atol=1e-4)


def test_void_counts_as_anything_else_if_asked_to(toy_bank) -> None:
    losses = []
    for void in ('ignore', 'background'):
        model = build(toy_bank, dict(void_pixels=void))
        samples = pairs('ant', 'cat')
        torch.manual_seed(1)
        losses.append(model.loss(torch.randn(2, 3, 64, 96), samples))
        if void == 'ignore':
            for sample in samples:
                sample.gt_sem_seg.data[sample.gt_sem_seg.data == 255] = 0
            torch.manual_seed(1)
            losses.append(model.loss(torch.randn(2, 3, 64, 96), samples))
    ignored, filled, background = (loss['decode.loss_ce'] for loss in losses)
    assert torch.equal(filled, background)
    assert not torch.equal(ignored, filled)


def test_a_checkpoint_knows_the_row_of_the_others(toy_bank, make_bank) -> None:
    model = build(toy_bank)
    state = model.state_dict()

    class Missing(make_bank):
        def embed(self, names: Any) -> Any:
            raise FileNotFoundError('no tower')

    loaded = build(Missing(), head=dict(embed_dim=model.decode_head.embed_dim))
    loaded.load_state_dict(state)
    loaded.train()  # which forgets what is unseen
    losses = loaded.loss(torch.randn(2, 3, 64, 96), pairs('ant', 'cat'))
    assert losses['decode.loss_ce'] > 0
    assert toy_bank.asked.count(('others',)) == 1


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(other_name=None), "set model.other_name, such as 'others'"),
        (dict(other_name=' '), 'must be one text without synonyms'),
        (dict(other_name='rest|others'), 'must be one text without synonyms'),
        (dict(decode_head=dict(type='ToySoftmaxHead')), 'leave out model.other_name'),
    ],
)
def test_what_does_not_fit_is_refused(toy_bank, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        build(toy_bank, **options)
    assert '\n' not in str(raised.value)
