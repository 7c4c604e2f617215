import json
import math
import os
import pickle
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from mmseg.datasets import PascalContextDataset59, PascalVOCDataset
from mmseg.registry import METRICS

from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.evaluation import ZeroShotIoUMetric

META = dict(classes=('a', 'b', 'c', 'd'), seen=(0, 1, 3), unseen=(2,), ignore_index=255)


def sample(truth: Any, prediction: Any, **more: Any) -> dict[str, Any]:
    def data(values: Any) -> dict[str, torch.Tensor]:
        return dict(data=torch.as_tensor(np.asarray(values, np.int64))[None])

    found = dict(pred_sem_seg=data(prediction), gt_sem_seg=data(truth))
    return dict(img_path='images/7.png', **found, **more)


def metric(meta: dict[str, Any] = META, **arguments: Any) -> ZeroShotIoUMetric:
    made = ZeroShotIoUMetric(**arguments)
    made.dataset_meta = meta
    return made


def evaluate(
    pairs: Sequence[tuple[Any, Any]], meta: dict[str, Any] = META, **arguments: Any
) -> dict[str, float]:
    made = metric(meta, **arguments)
    made.process(None, [sample(*pair) for pair in pairs])
    return made.evaluate(len(pairs))


def brute_force(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], absent: str
) -> dict[str, float]:
    """Count pixel by pixel and class by class, straight from the definitions."""
    pixels = [
        (int(truth), int(prediction))
        for truths, predictions in pairs
        for truth, prediction in zip(truths.flat, predictions.flat, strict=True)
        if truth != META['ignore_index']
    ]
    groups = {'': range(4), '_seen': META['seen'], '_unseen': META['unseen']}

    def ratio(part: int, whole: int) -> float | None:
        if whole:
            return part / whole
        return 0.0 if absent == 'zero' else None

    def mean(values: list[float | None]) -> float:
        there = [value for value in values if value is not None]
        return 100 * sum(there) / len(there) if there else math.nan

    result = {}
    for suffix, members in groups.items():
        ious, accuracies = [], []
        for k in members:
            hits = sum(t == k and p == k for t, p in pixels)
            ious.append(ratio(hits, sum(t == k or p == k for t, p in pixels)))
            accuracies.append(ratio(hits, sum(t == k for t, p in pixels)))
        inside = [(t, p) for t, p in pixels if t in members]
        right = ratio(sum(t == p for t, p in inside), len(inside))
        result[f'mIoU{suffix}'] = mean(ious)
        result[f'mAcc{suffix}'] = mean(accuracies)
        result[f'aAcc{suffix}'] = mean([right])
    for name, key in (('hIoU', 'mIoU'), ('hAcc', 'mAcc'), ('haAcc', 'aAcc')):
        seen, unseen = result[f'{key}_seen'], result[f'{key}_unseen']
        both = seen + unseen
        result[name] = 0.0 if both == 0 else 2 * seen * unseen / both
    return result


def maps(values: st.SearchStrategy[int]) -> st.SearchStrategy[np.ndarray]:
    return npst.arrays(np.int64, (3, 4), elements=values)


