"""Masks with class scores, streamed over the classes, against sums by hand."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads.mask_scores import MaskScores
from zs3_mmseg.models.segmentors import ZeroShotTTAModel
from zs3_mmseg.models.segmentors.inference import (
    MaskSums,
    ScoringRule,
    slide_windows,
)

PATCH = 4
HEAD = Path(__file__).resolve().parents[2] / 'data/tiny_run/two_mask_head.py'


@pytest.fixture(scope='module', autouse=True)
def two_mask_head():
    """Register the toy head of the tools' tests, whose processes do it again."""
    spec = importlib.util.spec_from_file_location('two_mask_head', HEAD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield
    MODELS.module_dict.pop('TwoMaskHead')


@pytest.fixture
def build(make_segmentor):
    def make(head=(), **options):
        return make_segmentor(
            dict(type='TwoMaskHead', embed_dim=6, **dict(head)),
            out_global=True,
            **options,
        )

    return make


def resize(maps, size):
    return F.interpolate(maps, size=tuple(size), mode='bilinear', align_corners=False)


def by_hand(model, image):
    """Scores ``(K, H, W)`` of one image ``(1, 3, H, W)``, pixel sums class by class."""
    maps, token = model.backbone(image)
    queries = model.current_queries()
    found = model.decode_head.query_logits((maps,), queries=queries)
    height, width = image.shape[2:]
    covered = [-(-side // PATCH) * PATCH for side in (height, width)]
    size = model.test_cfg.get('mask_size') or covered
    masks = []
    for mask in found.masks[0]:
        full = resize(mask[None, None], size)[0, 0]
        masks.append(full.sigmoid() if found.mask_kind == 'logit' else full)
    planes = []
    for k in range(queries.num_classes):
        plane, cover = torch.zeros(*size), torch.zeros(*size)
        for m, mask in enumerate(masks):
            weight = 1 if found.weights is None else found.weights[0, m]
            plane += weight * found.class_scores[0, m, k] * mask
            cover += weight * mask
        if found.output == 'log_mean':
            other = resize(found.fallback[:, k : k + 1], size)[0, 0]
            plane = torch.where(cover > 1e-8, (plane / (cover + 1e-8)).log(), other)
        planes.append(plane)
    scores = torch.stack(planes)[None]
    for calibrator in model.calibrators:
        scores = calibrator(scores, queries, token)
    return resize(scores, covered)[0, :, :height, :width]


def by_hand_in_windows(model, image):
    cfg, size = model.test_cfg, tuple(image.shape[2:])
    if cfg.get('mode') != 'slide':
        return by_hand(model, image)
    total, count = 0, torch.zeros(size)
    for top, bottom, left, right in slide_windows(size, cfg.crop_size, cfg.stride):
        part = by_hand(model, image[..., top:bottom, left:right])
        borders = (left, size[1] - right, top, size[0] - bottom)
        total = total + F.pad(part, borders)
        count += F.pad(torch.ones(part.shape[1:]), borders)
    return total / count


def samples_of(image, **meta):
    return [SegDataSample(metainfo=dict(ori_shape=image.shape[2:], **meta))]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
@torch.no_grad()
def test_streamed_sums_equal_those_by_hand(build, data):
    cfg = dict(class_chunk=data.draw(st.integers(1, 6)))
    cfg['mask_size'] = data.draw(st.sampled_from([None, (9, 11)]))
    if data.draw(st.booleans()):
        cfg |= dict(mode='slide', crop_size=(10, 9), stride=(7, 5))
    head = dict(
        num_masks=data.draw(st.integers(0, 2)),
        mask_kind=data.draw(st.sampled_from(['logit', 'prob'])),
        output=data.draw(st.sampled_from(['sum', 'log_mean'])),
    )
    calibrators = data.draw(
        st.lists(
            st.sampled_from(
                [
                    dict(type='SeenShift', shift=0.3, space='score'),
                    dict(type='ImageLevelGate', weight=0.1, space='score'),
                ]
            ),
            max_size=2,
        )
    )
    model = build(head, test_cfg=cfg, calibrators=calibrators)
    names = data.draw(st.sampled_from([None, ['owl'], ['ant|owl', 'bee', 'fox|hen']]))
    if names is not None:
        model.set_classes(names)
    size = data.draw(st.integers(5, 21)), data.draw(st.integers(5, 21))
    image = torch.randn(1, 3, *size)
    expected = by_hand_in_windows(model, image)
    (whole,) = model.predict(image, samples_of(image))
    torch.testing.assert_close(whole.seg_logits.data, expected, rtol=1e-4, atol=1e-5)
    scores = whole.seg_logits.data
    labels = scores.argmax(dim=0) if len(scores) > 1 else (scores[0] >= 0.5).long()
    assert torch.equal(whole.pred_sem_seg.data[0], labels)
    for returned in (False, 'groups'):
        model.test_cfg['return_scores'] = returned
        (streamed,) = model.predict(image, samples_of(image))
        assert torch.equal(streamed.pred_sem_seg.data[0], labels)
    for group, seen in enumerate((True, False)):
        members = [i for i, own in enumerate(model.vocabulary.seen) if own == seen]
        if members:
            best = scores[members].amax(dim=0)
            assert torch.equal(streamed.group_best.scores[group], best)


def test_masks_of_a_head_stay_as_they_are():
    masks = torch.randn(1, 2, 4, 5)
    kept, scores = masks.clone(), torch.rand(1, 2, 1)
    queries = ClassQueries(torch.ones(1, 1), torch.tensor([0]), torch.tensor([True]))
    rule = ScoringRule('mask_sum', 'max', (), None, False, 1)
    for size in ((4, 5), (3, 5)):
        sums = MaskSums(MaskScores(masks, scores), queries, None, size, (4, 5), rule)
        expected = (scores[0, :, :, None] * kept[0].sigmoid()).sum(dim=0)
        torch.testing.assert_close(sums(slice(0, 1))[0, 0], expected[: size[0]])
        assert torch.equal(masks, kept)


@torch.no_grad()
def test_augmented_views_are_averaged_as_they_are(build):
    model = build(
        dict(output='log_mean'),
        data_preprocessor=dict(type='mmseg.SegDataPreProcessor'),
    )
    image = torch.rand(3, 8, 12)
    meta = dict(ori_shape=(8, 12), img_path='a.png')
    flipped = dict(meta, flip=True, flip_direction='horizontal')
    data = dict(
        inputs=[[image], [image.flip(2)]],
        data_samples=[[SegDataSample(metainfo=m)] for m in (meta, flipped)],
    )
    (merged,) = ZeroShotTTAModel(model).test_step(data)
    plain, mirrored = (
        by_hand(model, view[None]) for view in (image, image.flip(2).contiguous())
    )
    expected = (plain + mirrored.flip(2)) / 2
    torch.testing.assert_close(merged.seg_logits.data, expected)
    assert torch.equal(merged.pred_sem_seg.data[0], expected.argmax(dim=0))


@torch.no_grad()
def test_where_no_mask_lies_the_fallback_scores(build, monkeypatch):
    """Half an image under one hard mask; the other half has only the fallback."""
    model = build(grid='floor')
    masks = torch.zeros(1, 1, 8, 16)
    masks[..., :8] = 1
    classes = torch.tensor([[[0.1, 0.2, 0.3, 0.4, 0.0]]])
    found = MaskScores(
        masks,
        classes,
        mask_kind='prob',
        weights=torch.full((1, 1), 0.5),
        fallback=torch.arange(5.0).view(1, 5, 1, 1).expand(1, 5, 2, 4),
        output='log_mean',
    )
    monkeypatch.setattr(model.decode_head, 'query_logits', lambda *_, **__: found)
    scores = model.encode_decode(torch.randn(1, 3, 8, 16), [{}])[0]
    assert scores.isfinite().all()
    left, right = scores[..., :8], scores[..., 8:]
    expected = classes[0, 0, :, None, None].log().expand_as(left)
    torch.testing.assert_close(left[:4], expected[:4])
    assert (left[4] < math.log(1e-30)).all()
    fallback = torch.arange(5.0)[:, None, None].expand_as(right)
    torch.testing.assert_close(right, fallback)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(class_scores=torch.rand(1, 3, 5)), 'do not fit masks'),
        (dict(mask_kind='hard'), 'mask_kind=.hard. is none of'),
        (dict(output='mean'), 'output=.mean. is none of'),
        (dict(weights=torch.rand(1, 2)), "belong to output='log_mean'"),
        (dict(weights=torch.rand(1, 3), output='log_mean'), 'weights of shape'),
    ],
)
def test_masks_that_do_not_fit_are_refused(options, message):
    fitting = dict(masks=torch.rand(1, 2, 4, 4), class_scores=torch.rand(1, 2, 5))
    with pytest.raises(ValueError, match=message):
        MaskScores(**(fitting | options))


