"""Predictions against a plain computation of the whole order of steps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmseg.structures import SegDataSample

PATCH = 4
KINDS = ('softmax', 'sigmoid', 'logit')
HEADS = {kind: f'Toy{kind.title()}Head' for kind in KINDS}


def resize(maps, size):
    return F.interpolate(maps, size=tuple(size), mode='bilinear', align_corners=False)


def activate(logits, kind):
    if kind == 'softmax':
        return logits.softmax(dim=1)
    return logits.sigmoid() if kind == 'sigmoid' else logits


def reference_scores(model, image, kind, mask_size=None):
    """Scores of all classes of one crop, at once and without chunks; K = Q."""
    height, width = image.shape[-2:]
    maps = model.backbone(image)[0]
    rows = model.current_queries().embeddings
    logits = model.decode_head.factor * torch.einsum('nchw,qc->nqhw', maps, rows)
    covered = (height, width)
    if model.backbone.grid_mode == 'pad':
        covered = tuple(-(-side // PATCH) * PATCH for side in covered)
    if mask_size is None:
        return activate(resize(logits, covered)[..., :height, :width], kind)
    scores = activate(resize(logits, mask_size), kind)
    return resize(scores, covered)[..., :height, :width]


def reference_slide(model, image, kind, crop, stride):
    height, width = image.shape[-2:]
    total = torch.zeros(len(image), len(model.class_names), height, width)
    count = torch.zeros(height, width)
    tops, lefts = [0], [0]
    for starts, length, step, side in (
        (tops, crop[0], stride[0], height),
        (lefts, crop[1], stride[1], width),
    ):
        while starts[-1] + length < side:
            starts.append(min(starts[-1] + step, side - length))
    for top in tops:
        for left in lefts:
            part = (slice(top, top + crop[0]), slice(left, left + crop[1]))
            total[..., part[0], part[1]] += reference_scores(
                model, image[..., part[0], part[1]], kind
            )
            count[part] += 1
    return total / count


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('grid', ['pad', 'floor'])
@pytest.mark.parametrize('mask_size', [None, (9, 7)])
@torch.no_grad()
def test_whole_scores_equal_the_plain_computation(
    make_segmentor, kind, grid, mask_size
):
    model = make_segmentor(
        HEADS[kind], grid=grid, test_cfg=dict(mask_size=mask_size, class_chunk=2)
    )
    image = torch.randn(2, 3, 18, 29)
    expected = reference_scores(model, image, kind, mask_size)
    torch.testing.assert_close(model.encode_decode(image, [{}, {}]), expected)


@torch.no_grad()
def test_padding_to_the_patch_grid_does_not_move_scores(make_segmentor):
    """A patch that the image fills scores the same, whatever was padded beside it."""
    model = make_segmentor('ToyLogitHead')
    image = torch.randn(1, 3, 8, 11)
    padded = F.pad(image, (0, 1))
    torch.testing.assert_close(
        model.encode_decode(image, [{}]), model.encode_decode(padded, [{}])[..., :11]
    )


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('batch', [1, 3, 100])
@torch.no_grad()
def test_slide_scores_equal_the_plain_computation(make_segmentor, kind, batch):
    model = make_segmentor(
        HEADS[kind],
        test_cfg=dict(
            mode='slide', crop_size=(10, 13), stride=(7, 6), slide_batch_size=batch
        ),
    )
    image = torch.randn(2, 3, 21, 30)
    expected = reference_slide(model, image, kind, (10, 13), (7, 6))
    torch.testing.assert_close(model.inference(image, [{}, {}]), expected)


@torch.no_grad()
def test_a_window_larger_than_the_image_is_the_whole_image(make_segmentor):
    model = make_segmentor(
        test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(32, 32))
    )
    image = torch.randn(1, 3, 9, 30)
    torch.testing.assert_close(
        model.slide_inference(image, [{}]), model.encode_decode(image, [{}])
    )


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@torch.no_grad()
def test_streamed_label_maps_equal_those_of_all_scores(make_segmentor, data):
    kind = data.draw(st.sampled_from(KINDS))
    height, width = data.draw(st.integers(1, 33)), data.draw(st.integers(1, 33))
    test_cfg = dict(
        class_chunk=data.draw(st.integers(1, 4)),
        mask_size=data.draw(st.sampled_from([None, 7, (11, 5)])),
    )
    if data.draw(st.booleans()):
        crop = data.draw(st.integers(5, 20))
        test_cfg |= dict(mode='slide', crop_size=(crop, crop), stride=(5, 4))
    model = make_segmentor(
        HEADS[kind],
        out_global=True,
        calibrators=[
            dict(type='ImageLevelGate', weight=0.5, space='logit'),
            dict(type='SeenShift', shift=0.05, space='score'),
        ],
        test_cfg=test_cfg,
    )
    if data.draw(st.booleans()):
        model.set_classes(['ant', 'owl|ape|rat', 'dog', 'fox|pig', 'hen', 'yak'])
    image = torch.randn(2, 3, height, width)
    meta = dict(
        ori_shape=(data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))),
        flip=True,
        flip_direction=data.draw(
            st.sampled_from(['horizontal', 'vertical', 'diagonal'])
        ),
    )
    label_maps = {}
    for return_scores in (True, False):
        model.test_cfg['return_scores'] = return_scores
        samples = [SegDataSample(metainfo=meta) for _ in image]
        results = model.predict(image, samples)
        assert all(('seg_logits' in r) == return_scores for r in results)
        label_maps[return_scores] = torch.stack([r.pred_sem_seg.data for r in results])
    assert torch.equal(label_maps[True], label_maps[False])


@torch.no_grad()
def test_a_softmax_over_synonyms_gives_a_class_its_best_query(make_segmentor):
    """Softmax over all queries at full resolution, then the maximum of each class."""
    model = make_segmentor(test_cfg=dict(class_chunk=1))
    model.set_classes(['ant|owl|ape', 'cat', 'fox|pig'])
    image = torch.randn(1, 3, 10, 17)
    maps = model.backbone(image)[0]
    rows = model.current_queries().embeddings
    logits = model.decode_head.factor * torch.einsum('nchw,qc->nqhw', maps, rows)
    per_query = resize(logits, (12, 20))[..., :10, :17].softmax(dim=1)
    expected = torch.stack(
        [
            per_query[:, 0:3].amax(dim=1),
            per_query[:, 3],
            per_query[:, 4:6].amax(dim=1),
        ],
        dim=1,
    )
    torch.testing.assert_close(model.encode_decode(image, [{}]), expected)


@torch.no_grad()
def test_reduction_by_sum_adds_the_probabilities_of_synonyms(make_segmentor):
    model = make_segmentor(dict(type='ToySoftmaxHead', query_reduce='sum'))
    model.set_classes(['ant|owl|ape', 'cat'])
    image = torch.randn(1, 3, 8, 8)
    maps = model.backbone(image)[0]
    rows = model.current_queries().embeddings
    logits = model.decode_head.factor * torch.einsum('nchw,qc->nqhw', maps, rows)
    per_query = resize(logits, (8, 8)).softmax(dim=1)
    expected = torch.stack([per_query[:, :3].sum(dim=1), per_query[:, 3]], dim=1)
    torch.testing.assert_close(model.encode_decode(image, [{}]), expected)


@torch.no_grad()
def test_calibrators_run_before_and_after_the_activation(make_segmentor):
    model = make_segmentor(
        calibrators=[
            dict(type='SeenShift', shift=0.3, space='score'),
            dict(type='SeenShift', shift=0.7, space='logit'),
        ],
        test_cfg=dict(class_chunk=2),
    )
    image = torch.randn(1, 3, 8, 8)
    seen = torch.tensor([1.0, 0, 1, 0, 1])[:, None, None]
    maps = model.backbone(image)[0]
    rows = model.current_queries().embeddings
    logits = model.decode_head.factor * torch.einsum('nchw,qc->nqhw', maps, rows)
    expected = (resize(logits, (8, 8)) - 0.7 * seen).softmax(dim=1) - 0.3 * seen
    torch.testing.assert_close(model.encode_decode(image, [{}]), expected)


@torch.no_grad()
def test_a_calibrated_class_shifts_all_its_synonyms_in_the_softmax(make_segmentor):
    model = make_segmentor(
        calibrators=[dict(type='SeenShift', shift=2.0, space='logit')]
    )
    model.set_classes(['ant|owl', 'fox'], unseen=['fox'])
    image = torch.randn(1, 3, 8, 8)
    maps = model.backbone(image)[0]
    rows = model.current_queries().embeddings
    logits = model.decode_head.factor * torch.einsum('nchw,qc->nqhw', maps, rows)
    shifted = resize(logits, (8, 8)) - torch.tensor([2.0, 2.0, 0.0])[:, None, None]
    per_query = shifted.softmax(dim=1)
    expected = torch.stack([per_query[:, :2].amax(dim=1), per_query[:, 2]], dim=1)
    torch.testing.assert_close(model.encode_decode(image, [{}]), expected)


@torch.no_grad()
def test_each_window_is_gated_by_its_own_global_token(make_segmentor):
    model = make_segmentor(
        'ToyLogitHead',
        out_global=True,
        calibrators=[dict(type='ImageLevelGate', weight=1.0)],
        test_cfg=dict(mode='slide', crop_size=(8, 8), stride=(8, 8)),
    )
    image = torch.randn(2, 3, 8, 16)
    scores = model.inference(image, [{}, {}])
    for columns in (slice(0, 8), slice(8, 16)):
        torch.testing.assert_close(
            scores[..., columns], model.encode_decode(image[..., columns], [{}, {}])
        )


@torch.no_grad()
def test_padding_and_flip_are_undone(make_segmentor):
    model = make_segmentor('ToyLogitHead')
    scores = torch.randn(1, 5, 12, 15)
    meta = dict(
        ori_shape=(7, 9),
        img_padding_size=(1, 5, 2, 3),
        flip=True,
        flip_direction='horizontal',
    )
    sample = model.postprocess_result(scores, [SegDataSample(metainfo=meta)])[0]
    expected = scores[0, :, 2:9, 1:10].flip(2)
    assert torch.equal(sample.seg_logits.data, expected)
    assert torch.equal(sample.pred_sem_seg.data, expected.argmax(dim=0)[None])


@torch.no_grad()
def test_scores_are_resized_to_the_original_image(make_segmentor):
    model = make_segmentor()
    scores = torch.rand(1, 5, 12, 15)
    sample = SegDataSample(metainfo=dict(ori_shape=(31, 20)))
    result = model.postprocess_result(scores, [sample])[0]
    torch.testing.assert_close(result.seg_logits.data, resize(scores, (31, 20))[0])


@pytest.mark.parametrize('return_scores', [True, False])
@torch.no_grad()
def test_images_of_a_batch_keep_their_own_sizes(make_segmentor, return_scores):
    model = make_segmentor(test_cfg=dict(return_scores=return_scores))
    samples = [SegDataSample(metainfo=dict(ori_shape=s)) for s in ((5, 6), (20, 9))]
    results = model.predict(torch.randn(2, 3, 12, 12), samples)
    assert [tuple(r.pred_sem_seg.shape) for r in results] == [(5, 6), (20, 9)]


@pytest.mark.parametrize('return_scores', [True, False])
@torch.no_grad()
def test_without_samples_the_input_is_the_original(make_segmentor, return_scores):
    model = make_segmentor(test_cfg=dict(return_scores=return_scores))
    image = torch.randn(2, 3, 10, 9)
    results = model.predict(image)
    expected = model.encode_decode(image, [{}, {}]).argmax(dim=1)
    assert torch.equal(torch.cat([r.pred_sem_seg.data for r in results]), expected)


@pytest.mark.parametrize('return_scores', [True, False])
@torch.no_grad()
def test_one_class_gives_the_mask_of_scores_above_the_threshold(
    make_segmentor, return_scores
):
    model = make_segmentor(
        'ToySigmoidHead', test_cfg=dict(return_scores=return_scores, score_thr=0.6)
    )
    model.set_classes(['owl'])
    image = torch.randn(1, 3, 16, 16)
    mask = model.encode_decode(image, [{}]) >= 0.6
    assert 0 < mask.sum() < mask.numel()
    labels = model.predict(image)[0].pred_sem_seg.data
    assert labels.dtype == torch.long
    assert torch.equal(labels, mask[0].long())


@pytest.mark.parametrize('return_scores', [True, False])
@torch.no_grad()
def test_more_classes_than_a_byte_counts(make_segmentor, return_scores):
    model = make_segmentor(test_cfg=dict(return_scores=return_scores))
    model.set_classes([f'name {index}' for index in range(300)])
    image = torch.randn(1, 3, 32, 32)
    labels = model.predict(image)[0].pred_sem_seg.data
    expected = model.encode_decode(image, [{}]).argmax(dim=1)
    assert labels.max() > 255
    assert torch.equal(labels, expected)


@pytest.mark.parametrize('return_scores', [True, False])
@torch.no_grad()
def test_improbable_pixels_become_background(make_segmentor, return_scores):
    model = make_segmentor(
        dict(type='DenseTextHead', scale=5.0, prob_thd=0.4, bg_index=3),
        test_cfg=dict(return_scores=return_scores),
    )
    image = torch.randn(1, 3, 16, 16)
    best, labels = model.encode_decode(image, [{}]).max(dim=1)
    assert 0 < (best < 0.4).sum() < best.numel()
    labels[best < 0.4] = 3
    assert torch.equal(model.predict(image)[0].pred_sem_seg.data, labels)


@torch.no_grad()
def test_a_head_that_only_declares_queries_is_enough(make_segmentor):
    model = make_segmentor(
        dict(type='ToyPlainHead', in_channels=6, channels=6, num_classes=3),
    )
    image = torch.randn(1, 3, 9, 10)
    maps = model.backbone(image)[0]
    rows = model.current_queries().embeddings
    logits = torch.einsum('nchw,qc->nqhw', maps, rows)
    expected = resize(logits, (12, 12))[..., :9, :10].sigmoid()
    torch.testing.assert_close(model.encode_decode(image, [{}]), expected)


@torch.no_grad()
def test_tensor_mode_returns_class_logits_at_patch_resolution(make_segmentor):
    model = make_segmentor()
    model.set_classes(['ant|owl', 'cat'])
    output = model(torch.randn(1, 3, 10, 17), mode='tensor')
    assert output.shape == (1, 2, 3, 5)


@torch.no_grad()
def test_metainfo_of_the_caller_is_not_changed(make_segmentor):
    model = make_segmentor(test_cfg=dict(mode='slide', crop_size=(8, 8), stride=(8, 8)))
    metas = [dict(ori_shape=(16, 16), img_shape=(16, 16))]
    model.inference(torch.randn(1, 3, 16, 16), metas)
    assert metas == [dict(ori_shape=(16, 16), img_shape=(16, 16))]


@torch.no_grad()
def test_bfloat16_autocast_scores_are_float32_and_close(make_segmentor):
    model = make_segmentor('DenseTextHead')
    image = torch.randn(1, 3, 16, 16)
    exact = model.encode_decode(image, [{}])
    with torch.autocast('cpu', torch.bfloat16):
        rough = model.encode_decode(image, [{}])
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.1
