"""Averaging over views, against plain means and against mmseg's own model."""

from __future__ import annotations

import pytest
import torch

from mmengine.structures import PixelData
from mmseg.models.segmentors import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from zs3_mmseg.models.segmentors import MultiScaleWindowTTAModel, ZeroShotTTAModel


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(0)

    def make(num_classes):
        samples = []
        for _ in range(3):
            sample = SegDataSample(metainfo=dict(img_path='a.png'))
            scores = torch.rand(num_classes, 6, 7, generator=generator)
            sample.seg_logits = PixelData(data=scores)
            sample.gt_sem_seg = PixelData(data=torch.zeros(1, 6, 7).long())
            samples.append(sample)
        return samples

    return make


@pytest.mark.parametrize('head', ['ToySoftmaxHead', 'ToySigmoidHead'])
def test_scores_are_averaged_as_they_come(make_segmentor, views, head):
    model = ZeroShotTTAModel(make_segmentor(head))
    samples = views(5)
    expected = torch.stack([sample.seg_logits.data for sample in samples]).mean(dim=0)
    (merged,) = model.merge_preds([samples])
    torch.testing.assert_close(merged.seg_logits.data, expected)
    assert torch.equal(merged.pred_sem_seg.data, expected.argmax(dim=0)[None])
    assert merged.img_path == 'a.png'
    assert 'gt_sem_seg' in merged


def test_logits_are_averaged_as_mmseg_does(make_segmentor, views):
    segmentor = make_segmentor('ToyLogitHead')
    samples = views(5)
    copies = [sample.clone() for sample in samples]
    (ours,) = ZeroShotTTAModel(segmentor).merge_preds([samples])
    (theirs,) = SegTTAModel(segmentor).merge_preds([copies])
    assert torch.equal(ours.pred_sem_seg.data, theirs.pred_sem_seg.data)


def test_one_class_is_the_mask_of_mean_scores(make_segmentor, views):
    segmentor = make_segmentor('ToySigmoidHead')
    segmentor.set_classes(['owl'])
    samples = views(1)
    mean = torch.stack([sample.seg_logits.data for sample in samples]).mean(dim=0)
    (merged,) = ZeroShotTTAModel(segmentor).merge_preds([samples])
    assert torch.equal(merged.pred_sem_seg.data, (mean >= 0.5).long())


def test_flipped_views_of_a_symmetric_model_agree(make_segmentor):
    """The whole path: data as ``TestTimeAug`` and ``pseudo_collate`` give them."""
    segmentor = make_segmentor(
        'ToySigmoidHead', data_preprocessor=dict(type='mmseg.SegDataPreProcessor')
    )
    with torch.no_grad():
        weight = segmentor.backbone.conv.weight
        weight.copy_((weight + weight.flip(3)) / 2)
    image = torch.rand(3, 8, 12)
    plain = SegDataSample(metainfo=dict(ori_shape=(8, 12), img_path='a.png'))
    flipped = SegDataSample(
        metainfo=dict(
            ori_shape=(8, 12),
            img_path='a.png',
            flip=True,
            flip_direction='horizontal',
        )
    )
    data = dict(inputs=[[image], [image.flip(2)]], data_samples=[[plain], [flipped]])
    with torch.no_grad():
        (merged,) = ZeroShotTTAModel(segmentor).test_step(data)
        expected = segmentor.encode_decode(image[None], [{}])[0]
    torch.testing.assert_close(merged.seg_logits.data, expected)


@pytest.mark.parametrize('returned', [False, 'groups'])
def test_a_segmentor_without_scores_is_refused(make_segmentor, returned):
    segmentor = make_segmentor(test_cfg=dict(return_scores=returned))
    with pytest.raises(ValueError, match='return_scores'):
        ZeroShotTTAModel(segmentor)


def test_two_logits_of_a_pair_are_no_probabilities(make_segmentor, views):
    """One view is sure of background and two are for foreground, barely."""
    samples = views(2)
    for sample, foreground in zip(samples, (-20.0, 3.0, 3.0), strict=True):
        sample.set_metainfo(dict(prompt_name='ant'))
        sample.seg_logits.data[0], sample.seg_logits.data[1] = 0.0, foreground
    (merged,) = ZeroShotTTAModel(make_segmentor('ToySigmoidHead')).merge_preds(
        [samples]
    )
    expected = torch.tensor([-20.0, 3.0, 3.0]).sigmoid().mean()
    torch.testing.assert_close(merged.seg_logits.data[1, 0, 0], expected)
    assert (merged.pred_sem_seg.data == 1).all()


def one_view(size=(24, 40)):
    image = torch.randint(0, 255, (3, *size), dtype=torch.uint8)
    sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=size))
    return dict(inputs=[[image]], data_samples=[[sample]])


PREPROCESSOR = dict(
    type='SegDataPreProcessor', mean=[100.0] * 3, std=[50.0] * 3, bgr_to_rgb=True
)


