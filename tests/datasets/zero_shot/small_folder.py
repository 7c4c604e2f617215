"""A folder of a few images, in the labels of another split."""

from collections.abc import Callable
from typing import Any

import numpy as np

from zs3_mmseg.datasets import ZeroShotDataset

CLASSES = ['cat', 'dog', 'cow', 'tv']
# The split has another order and another spelling, and leaves 'cow' out.
SPLIT = dict(classes=['tvmonitor', 'dog', 'cat'], unseen=['cat'])
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
MASK = np.array([[0, 1, 2], [3, 255, 0]], dtype=np.uint8)
Folder = Callable[..., dict[str, Any]]


def wrap(dataset: Any, **arguments: Any) -> ZeroShotDataset:
    arguments = dict(phase='train', split=SPLIT) | arguments
    return ZeroShotDataset(dataset, **arguments)


def labels(sample: dict[str, Any]) -> list[list[int]]:
    return sample['data_samples'].gt_sem_seg.data[0].tolist()


def concat(*parts: dict[str, Any]) -> dict[str, Any]:
    return dict(type='ConcatDataset', datasets=list(parts))


def repeat(part: dict[str, Any]) -> dict[str, Any]:
    return dict(type='RepeatDataset', dataset=part, times=2)
