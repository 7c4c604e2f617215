import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from zs3_mmseg.evaluation import FoldIoUMetric, ZeroShotIoUMetric
from zs3_mmseg.evaluation.scores import class_scores, gzsl_scores, harmonic_mean

# The worked example of the ZS3Net notes: background, seen, unseen, seen but absent.
EXAMPLE = np.array([[50, 5, 3, 2], [4, 30, 6, 0], [10, 8, 12, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize(
    ('absent', 'expected'),
    [
        ('zero', dict(mAcc=0.4958, mAcc_seen=0.5278, mAcc_unseen=0.4)),
        ('nan', dict(mAcc=0.6611, mAcc_seen=0.7917, mAcc_unseen=0.4)),
    ],
)
def test_worked_example(absent: str, expected: dict[str, float]) -> None:
    scores = gzsl_scores(EXAMPLE, [0, 1, 3], [2], absent)
    expected = expected | dict(
        aAcc=0.7077,
        aAcc_seen=0.8,
        aAcc_unseen=0.4,
        mIoU=0.3874,
        mIoU_seen=0.4139,
        mIoU_unseen=0.3077,
        hIoU=0.3530,
    )
    for key, value in expected.items():
        assert scores[key] == pytest.approx(value, abs=5e-5), key


def test_class_predicted_but_not_there_has_iou_zero_and_no_accuracy() -> None:
    iou, accuracy = class_scores(EXAMPLE, 'nan')
    assert iou[3] == 0
    assert math.isnan(accuracy[3])


@given(
    npst.arrays(np.int64, (5, 5), elements=st.integers(0, 3)),
    st.permutations(range(5)),
    st.sampled_from(['nan', 'zero']),
)
def test_order_of_classes_changes_nothing(
    confusion: np.ndarray, order: list[int], absent: str
) -> None:
    moved = confusion[np.ix_(order, order)]
    before = gzsl_scores(confusion, [0, 1, 2], [3, 4], absent)
    place = [order.index(index) for index in range(5)]
    after = gzsl_scores(moved, place[:3], place[3:], absent)
    assert after == pytest.approx(before, nan_ok=True)


@given(st.floats(0, 1), st.floats(0, 1))
def test_harmonic_mean_lies_between_its_parts(first: float, second: float) -> None:
    mean = harmonic_mean(first, second)
    low, high = sorted((first, second))
    assert low * (1 - 1e-12) <= mean <= high or mean == pytest.approx(low)


def test_without_unseen_classes_there_is_no_harmonic_mean() -> None:
    scores = gzsl_scores(EXAMPLE, [0, 1, 2, 3], [])
    assert math.isnan(scores['mIoU_unseen'])
    assert math.isnan(scores['hIoU'])
    assert scores['mIoU_seen'] == scores['mIoU']


def test_nothing_counted_is_not_a_number() -> None:
    assert math.isnan(gzsl_scores(np.zeros((2, 2)), [0], [1])['aAcc'])


@pytest.mark.parametrize('metric', [FoldIoUMetric, ZeroShotIoUMetric])
def test_metrics_take_what_mmsegs_test_tool_sets(metric: type) -> None:
    assert metric(output_dir='maps', keep_results=True).output_dir == 'maps'
    with pytest.raises(ValueError, match='keep_results=False'):
        metric(output_dir='maps', keep_results=False)