@pytest.mark.parametrize('summed', ['logit', 'score'])
def test_windows_over_scales_are_those_of_one_pass(make_segmentor, summed):
    """With one scale, no flip and a window as large as the image."""
    segmentor = make_segmentor('ToySoftmaxHead').eval()
    segmentor.data_preprocessor = MODELS.build(
        dict(PREPROCESSOR, test_cfg=dict(size_divisor=32))
    )
    model = MultiScaleWindowTTAModel(
        segmentor,
        base_size=40,
        crop_size=40,
        stride=8,
        scales=(1.0,),
        flip=False,
        summed=summed,
    )
    data = one_view((40, 40))
    with torch.no_grad():
        (found,) = model.test_step(data)
        image = (data['inputs'][0][0].flip(0).float() - 100) / 50
        expected = segmentor.encode_decode(image[None], [{}])[0]
    scores = found.seg_logits.data
    if summed == 'logit':
        scores = scores.softmax(dim=0)
    torch.testing.assert_close(scores, expected)
    assert found.pred_sem_seg.data.shape == (1, 40, 40)


def test_mean_scores_over_scales_and_flips_are_probabilities(make_segmentor):
    segmentor = make_segmentor('ToySoftmaxHead').eval()
    segmentor.data_preprocessor = MODELS.build(PREPROCESSOR)
    model = MultiScaleWindowTTAModel(
        segmentor, base_size=40, crop_size=32, stride=24, scales=(0.5, 1.0, 1.75)
    )
    with torch.no_grad():
        (found,) = model.test_step(one_view())
    total = found.seg_logits.data.sum(dim=0)
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(summed='logits'), 'tta_model.summed must be one of'),
        (dict(stride=481), 'stride=481 is larger than crop_size=480'),
        (dict(scales=()), 'scales above 0'),
        (dict(scales=(1.0, 0.0)), 'scales above 0'),
        (dict(base_size=0), 'scales above 0'),
    ],
)
def test_wrong_options_of_windows_are_named(make_segmentor, options, message):
    with pytest.raises(ValueError, match=message):
        MultiScaleWindowTTAModel(make_segmentor('ToySoftmaxHead'), **options)


def test_windows_need_one_view_and_logits_no_calibrators(make_segmentor):
    segmentor = make_segmentor(
        'ToySoftmaxHead', calibrators=[dict(type='SeenShift', shift=0.1)]
    )
    with pytest.raises(ValueError, match=r'model\.calibrators=\[\]'):
        MultiScaleWindowTTAModel(segmentor, summed='logit')
    model = MultiScaleWindowTTAModel(segmentor)
    data = {key: value * 2 for key, value in one_view().items()}
    with pytest.raises(ValueError, match='make one view, not 2'):
        model.test_step(data)


class Views:
    """Two images in two views, one of them mirrored, or in one view."""

    def __init__(self, augmented):
        self.augmented = augmented
        generator = torch.Generator().manual_seed(4)
        self.images = torch.rand(2, 3, 8, 12, generator=generator)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        views = [self.images[index], self.images[index].flip(2)]
        samples = [
            SegDataSample(metainfo=dict(ori_shape=(8, 12), img_shape=(8, 12)))
            for _ in views
        ]
        if self.augmented:
            return dict(inputs=views, data_samples=samples)
        return dict(inputs=views[0], data_samples=samples[0])


def test_constants_are_learned_from_every_view(make_segmentor):
    def mass_of(augmented, flipped=False):
        model = make_segmentor(
            calibrators=[dict(type='UnseenMassMatch', mass=0.3)],
            data_preprocessor=dict(type='mmseg.SegDataPreProcessor'),
        )
        images = Views(augmented)
        if flipped:
            images.images = torch.cat([images.images, images.images.flip(3)])
        model.fit_calibrators(images)
        return model.calibrators[0].constants

    # The views of two images are four images.
    assert mass_of(augmented=True) == mass_of(augmented=False, flipped=True)
    assert mass_of(augmented=True) != mass_of(augmented=False)


def test_windows_of_logits_may_be_calibrated_before_they_are_averaged(make_segmentor):
    """What scales and shifts a class does so before the mean, or after it."""
    slide = dict(mode='slide', crop_size=(8, 8), stride=(4, 4))
    chain = [
        dict(type='SeenShift', shift=0.7, space='logit'),
        dict(type='GroupTemperature', seen=2.0, unseen=0.5),
    ]
    plain = make_segmentor('ToyLogitHead', test_cfg=slide)
    calibrated = make_segmentor('ToyLogitHead', test_cfg=slide, calibrators=chain)
    image = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(5))
    metas = [dict(ori_shape=(12, 16), img_shape=(12, 16))]
    with torch.no_grad():
        after = plain.encode_decode(image, metas)
        for calibrator in calibrated.calibrators:
            after = calibrator(after, plain.current_queries())
        before = calibrated.encode_decode(image, metas)
    torch.testing.assert_close(before, after)
