"""Wrong test options are named before anything runs."""

from __future__ import annotations

import pytest
import torch

from zs3_mmseg.models.segmentors import InferenceOptions


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(mode='tiles'), 'test_cfg.mode'),
        (dict(mode='slide'), 'crop_size and test_cfg.stride'),
        (dict(mode='slide', crop_size=(8, 8), stride=(8, 9)), 'left out'),
        (dict(mode='slide', crop_size=(8,), stride=(8, 9)), 'test_cfg.crop_size'),
        (dict(mask_size=0), 'test_cfg.mask_size'),
        (dict(class_chunk=0), 'test_cfg.class_chunk'),
        (dict(slide_batch_size=1.5), 'test_cfg.slide_batch_size'),
        (dict(return_scores='best'), 'test_cfg.return_scores'),
        (dict(mask_sums='image'), 'test_cfg.mask_sums'),
        (dict(mask_sums='original', mask_size=8), "set test_cfg.mode='whole'"),
    ],
)
def test_wrong_options_are_named(cfg, message):
    with pytest.raises(ValueError, match=message):
        InferenceOptions.from_cfg(cfg)


def test_single_ints_mean_squares_and_foreign_keys_are_left_alone():
    options = InferenceOptions.from_cfg(
        dict(mode='slide', crop_size=9, stride=[4, 5], foreign=3)
    )
    assert (options.crop_size, options.stride) == ((9, 9), (4, 5))


def test_a_segmentor_checks_them_when_built(make_segmentor):
    with pytest.raises(ValueError, match=r'test_cfg\.mode'):
        make_segmentor(test_cfg=dict(mode='tiles'))
    with pytest.raises(ValueError, match='for heads that find masks first'):
        make_segmentor(test_cfg=dict(mask_sums='original'))


def test_options_follow_a_test_cfg_that_is_changed_or_replaced(make_segmentor):
    model = make_segmentor(test_cfg=dict(class_chunk=2))
    image = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert 'seg_logits' in model.predict(image)[0]
        model.test_cfg.return_scores = False
        assert 'seg_logits' not in model.predict(image)[0]
        model.test_cfg = dict(mode='slide', crop_size=4, stride=4)
        assert 'seg_logits' in model.predict(image)[0]
        model.test_cfg['mode'] = 'tiles'
        with pytest.raises(ValueError, match=r'test_cfg\.mode'):
            model.predict(image)
