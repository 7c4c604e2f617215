"""SAZS as a whole: pairs, all classes at once, and who reads the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from zs3_mmseg.evaluation import FoldIoUMetric
from zs3_mmseg.models.class_embeddings import ClassEmbeddings, split_names
from zs3_mmseg.utils.cache import CACHE_ENV
from zs3_mmseg.utils.config_keys import ConfigError

SPLIT = dict(name='toy', classes=['ant', 'bee', 'cat', 'dog'], unseen=['bee', 'dog'])
D = 8


class NameBank:
    """A bank whose rows follow from the names alone."""

    dim = D

    def embed(self, names: Sequence[str]) -> ClassEmbeddings:
        texts, classes = split_names(names)
        rows = [
            torch.randn(D, generator=torch.Generator().manual_seed(sum(map(ord, text))))
            for text in texts
        ]
        return ClassEmbeddings(
            torch.stack(rows), torch.tensor(classes), tuple(names), provenance={}
        )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_ENV, str(tmp_path))


PROPOSER = dict(type='EigenSegmenter', long_side=48, patch_size=4)


def build(kind: str = 'ClassPromptedSegmentor', **options: Any) -> Any:
    torch.manual_seed(0)
    pairs = kind == 'ClassPromptedSegmentor'
    config: dict[str, Any] = dict(
        type=kind,
        split=SPLIT,
        setting='inductive',
        class_embeddings=NameBank(),
        data_preprocessor=dict(
            type='mmseg.SegDataPreProcessor',
            mean=[99.0] * 3,
            std=[50.0] * 3,
            size_divisor=8,
        ),
        backbone=dict(
            type='ReadoutViT',
            model='vit_tiny_patch16_224',
            img_size=32,
            patch_size=8,
            embed_dim=12,
            depth=2,
            num_heads=2,
            last_block=1,
            out_channels=D,
        ),
        decode_head=dict(
            type='SAZSHead', void_pixels='background' if pairs else 'ignore'
        ),
        **({'other_name': 'others'} if pairs else {}),
    )
    return MODELS.build(config | options).eval()


def images(count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 60, (count, 3, 40, 48), generator=generator)
    picture[:, :, 8:30, 10:36] += 150
    return picture.float()


def samples_of(labels: Tensor, names: Sequence[str | None]) -> list[SegDataSample]:
    samples = []
    for label, name in zip(labels, names, strict=True):
        sample = SegDataSample(
            gt_sem_seg=PixelData(data=label),
            gt_edge_map=PixelData(data=(label == 1).long()),
            metainfo=dict(ori_shape=(40, 48), img_shape=(40, 48)),
        )
        if name is not None:
            place = SPLIT['classes'].index(name)
            sample.set_metainfo(dict(prompt_name=name, prompt_class=place))
        samples.append(sample)
    return samples


def predicted(model: Any, labels: Tensor, names: Sequence[str | None]) -> list[Tensor]:
    inputs = (images(len(names)) - 99) / 50
    samples = model.predict(inputs, samples_of(labels, names))
    return [sample.pred_sem_seg.data for sample in samples]


def labels_of(count: int = 2) -> Tensor:
    labels = torch.zeros(count, 1, 40, 48, dtype=torch.long)
    labels[:, :, 8:30, 10:36] = 1
    return labels


FUSION = dict(type='EigenFusion', proposer=PROPOSER, tau=0.0)


def test_the_honest_fusion_reads_no_ground_truth() -> None:
    fused, plain = build(post_processors=[FUSION]), build()
    labels, names = labels_of(), ['bee', 'dog']
    order = torch.randperm(40 * 48, generator=torch.Generator().manual_seed(3))
    permuted = labels.flatten(1)[:, order].view_as(labels)
    found = predicted(fused, labels, names)
    for mine, other in zip(found, predicted(fused, permuted, names), strict=True):
        assert torch.equal(mine, other)
    # With tau=0 some segment always takes the place of a prediction.
    assert not all(map(torch.equal, found, predicted(plain, labels, names)))


def test_the_oracle_does_read_it() -> None:
    model, scores = build(), []
    for labels in (labels_of(1), 1 - labels_of(1)):
        metric = FoldIoUMetric(oracle=True, proposer=PROPOSER)
        metric.dataset_meta = dict(classes=SPLIT['classes'], prompted=(1,))
        picture = images(1)[0].byte()
        metric._segments = lambda sample, m=metric, p=picture: m.proposer(p)
        data = predicted(model, labels, ['bee'])[0]
        sample = dict(
            prompt_class=1,
            pred_sem_seg=dict(data=data),
            gt_sem_seg=dict(data=labels[0]),
        )
        metric.process(None, [sample])
        honest = FoldIoUMetric()
        honest.dataset_meta = metric.dataset_meta
        honest.process(None, [sample])
        scores.append(metric.evaluate(1)['oracle_mIoU'])
        assert scores[-1] >= honest.evaluate(1)['mIoU']
    assert scores[0] != scores[1]


def test_pairs_do_not_know_each_other() -> None:
    model = build(post_processors=[FUSION])
    both = predicted(model, labels_of(), ['bee', 'dog'])
    alone = predicted(model, labels_of(1), ['bee'])
    assert torch.equal(both[0], alone[0])


@pytest.mark.parametrize('kind', ['ClassPromptedSegmentor', 'ZeroShotEncoderDecoder'])
def test_it_learns(kind: str) -> None:
    model = build(kind).train()
    pairs = kind == 'ClassPromptedSegmentor'
    labels = labels_of()
    labels[:, :, :3] = 255
    names = ['ant', 'cat'] if pairs else [None, None]
    losses = model.loss(images(), samples_of(labels, names))
    total = sum(value for key, value in losses.items() if 'loss' in key)
    total.backward()
    assert total.isfinite()
    assert {key.split('.')[1] for key in losses} == {
        'loss_seg',
        'loss_edge',
        'loss_attention',
        'acc_seg',
    }
    assert all(p.grad is not None for p in model.backbone.parameters())


@pytest.mark.parametrize('mode', ['whole', 'slide'])
def test_all_classes_at_once(mode: str) -> None:
    vote = dict(FUSION, rule='vote', weight=1.0)
    vote.pop('tau')
    size = dict(crop_size=(32, 32), stride=(16, 16)) if mode == 'slide' else {}
    model = build(
        'ZeroShotEncoderDecoder',
        post_processors=[vote],
        test_cfg=dict(mode=mode, return_scores=True, **size),
    )
    (labels,) = predicted(model, labels_of(1), [None])
    assert labels.shape == (1, 40, 48)
    masks = MODELS.build(PROPOSER)(images(1)[0])
    cells = (masks.long() * 2 ** torch.arange(len(masks))[:, None, None]).sum(0)
    for cell in cells.unique():  # each cell has one label
        assert len(labels[0][cells == cell].unique()) == 1
    model.set_classes(['ant', 'fly'])
    assert predicted(model, labels_of(1), [None])[0].max() <= 1


def test_a_foreground_among_many_classes_is_refused_when_it_is_built() -> None:
    two = dict(name='two', classes=['ant', 'bee'], unseen=['bee'])
    with pytest.raises(ConfigError, match='gets labels of 4'):
        build('ZeroShotEncoderDecoder', post_processors=[FUSION])
    model = build('ZeroShotEncoderDecoder', split=two, post_processors=[FUSION])
    with pytest.raises(ConfigError, match='gets labels of 3'):
        model.set_classes(['ant', 'fly', 'bee'])
    assert model.class_names == ('ant', 'bee')


def test_eigensegments_are_proposals_for_any_classifier() -> None:
    model = build(
        'ZeroShotEncoderDecoder',
        decode_head=dict(
            type='ProposalHead',
            proposer=dict(PROPOSER, segments='clusters', num_segments=4),
            region_classifier=dict(type='MaskPoolingClassifier'),
        ),
    )
    (labels,) = predicted(model, labels_of(1), [None])
    masks = MODELS.build(dict(PROPOSER, segments='clusters', num_segments=4))(
        images(1)[0]
    )
    assert all(len(labels[0][mask].unique()) == 1 for mask in masks)


def test_whole_vocabularies_name_by_name() -> None:
    model = build(test_cfg=dict(name_batch_size=3))
    (labels,) = predicted(model, labels_of(1), [None])
    assert labels.shape == (1, 40, 48)
