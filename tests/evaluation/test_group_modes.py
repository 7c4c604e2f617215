"""Scores of one group alone and over shifts, against plain re-computations."""

import csv
import json
import math
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from zs3_mmseg.evaluation import ZeroShotIoUMetric
from zs3_mmseg.evaluation.scores import gzsl_scores

SEEN, UNSEEN = (0, 2, 3), (1, 4)
META = dict(classes=tuple('abcde'), seen=SEEN, unseen=UNSEEN, ignore_index=255)
GAMMAS = (-0.5, 0.0, 0.25, 1.0)
# Multiples of a quarter: shifts are exact, and ties are frequent.
SCORES = npst.arrays(np.int64, (5, 3, 4), elements=st.integers(-4, 4)).map(
    lambda drawn: drawn / 4
)
TRUTH = npst.arrays(np.int64, (3, 4), elements=st.sampled_from([0, 1, 2, 3, 4, 255]))


def sample(truth: np.ndarray, scores: np.ndarray, form: str) -> dict[str, Any]:
    """Return a sample as a segmentor makes it, with all scores or the best ones."""
    kept = torch.as_tensor(scores, dtype=torch.float32)
    found = dict(
        gt_sem_seg=dict(data=torch.as_tensor(truth)[None]),
        pred_sem_seg=dict(data=kept.argmax(0)[None]),
    )
    if form == 'all':
        return found | dict(seg_logits=dict(data=kept))
    best = [kept[list(group)].max(0) for group in (SEEN, UNSEEN)]
    classes = [
        torch.tensor(group)[b.indices]
        for group, b in zip((SEEN, UNSEEN), best, strict=True)
    ]
    scores_ = torch.stack([b.values for b in best])
    return found | dict(group_best=dict(scores=scores_, classes=torch.stack(classes)))


def evaluate(
    images: list[tuple[np.ndarray, np.ndarray]], form: str = 'all', **options: Any
) -> dict[str, float]:
    metric = ZeroShotIoUMetric(**options)
    metric.dataset_meta = META
    for truth, scores in images:
        metric.process(None, [sample(truth, scores, form)])
    return metric.evaluate(len(images))


def confusion_of(
    images: list[tuple[np.ndarray, np.ndarray]], gamma: float
) -> np.ndarray:
    """Shift all scores, take the best of all classes, count pixel by pixel."""
    matrix = np.zeros((5, 5), np.int64)
    for truth, scores in images:
        shifted = scores.copy()
        if math.isinf(gamma):
            shifted[list(SEEN if gamma > 0 else UNSEEN)] = -np.inf
        else:
            shifted[list(SEEN)] -= gamma
        for label, winner in zip(truth.flat, shifted.argmax(0).flat, strict=True):
            if label != 255:
                matrix[label, winner] += 1
    return matrix


IMAGES = st.lists(st.tuples(TRUTH, SCORES), min_size=1, max_size=3)


@given(IMAGES, st.sampled_from(['all', 'best']), st.sampled_from(['nan', 'zero']))
def test_sweep_equals_one_evaluation_for_each_shift(
    images: list, form: str, absent: str
) -> None:
    with TemporaryDirectory() as folder:
        # Shifts are given in another order: they are sorted.
        options = dict(gamma_sweep=GAMMAS[::-1], absent=absent)
        found = evaluate(images, form, output_dir=folder, **options)
        content = json.loads(Path(folder, 'zero_shot_iou.json').read_text())
    points = content['gamma_sweep']['points']
    curve = []
    for point, gamma in zip(points, (-math.inf, *GAMMAS, math.inf), strict=True):
        expected = gzsl_scores(confusion_of(images, gamma), SEEN, UNSEEN, absent)
        for key in ('mIoU_seen', 'mIoU_unseen', 'mAcc_seen', 'mAcc_unseen', 'hIoU'):
            value = math.nan if point[key] is None else point[key]
            assert value == pytest.approx(100 * expected[key], nan_ok=True), key
        curve.append((expected['mIoU_seen'], expected['mIoU_unseen']))
    area = sum(
        (left[0] - right[0]) * (left[1] + right[1]) / 2
        for left, right in pairwise(curve)
    )
    assert found['AUSUC'] == pytest.approx(100 * area, abs=1e-9, nan_ok=True)
    finite = [point['hIoU'] for point in points[1:-1] if point['hIoU'] is not None]
    if finite:
        assert found['oracle_hIoU'] == max(finite)
    # A shift of 0 changes nothing, whatever ties there are.
    assert found['mIoU_seen'] == pytest.approx(
        math.nan if points[2]['mIoU_seen'] is None else points[2]['mIoU_seen'],
        nan_ok=True,
    )