@given(
    # Few distinct values, so that classes are often absent.
    st.lists(
        st.tuples(maps(st.sampled_from([0, 1, 2, 3, 255])), maps(st.integers(0, 3))),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(['nan', 'zero']),
)
def test_equals_brute_force(
    pairs: list[tuple[np.ndarray, np.ndarray]], absent: str
) -> None:
    found = evaluate(pairs, absent=absent)
    expected = brute_force(pairs, absent)
    assert {key: found[key] for key in expected} == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize('wrong', [4, 254, -1])
def test_label_out_of_range_names_the_image(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf'images/7\.png: label values \[{wrong}\]'):
        evaluate([([[0, wrong]], [[0, 0]])])


@pytest.mark.parametrize('wrong', [4, 255, -1])
def test_prediction_out_of_range_names_the_image(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf'images/7\.png: .*{wrong}.*prediction'):
        evaluate([([[0, 255]], [[0, wrong]])])


def test_sizes_that_differ_name_the_image() -> None:
    with pytest.raises(ValueError, match=r'images/7\.png: the prediction is \(1, 2\)'):
        evaluate([([[0]], [[0, 0]])])


def test_label_maps_of_one_pixel_are_maps() -> None:
    assert evaluate([([[1]], [[1]])])['aAcc'] == 100


def test_missing_ground_truth_says_what_to_do() -> None:
    made = metric()
    with pytest.raises(ValueError, match='Does the test pipeline load annotations'):
        made.process(None, [dict(pred_sem_seg=dict(data=torch.zeros(1, 1, 1)))])


def test_number_of_scores_must_fit_the_classes() -> None:
    made = metric()
    logits = dict(data=torch.zeros(3, 1, 2))
    with pytest.raises(ValueError, match='scores of 3 classes, the data set has 4'):
        made.process(None, [sample([[0, 0]], [[0, 0]], seg_logits=logits)])


def test_values_are_percent_and_not_rounded() -> None:
    scores = evaluate([([[0, 0, 0]], [[0, 0, 1]])])
    assert scores['aAcc'] == pytest.approx(200 / 3, abs=1e-12)


def test_prefix_and_registry() -> None:
    made = METRICS.build(dict(type='ZeroShotIoUMetric', prefix='val'))
    made.dataset_meta = META
    made.process(None, [sample([[0]], [[0]])])
    assert made.evaluate(1)['val/mIoU'] == 100


def test_split_of_another_data_set_is_resolved_by_name() -> None:
    classes = PascalContextDataset59.METAINFO['classes']
    made = metric(dict(classes=classes[::-1]), split='context59_otseg')
    assert set(made.resolve().unseen) == set(get_split('context59_otseg').unseen)
    assert made.resolve().classes == tuple(classes[::-1])


@pytest.mark.parametrize(
    ('meta', 'split', 'message'),
    [
        (dict(classes=PascalVOCDataset.METAINFO['classes']), None, 'has no split'),
        (
            dict(classes=PascalVOCDataset.METAINFO['classes']),
            'voc12_15_5',
            r"only in the data set: \['background'\]",
        ),
        (META, 'voc12_15_5', "is not the split 'custom' of the data set"),
        (
            META,
            dict(classes=['b', 'a', 'c', 'd'], unseen=['c']),
            "is not the split 'custom' of the data set",
        ),
        (META, dict(classes=list('abcd'), unseen=['d']), 'is not the split'),
        ({}, 'voc12_15_5', 'no class names'),
    ],
)
def test_split_and_data_set_must_agree(meta: dict, split: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric(meta, split=split).resolve()


def test_unknown_rule_for_absent_classes() -> None:
    with pytest.raises(ValueError, match=r"Did you mean 'zero'"):
        ZeroShotIoUMetric(absent='zeros')


def test_json_holds_scores_classes_and_confusion(tmp_path: Path) -> None:
    pairs = [([[0, 0, 2, 255]], [[0, 1, 2, 2]])]
    scores = evaluate(pairs, output_dir=str(tmp_path / 'out'))
    content = json.loads((tmp_path / 'out/zero_shot_iou.json').read_text())
    assert content['scores']['hIoU'] == scores['hIoU']
    assert content['confusion'][0] == [1, 1, 0, 0]
    assert content['images'] == 1
    by_name = {row['name']: row for row in content['classes']}
    assert by_name['c'] == dict(name='c', unseen=True, IoU=100.0, Acc=100.0, pixels=1)
    assert by_name['d']['IoU'] is None


def test_output_dir_gets_the_predicted_label_maps(tmp_path: Path) -> None:
    prediction = [[0, 1, 2, 2]]
    evaluate([([[0, 0, 2, 255]], prediction)], output_dir=str(tmp_path))
    with Image.open(tmp_path / '7.png') as written:
        assert np.array(written).tolist() == prediction


def many(count: int, classes: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(3)
    return [tuple(rng.integers(0, classes, (2, 3, 4))) for _ in range(count)]


def test_memory_does_not_grow_with_the_images() -> None:
    made = metric()
    sizes = []
    for pair in many(40):
        made.process(None, [sample(*pair)])
        sizes.append(len(pickle.dumps(made.results)))
    assert sizes[-1] - sizes[9] < 10 * (40 - 10)


def test_second_evaluation_starts_anew() -> None:
    made = metric()
    first, second = many(7)[:4], many(7)[4:]
    made.process(None, [sample(*pair) for pair in first])
    made.evaluate(4)
    made.process(None, [sample(*pair) for pair in second])
    assert made.evaluate(3) == evaluate(second)


def test_images_beyond_the_padding_cannot_be_dropped() -> None:
    made = metric()
    made.process(None, [sample(*pair) for pair in many(4)])
    with pytest.raises(ValueError, match=r'counted 3 images, but .* told of 2'):
        made.evaluate(2)


def _rank(rank: int, world: int, port: int, images: int, folder: str) -> None:
    """Evaluate as mmengine does on one rank: the sampler fills up the last round."""
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    os.chdir(folder)  # mmengine collects through a folder in the working directory
    dist.init_process_group('gloo', rank=rank, world_size=world)
    pairs = many(images)
    padded = (pairs * world)[: math.ceil(images / world) * world]
    made = metric()
    for pair in padded[rank::world]:
        made.process(None, [sample(*pair)])
    scores = made.evaluate(images)
    Path(folder, f'{rank}.json').write_text(json.dumps(scores))
    dist.destroy_process_group()


@pytest.mark.parametrize('images', [1, 5, 9])
def test_two_ranks_do_not_count_padded_images_twice(
    tmp_path: Path, images: int
) -> None:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    # Forked children need not import everything again.
    arguments = (2, port, images, str(tmp_path))
    mp.start_processes(_rank, arguments, nprocs=2, start_method='fork')
    expected = evaluate(many(images))
    for rank in range(2):
        found = json.loads((tmp_path / f'{rank}.json').read_text())
        assert found == pytest.approx(expected, nan_ok=True)
