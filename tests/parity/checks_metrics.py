"""Golden check of the seen/unseen scores, in both published conventions."""

from __future__ import annotations

import numpy as np
import pytest
from registry import GoldenFile, check
from torch import Tensor

from zs3_mmseg.evaluation.counters import count_pixels
from zs3_mmseg.evaluation.scores import class_scores, gzsl_scores
from zs3_mmseg.utils.labels import IGNORE_INDEX

_ZS3 = {
    **{'PA': 'aAcc', 'MA': 'mAcc', 'mIoU': 'mIoU', 'FWIoU': 'fwIoU'},
    **{'hPA': 'haAcc', 'hMA': 'hAcc', 'hIoU': 'hIoU'},
}
_CAGNET = {
    **{'Overall Acc': 'aAcc', 'Mean Acc': 'mAcc', 'Mean IoU': 'mIoU'},
    'FreqW Acc': 'fwIoU',
}
_HARMONIC = {'aAcc': 'haAcc', 'mAcc': 'hAcc', 'mIoU': 'hIoU', 'fwIoU': 'hfwIoU'}


@check('gzsl_metrics')
def gzsl_metrics(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    confusion = _confusion(tensors, config['num_classes'])
    assert np.array_equal(confusion, tensors['f64.confusion'].numpy())
    tolerance = golden.json['tolerance']['atol']

    zero = gzsl_scores(confusion, config['seen'], config['unseen'], absent='zero')
    for key, value in golden.json['zs3_scores'].items():
        name, _, group = key.partition('_')
        ours = zero[f'{_ZS3[name]}_{group}' if group else _ZS3[name]]
        assert ours == pytest.approx(value, abs=tolerance), key

    left_out = gzsl_scores(confusion, config['seen'], config['unseen'], absent='nan')
    for key, value in golden.json['cagnet_scores'].items():
        base = next(name for name in _CAGNET if key.startswith(name))
        group = key.removeprefix(base).strip().lower()
        name = _CAGNET[base]
        name = _HARMONIC[name] if group == 'harmonic' else f'{name}_{group}'.strip('_')
        assert left_out[name] == pytest.approx(value, abs=tolerance), key

    iou, accuracy = class_scores(confusion, absent='nan')
    for ours, keys in (
        (iou, ('zs3_iou_by_class', 'cagnet_iou_by_class')),
        (accuracy, ('zs3_acc_by_class',)),
    ):
        for key in keys:
            recorded = np.array(golden.json[key], dtype=np.float64)  # None is NaN
            np.testing.assert_allclose(ours, recorded, rtol=0, atol=tolerance)


def _confusion(tensors: dict[str, Tensor], num_classes: int) -> np.ndarray:
    """Count the recorded maps as the metric does."""
    total = np.zeros((num_classes, num_classes), dtype=np.int64)
    for truth, prediction in zip(tensors['gt'], tensors['pred'], strict=True):
        count_pixels(prediction, truth, num_classes, IGNORE_INDEX).add_to(total)
    return total
