"""Data sets inside wrappers such as ConcatDataset, built or as configs.

A wrapper is whatever holds others as ``datasets`` or ``dataset``: those of mmengine and
mmseg, our own, and most of other projects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset


def children(dataset: Any) -> list[tuple[str, Any]]:
    """Return what a wrapper holds and under which key; nothing for a data set.

    Keys are those of a config, ``'dataset'`` or ``'datasets.0'``. Within a config only
    configs count.
    """
    if isinstance(dataset, BaseDataset):
        return []
    is_config = isinstance(dataset, Mapping)
    many, one = (
        dataset.get(key) if is_config else getattr(dataset, key, None)
        for key in ('datasets', 'dataset')
    )
    parts = [
        *((f'datasets.{n}', d) for n, d in enumerate(many or ())),
        ('dataset', one),
    ]
    return [
        (key, part)
        for key, part in parts
        if (isinstance(part, Mapping) if is_config else part is not None)
    ]


def leaves(dataset: Any, *, stop_at: str | None = None) -> Iterator[Any]:
    """Yield the data sets or configs that hold no others, in the order of samples.

    A config with the key ``stop_at`` is not looked into: it is a leaf as well.
    """
    is_leaf = isinstance(dataset, Mapping) and stop_at in dataset
    inside = [] if is_leaf else children(dataset)
    if not inside:
        yield dataset
    for _, part in inside:
        yield from leaves(part, stop_at=stop_at)


def image_paths(dataset: Any, key: str = 'img_path') -> Iterator[str]:
    """Yield the path of each image, or mask, that the data sets inside read."""
    for leaf in leaves(dataset):
        for index in range(len(leaf) if hasattr(leaf, 'get_data_info') else 0):
            path = leaf.get_data_info(index).get(key)
            if path is not None:
                yield str(path)


def over_samples(
    dataset: Any, of_leaf: Callable[[BaseDataset], np.ndarray], *, needed_by: str
) -> np.ndarray:
    """Put together what is known of each sample: one row for each of ``dataset``.

    ``of_leaf`` gives one row for each sample of a data set that reads files;
    ``needed_by`` is what cannot do without, for the message.
    """
    if isinstance(dataset, BaseDataset):
        return of_leaf(dataset)
    if not isinstance(dataset, ConcatDataset | RepeatDataset):
        raise TypeError(
            f'{needed_by} works on data sets in ConcatDataset and RepeatDataset, not '
            f'inside {type(dataset).__name__}'
        )
    rows = np.concatenate(
        [over_samples(d, of_leaf, needed_by=needed_by) for _, d in children(dataset)]
    )
    return np.concatenate([rows] * getattr(dataset, 'times', 1))