@pytest.mark.parametrize('output', ['sum', 'log_mean'])
@torch.no_grad()
def test_masks_are_summed_at_the_size_of_the_file(build, monkeypatch, output):
    model = build(test_cfg=dict(mask_sums='original', class_chunk=2))
    fallback = torch.rand(2, 5, 4, 4) if output == 'log_mean' else None
    found = MaskScores(
        torch.rand(2, 2, 4, 4), torch.rand(2, 2, 5), 'prob', None, fallback, output
    )
    monkeypatch.setattr(model, '_head_scores', lambda *given: found)
    image = torch.randn(2, 3, 15, 13)
    sizes = [(20, 31), (9, 8)]
    samples = [SegDataSample(metainfo=dict(ori_shape=size)) for size in sizes]
    for index, result in enumerate(model.predict(image, samples)):
        own = found.split(1)[index]
        full = resize(own.masks, (16, 16))[..., :15, :13]
        masks = resize(full, sizes[index])[0]
        sums = torch.einsum('mk,mhw->khw', own.class_scores[0], masks)
        if output == 'log_mean':
            sums = (sums / (masks.sum(dim=0) + 1e-8)).log()
        torch.testing.assert_close(result.seg_logits.data, sums)


def test_calibrators_of_logits_are_refused_at_the_start(build):
    with pytest.raises(ValueError, match=r"SeenShift\(space='logit'\).*sums of masks"):
        build(calibrators=[dict(type='SeenShift', space='logit')])


@pytest.mark.parametrize(
    ('found', 'message'),
    [
        (torch.rand(1, 5, 4, 4), "'mask_sum' and MaskScores belong together"),
        (
            MaskScores(torch.rand(1, 2, 4, 4), torch.rand(1, 2, 7)),
            'MaskScores of 7 classes, and there are 5',
        ),
    ],
)
def test_results_that_are_not_announced_are_refused(build, monkeypatch, found, message):
    model = build()
    monkeypatch.setattr(model.decode_head, 'query_logits', lambda *_, **__: found)
    with pytest.raises(ValueError, match=message), torch.no_grad():
        model.encode_decode(torch.randn(1, 3, 16, 16), [{}])