@given(IMAGES, st.sampled_from(['all', 'best']))
def test_in_group_modes_only_the_group_competes_and_counts(
    images: list, form: str
) -> None:
    modes = ['gzsl', 'zsl_only', 'seen_only']
    found = evaluate(images, form, modes=modes)
    for mode, members in (('zsl_only', UNSEEN), ('seen_only', SEEN)):
        pairs = [
            (int(label), max(members, key=lambda k, s=column: (s[k], -k)))
            for truth, scores in images
            for label, column in zip(truth.flat, scores.reshape(5, -1).T, strict=True)
            if label in members
        ]
        ious = [
            sum(t == p == k for t, p in pairs) / sum(k in pair for pair in pairs)
            for k in members
            if any(k in pair for pair in pairs)
        ]
        expected = 100 * sum(ious) / len(ious) if ious else math.nan
        assert found[f'{mode}/mIoU'] == pytest.approx(expected, nan_ok=True)
        right = [t == p for t, p in pairs]
        expected = 100 * sum(right) / len(right) if right else math.nan
        assert found[f'{mode}/aAcc'] == pytest.approx(expected, nan_ok=True)


TRUE_MAP = np.array([[0, 1, 1, 1], [2, 4, 4, 255], [3, 3, 0, 0]])
FAVOURS = np.array([[0, 0, 1, 2], [2, 4, 1, 1], [3, 0, 0, 4]])
PLAIN = [(TRUE_MAP, np.moveaxis(np.eye(5)[FAVOURS], 2, 0))]


def test_modes_left_out_are_not_reported() -> None:
    assert set(evaluate(PLAIN, modes=['zsl_only'])) == {
        f'zsl_only/{key}' for key in ('aAcc', 'mAcc', 'mIoU', 'fwIoU')
    }


def test_conventions_of_code_bases_are_options_by_name() -> None:
    truth = [(np.zeros((3, 4), np.int64), PLAIN[0][1])]
    for name, rule in (('zs3net', 'zero'), ('cagnet', 'nan')):
        assert evaluate(truth, absent=name) == pytest.approx(
            evaluate(truth, absent=rule), nan_ok=True
        )
    assert evaluate(truth, absent='zs3net')['mAcc'] == pytest.approx(
        evaluate(truth, absent='cagnet')['mAcc'] / 5
    )


def test_report_dir_gets_tables_and_charts(tmp_path: Path) -> None:
    scores = evaluate(PLAIN, report_dir=str(tmp_path), gamma_sweep=GAMMAS)
    with (tmp_path / 'classes.csv').open() as stream:
        by_name = {row['class']: row for row in csv.DictReader(stream)}
    assert by_name['b']['group'] == 'unseen'
    # b: one of three found, and one of e's two pixels taken for it
    assert float(by_name['b']['IoU']) == pytest.approx(100 / 4)
    with (tmp_path / 'unseen_confusions.csv').open() as stream:
        wrong = [tuple(row.values()) for row in csv.DictReader(stream)]
    shares = {(name, other): float(share) for name, other, share in wrong}
    third = pytest.approx(100 / 3)
    assert shares == {('b', 'a'): third, ('b', 'c'): third, ('e', 'b'): 50.0}
    with (tmp_path / 'seen_unseen_curve.csv').open() as stream:
        curve = list(csv.DictReader(stream))
    assert [row['gamma'] for row in curve] == ['', *map(str, GAMMAS), '']
    assert float(curve[0]['mIoU_unseen']) == 0
    content = json.loads((tmp_path / 'zero_shot_iou.json').read_text())
    assert content['gamma_sweep']['AUSUC'] == scores['AUSUC']
    for name in ('classes', 'confusion', 'seen_unseen_curve'):
        with Image.open(tmp_path / f'{name}.png') as picture:
            assert min(picture.size) > 200
    assert not (tmp_path / 'an image.png').exists()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(modes=['zsl_onyl']), "Did you mean 'zsl_only'"),
        (dict(modes=[]), 'modes must be a list'),
        (dict(modes='gzsl'), 'modes must be a list'),
        (dict(gamma_sweep=[]), 'must be finite numbers'),
        (dict(gamma_sweep=[0.0, math.inf]), 'must be finite numbers'),
        (dict(gamma_sweep=[0.5, 0.5]), 'lists a number twice'),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ZeroShotIoUMetric(**options)


@pytest.mark.parametrize('options', [dict(modes=['zsl_only']), dict(gamma_sweep=[0])])
def test_groups_that_are_empty_or_unknown_are_refused(options: dict) -> None:
    metric = ZeroShotIoUMetric(**options)
    metric.dataset_meta = META | dict(seen=range(5), unseen=())
    with pytest.raises(ValueError, match=r'has no unseen|lacks one'):
        metric.resolve()
    metric.dataset_meta = META
    without = sample(*PLAIN[0], 'all')
    del without['seg_logits']
    with pytest.raises(ValueError, match=r'an image.*return_scores'):
        metric.process(None, [without])
    wrong = sample(*PLAIN[0], 'best')
    wrong['group_best']['classes'][1, 0, 1] = 5
    with pytest.raises(ValueError, match=r'an image: label values \[5\]'):
        metric.process(None, [wrong])
