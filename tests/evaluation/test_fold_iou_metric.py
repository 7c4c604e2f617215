"""mIoU of a fold and FB-IoU, against a count by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zs3_mmseg.evaluation import FoldIoUMetric

META = dict(classes=['a', 'b', 'c', 'd'], prompted=(1, 3), ignore_index=255)


def metric_of(**arguments: Any) -> FoldIoUMetric:
    metric = FoldIoUMetric(**arguments)
    metric.dataset_meta = META
    return metric


def sample(prompt: int, truth: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
    return dict(
        prompt_class=prompt,
        img_path='images/x.jpg',
        gt_sem_seg=dict(data=torch.from_numpy(truth)[None]),
        pred_sem_seg=dict(data=torch.from_numpy(prediction)[None].long()),
    )


def draw(seed: int, count: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [
        (
            int(rng.choice([1, 3])),
            rng.choice(np.array([0, 1, 255], np.uint8), (5, 6)),
            rng.integers(0, 2, (5, 6)),
        )
        for _ in range(count)
    ]


@given(st.integers(0, 999), st.integers(1, 5))
def test_sums_are_divided_once(seed: int, count: int) -> None:
    episodes = draw(seed, count)
    metric = metric_of()
    for episode in episodes:
        metric.process(None, [sample(*episode)])
    scores = metric.evaluate(count)

    def iou(label: int, prompts: tuple[int, ...]) -> float:
        inter = union = 0
        for prompt, truth, prediction in episodes:
            if prompt in prompts:
                known = truth != 255
                inter += ((truth == label) & (prediction == label) & known).sum()
                union += (((truth == label) | (prediction == label)) & known).sum()
        return inter / union if union else 0.0

    assert scores['mIoU'] == pytest.approx(50 * (iou(1, (1,)) + iou(1, (3,))))
    both = iou(0, (1, 3)) + iou(1, (1, 3))
    assert scores['FB_IoU'] == pytest.approx(50 * both)


def test_a_class_never_asked_for_counts_zero_or_not_at_all() -> None:
    mask = np.array([[0, 1]], np.uint8)
    for absent, expected in (('zero', 50.0), ('nan', 100.0)):
        metric = metric_of(absent=absent)
        metric.process(None, [sample(3, mask, mask.astype(int))])
        assert metric.evaluate(1)['mIoU'] == expected


def test_files_name_the_class(tmp_path: Path) -> None:
    metric = metric_of(output_dir=str(tmp_path))
    mask = np.array([[0, 1]], np.uint8)
    metric.process(None, [sample(3, mask, mask.astype(int))])
    metric.evaluate(1)
    assert (tmp_path / 'x__d.png').is_file()
    report = json.loads((tmp_path / 'fold_iou.json').read_text())
    assert [(row['name'], row['episodes']) for row in report['classes']] == [
        ('b', 0),
        ('d', 1),
    ]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(prompt_class=0), r'images/x\.jpg: class 0 is none of those'),
        (dict(prompt_class=None), 'int'),
        (dict(gt_sem_seg=dict(data=torch.full((1, 1, 2), 7))), r'label values \[7\]'),
        (dict(pred_sem_seg=dict(data=torch.full((1, 1, 2), 2))), r'\[2\]'),
    ],
)
def test_wrong_samples_are_errors(change: dict, message: str) -> None:
    mask = np.array([[0, 1]], np.uint8)
    wrong = {**sample(1, mask, mask.astype(int)), **change}
    with pytest.raises((ValueError, TypeError), match=message):
        metric_of().process(None, [wrong])


def test_a_data_set_without_prompts_is_an_error() -> None:
    metric = FoldIoUMetric()
    metric.dataset_meta = dict(classes=['a'])
    with pytest.raises(ValueError, match='ClassPromptDataset'):
        metric.process(None, [])
    with pytest.raises(ValueError, match="Did you mean 'zero'"):
        FoldIoUMetric(absent='zeros')


def _rank(rank: int, world: int, port: int, queue: Any) -> None:
    import torch.distributed as dist

    dist.init_process_group(
        'gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=world
    )
    metric = metric_of()
    episodes = draw(3, 7)
    # mmengine's sampler fills up the last round with the first samples.
    mine = [episodes[i % 7] for i in range(rank, 8, world)]
    for episode in mine:
        metric.process(None, [sample(*episode)])
    scores = metric.evaluate(7)
    queue.put((rank, scores))
    dist.destroy_process_group()


@pytest.mark.slow
def test_several_processes_give_the_same_scores() -> None:
    import socket

    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        port = sock.getsockname()[1]
    fork = torch.multiprocessing.get_context('fork')
    queue = fork.Queue()
    ranks = [fork.Process(target=_rank, args=(r, 2, port, queue)) for r in range(2)]
    for rank in ranks:
        rank.start()
    found = dict(queue.get(timeout=60) for _ in ranks)
    for rank in ranks:
        rank.join(30)
    alone = metric_of()
    for episode in draw(3, 7):
        alone.process(None, [sample(*episode)])
    assert found[0] == found[1] == alone.evaluate(7)


# ------------------------------------------------------------------------ void, oracle


@pytest.mark.parametrize(
    ('void', 'hits', 'union'), [('ignore', 1, 2), ('background', 1, 3), ('union', 1, 3)]
)
def test_void(void: str, hits: int, union: int) -> None:
    truth = np.array([[0, 1, 255, 0]], np.uint8)
    prediction = np.array([[0, 1, 1, 1]])
    metric = metric_of(void=void)
    metric.process(None, [sample(1, truth, prediction)])
    assert metric.evaluate(1)['mIoU'] == pytest.approx(50 * hits / union)
    background = {'ignore': 1 / 2, 'background': 1 / 3, 'union': 1 / 2}[void]
    both = background + hits / union
    metric.process(None, [sample(1, truth, prediction)])
    assert metric.evaluate(1)['FB_IoU'] == pytest.approx(50 * both)


TRUTH = np.array([[0, 1, 1, 0]], np.uint8)
GOOD, BAD = np.array([[0, 1, 1, 1]]), np.array([[1, 0, 0, 0]])


def oracle_of(*masks: np.ndarray) -> FoldIoUMetric:
    metric = metric_of(oracle=True, proposer=lambda image: image)
    metric._segments = lambda sample: torch.from_numpy(np.stack(masks)) == 1
    return metric


@pytest.mark.parametrize(
    ('prediction', 'masks', 'expected'),
    [(BAD, (BAD, GOOD), 2 / 3), (GOOD, (BAD, BAD), 2 / 3), (BAD, (BAD,), 0.0)],
)
def test_the_oracle_takes_what_agrees_with_the_truth(
    prediction: np.ndarray, masks: tuple[np.ndarray, ...], expected: float
) -> None:
    metric = oracle_of(*masks)
    metric.process(None, [sample(1, TRUTH, prediction)])
    scores = metric.evaluate(1)
    assert {*scores} == {'oracle_mIoU', 'oracle_FB_IoU'}
    assert scores['oracle_mIoU'] == pytest.approx(50 * expected)


def test_the_oracle_reads_the_image_file(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / 'x.png'
    Image.fromarray(np.full((1, 4, 3), (9, 5, 1), np.uint8)).save(path)
    seen = []

    def propose(image: torch.Tensor, meta: dict[str, Any]) -> torch.Tensor:
        assert meta['ori_shape'] == (1, 4)
        seen.append(image[:, 0, 0].tolist())
        return torch.from_numpy(GOOD)[None] == 1

    metric = metric_of(oracle=True, proposer=propose, output_dir=str(tmp_path / 'out'))
    metric.process(None, [sample(1, TRUTH, BAD) | dict(img_path=str(path))])
    assert metric.evaluate(1)['oracle_mIoU'] == pytest.approx(50 * 2 / 3)
    assert seen == [[9, 5, 1]], 'RGB'
    report = json.loads((tmp_path / 'out/fold_iou.json').read_text())
    assert 'mIoU' not in report


@pytest.mark.parametrize(
    'options', [dict(oracle=True), dict(proposer=lambda image: image)]
)
def test_an_oracle_needs_a_proposer(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match='give both or neither'):
        metric_of(**options)
