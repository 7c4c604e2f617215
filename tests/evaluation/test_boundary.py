import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.ndimage import binary_erosion

from zs3_mmseg.evaluation import ZeroShotIoUMetric

META = dict(classes=('a', 'b', 'c'), seen=(0, 2), unseen=(1,), ignore_index=255)
Pair = tuple[np.ndarray, np.ndarray]


def evaluated(pairs: list[Pair], **options: Any) -> dict[str, float]:
    metric = ZeroShotIoUMetric(**options)
    metric.dataset_meta = META
    for number, (truth, prediction) in enumerate(pairs):
        maps = {'gt_sem_seg': truth, 'pred_sem_seg': prediction}
        sample: dict[str, Any] = {
            key: dict(data=torch.as_tensor(labels.astype(np.int64))[None])
            for key, labels in maps.items()
        }
        metric.process(None, [dict(sample, img_path=f'{number}.png')])
    return metric.evaluate(len(pairs))


def eroded_bands(pairs: list[Pair], ratio: float) -> dict[str, float]:
    """Compare bands made as the paper's authors do: a 3 x 3 erosion, d times."""
    ious = []
    for label in range(3):
        common = union = 0
        for truth, prediction in pairs:
            distance = max(1, round(ratio * np.hypot(*truth.shape)))
            bands = []
            for labels in (truth, prediction):
                mask = (labels == label) & (truth != META['ignore_index'])
                inside = binary_erosion(mask, np.ones((3, 3)), iterations=distance)
                bands.append(mask & ~inside)
            common += (bands[0] & bands[1]).sum()
            union += (bands[0] | bands[1]).sum()
        ious.append(100 * common / union if union else np.nan)
    seen = np.nanmean(ious[::2]) if not np.isnan(ious[::2]).all() else np.nan
    unseen = ious[1]
    harmonic = 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0
    mean = np.nanmean(ious) if not np.isnan(ious).all() else np.nan
    return dict(mBIoU=mean, mBIoU_seen=seen, mBIoU_unseen=unseen, hBIoU=harmonic)


def blocks(values: list[int], draw: st.DrawFn, size: tuple[int, int]) -> np.ndarray:
    """Draw labels in squares of some pixels, so that masks have an inside."""
    side = draw(st.integers(1, 6))
    height, width = (-(-length // side) for length in size)
    coarse = draw(
        npst.arrays(np.int64, (height, width), elements=st.sampled_from(values))
    )
    return np.kron(coarse, np.ones((side, side), int))[: size[0], : size[1]]


@st.composite
def label_maps(draw: st.DrawFn) -> Pair:
    size = draw(st.integers(2, 14)), draw(st.integers(2, 14))
    return blocks([0, 1, 2, 255], draw, size), blocks([0, 1, 2], draw, size)


@given(
    st.lists(label_maps(), min_size=1, max_size=3), st.sampled_from([0.02, 0.1, 0.3])
)
def test_equals_erosion_of_each_mask(pairs: list[Pair], ratio: float) -> None:
    found = evaluated(pairs, boundary_ratio=ratio)
    for key, value in eroded_bands(pairs, ratio).items():
        assert found[key] == pytest.approx(value, nan_ok=True)


def test_a_wrong_outline_costs_more_than_in_plain_iou() -> None:
    truth = np.zeros((40, 40), int)
    truth[4:36, 4:36] = 1
    prediction = np.zeros((40, 40), int)
    prediction[6:34, 6:34] = 1
    found = evaluated([(truth, prediction)], boundary_ratio=0.02)
    assert found['mIoU_unseen'] == pytest.approx(100 * 28**2 / 32**2)
    assert found['mBIoU_unseen'] == 0


def test_off_unless_asked_for() -> None:
    maps = np.zeros((2, 2), int)
    assert not [key for key in evaluated([(maps, maps)]) if 'BIoU' in key]


@pytest.mark.parametrize('ratio', [0, 1, -0.1, 2.0])
def test_ratio_out_of_range(ratio: float) -> None:
    with pytest.raises(ValueError, match='boundary_ratio is a share of the diagonal'):
        ZeroShotIoUMetric(boundary_ratio=ratio)


def test_written_for_each_class(tmp_path: Path) -> None:
    labels = np.array([[0, 0, 1], [0, 0, 1]])
    options = dict(boundary_ratio=0.02, report_dir=str(tmp_path))
    scores = evaluated([(labels, labels)], **options)
    content = json.loads((tmp_path / 'zero_shot_iou.json').read_text())
    assert [row['boundary_IoU'] for row in content['classes']] == [100, 100, None]
    assert content['scores']['hBIoU'] == scores['hBIoU'] == 100
    header, first, *_ = (tmp_path / 'classes.csv').read_text().splitlines()
    assert header == 'class,group,IoU,Acc,boundary_IoU,pixels'
    assert first == 'a,seen,100.0,100.0,100.0,4'
