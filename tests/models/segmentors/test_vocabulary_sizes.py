"""Vocabularies of every size, by every way from an image to a label map."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from zs3_mmseg.models.calibrators import SeenShift
from zs3_mmseg.models.segmentors import ZeroShotEncoderDecoder, ZeroShotTTAModel
from zs3_mmseg.utils.labels import special_labels

FOUR = ('ant', 'bee', 'cat', 'dog')
MANY = tuple(f'name {index}' for index in range(300))
SPLITS = {
    'nothing seen': (FOUR, FOUR),
    'all seen': (FOUR, ()),
    'two': (FOUR[:2], FOUR[1:2]),
    'one': (FOUR[:1], ()),
    'one, unseen': (FOUR[:1], FOUR[:1]),
    '255': (MANY[:255], MANY[250:255]),
    '256': (MANY[:256], MANY[250:256]),
    'many': (MANY, MANY[290:]),
}
HEADS = ('ToySoftmaxHead', 'ToySigmoidHead', 'ToyLogitHead')
WAYS: dict[str, dict[str, Any]] = {
    'whole': {},
    'slide': dict(mode='slide', crop_size=(8, 8), stride=(4, 4)),
    'groups': dict(return_scores='groups'),
    'streamed': dict(return_scores=False, class_chunk=3),
}


@pytest.fixture
def build(make_segmentor):
    def of(split: str, head: str, **options: Any) -> ZeroShotEncoderDecoder:
        classes, unseen = SPLITS[split]
        return make_segmentor(
            dict(type=head, ignore_index=special_labels(len(classes)).ignore),
            split=dict(classes=classes, unseen=unseen),
            calibrators=[
                SeenShift(0.1, space='score'),
                SeenShift(0.1, space='logit'),
            ],
            **options,
        )

    return of


def expected(scores: Tensor, threshold: float = 0.5) -> Tensor:
    """Return the label maps of scores ``(N, K, H, W)``."""
    if scores.shape[1] == 1:
        return (scores >= threshold).long()
    return scores.argmax(dim=1, keepdim=True)


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('split', SPLITS)
@torch.no_grad()
def test_classes_of_a_split(build, split: str, head: str, way: str) -> None:
    model = build(split, head, test_cfg=WAYS[way])
    images = torch.randn(2, 3, 12, 10)
    found = model.predict(images)
    labels = torch.stack([sample.pred_sem_seg.data for sample in found])
    assert torch.equal(labels, expected(model.inference(images, [{}, {}])))
    if way == 'groups':
        best = found[0].group_best.classes
        absent = [not any(model.vocabulary.seen), all(model.vocabulary.seen)]
        assert [(group == -1).all().item() for group in best] == absent


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('split', ['nothing seen', 'two', '255'])
@pytest.mark.parametrize('number', [1, 2, 256, 300])
@torch.no_grad()
def test_names_set_at_inference(build, split: str, head: str, number: int) -> None:
    model = build(split, head)
    model.set_classes(MANY[:number])
    images = torch.randn(1, 3, 12, 10)
    labels = model.predict(images)[0].pred_sem_seg.data[None]
    assert torch.equal(labels, expected(model.encode_decode(images, [{}])))
    assert len(model.dataset_meta['palette']) == number
    model.reset_classes()
    assert model.class_names == SPLITS[split][0]


@pytest.mark.parametrize('split', SPLITS)
@torch.no_grad()
def test_views_are_averaged(build, split: str) -> None:
    model = build(split, 'ToySigmoidHead')
    shape = dict(ori_shape=(12, 10), img_shape=(12, 10))
    views = [SegDataSample(metainfo=shape) for _ in range(2)]
    scores = torch.rand(2, len(model.class_names), 12, 10)
    for view, maps in zip(views, scores, strict=True):
        view.seg_logits = PixelData(data=maps)
    merged = ZeroShotTTAModel(model).merge_preds([views])[0]
    assert torch.equal(merged.pred_sem_seg.data[None], expected(scores.mean(0)[None]))


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('split', ['all seen', 'two', '255', 'many'])
def test_labels_of_a_split_reach_the_loss(build, make_samples, split, head) -> None:
    setting = 'supervised' if split == 'all seen' else 'inductive'
    model = build(split, head, setting=setting).train()
    special = special_labels(len(model.class_names))
    labels = torch.arange(64).reshape(1, 8, 8) % len(model.class_names)
    labels[0, 0] = special.ignore
    losses = model.loss(torch.randn(1, 3, 8, 8), make_samples(labels))
    assert losses['decode.loss_ce'].isfinite()


def test_without_seen_classes_there_is_nothing_to_train(build, make_samples) -> None:
    model = build('nothing seen', 'ToySoftmaxHead').train()
    with pytest.raises(ValueError, match="split 'custom' has no seen class to train"):
        model.loss(torch.randn(1, 3, 8, 8), make_samples(torch.zeros(1, 8, 8).long()))
