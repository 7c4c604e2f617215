"""The best class of each group, streamed, and what a metric makes of it."""

from __future__ import annotations

import pytest
import torch

from zs3_mmseg.evaluation import ZeroShotIoUMetric
from zs3_mmseg.models.calibrators import SeenShift

SEEN, UNSEEN = [0, 2, 4], [1, 3]
META = dict(
    classes=('ant', 'bee', 'cat', 'dog', 'eel'), seen=SEEN, unseen=UNSEEN, split='toy'
)


@pytest.mark.parametrize('head', ['ToySoftmaxHead', 'ToySigmoidHead'])
@torch.no_grad()
def test_streamed_groups_equal_those_of_all_scores(make_segmentor, head):
    test_cfg = dict(class_chunk=2)
    image = torch.randn(2, 3, 18, 29)
    every = make_segmentor(head, test_cfg=test_cfg).predict(image)
    few = make_segmentor(head, test_cfg=dict(test_cfg, return_scores='groups'))
    for whole, streamed in zip(every, few.predict(image), strict=True):
        assert 'seg_logits' not in streamed
        assert torch.equal(whole.pred_sem_seg.data, streamed.pred_sem_seg.data)
        for group, members in enumerate((SEEN, UNSEEN)):
            best = whole.seg_logits.data[members].max(dim=0)
            assert torch.equal(streamed.group_best.scores[group], best.values)
            classes = torch.tensor(members)[best.indices]
            assert torch.equal(streamed.group_best.classes[group], classes)


@torch.no_grad()
def test_without_unseen_names_their_group_is_empty(make_segmentor):
    model = make_segmentor(test_cfg=dict(return_scores='groups'))
    model.set_classes(['ant', 'cat'], unseen=[])
    (sample,) = model.predict(torch.randn(1, 3, 8, 8))
    assert (sample.group_best.classes[1] == -1).all()
    assert sample.group_best.scores[1].isneginf().all()


@torch.no_grad()
def test_sweep_gives_what_a_calibrator_with_this_shift_gives(
    make_segmentor, make_samples
):
    image, truth = torch.randn(3, 3, 20, 26), torch.randint(0, 5, (3, 31, 17))
    meta = dict(ori_shape=(31, 17), img_shape=(20, 26), pad_shape=(20, 26))

    def evaluate(model, **options):
        metric = ZeroShotIoUMetric(**options)
        metric.dataset_meta = META
        samples = model.predict(image, make_samples(truth, **meta))
        metric.process(None, [sample.to_dict() for sample in samples])
        return metric.evaluate(3)

    slide = dict(mode='slide', crop_size=(12, 12), stride=(8, 8), class_chunk=2)
    shift = 0.3
    shifted = make_segmentor(test_cfg=slide, calibrators=[SeenShift(shift)])
    plain = make_segmentor(test_cfg=dict(slide, return_scores='groups'))
    found = evaluate(plain, gamma_sweep=[shift])
    assert found['oracle_hIoU'] == pytest.approx(evaluate(shifted)['hIoU'])
    assert found['oracle_hIoU'] != pytest.approx(found['hIoU'])
