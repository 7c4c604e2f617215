"""Find the training images without any unseen class, once for each content."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.logging import MMLogger

from zs3_mmseg.datasets.label_policy import LabelTable
from zs3_mmseg.datasets.mask_scan import masks_key
from zs3_mmseg.datasets.pipeline_guard import read_labels
from zs3_mmseg.utils.cache import atomic_write, cache_dir


def images_without_unseen(dataset: Any, tables: dict[int, LabelTable]) -> np.ndarray:
    """Return the indices of the samples that hold no hidden class, ascending.

    Every mask is looked at once; the answer is kept in the cache under a hash of the
    masks' bytes and the label tables, so that changed masks are looked at again.

    Args:
        dataset: a data set, or ConcatDataset and RepeatDataset around some.
        tables: the label table of each data set inside, by ``id``.

    Returns:
        Indices into ``dataset``, (N,), int64.

    Raises:
        TypeError: if another wrapper is inside, whose samples mix several images.
        ValueError: if no image is left.
    """
    kept = np.flatnonzero(~_flags(dataset, tables))
    if not len(kept):
        raise ValueError(
            "unseen_policy='drop_image' leaves no image: every mask holds an unseen "
            "class; use unseen_policy='ignore'"
        )
    return kept


def _flags(dataset: Any, tables: dict[int, LabelTable]) -> np.ndarray:
    """Tell for each sample whether it holds a hidden class, (N,), bool."""
    if isinstance(dataset, ConcatDataset):
        return np.concatenate([_flags(part, tables) for part in dataset.datasets])
    if isinstance(dataset, RepeatDataset):
        return np.tile(_flags(dataset.dataset, tables), dataset.times)
    if id(dataset) not in tables:
        raise TypeError(
            "unseen_policy='drop_image' works on data sets in ConcatDataset and "
            f'RepeatDataset, not inside {type(dataset).__name__}'
        )
    return _leaf_flags(dataset, tables[id(dataset)])


def _leaf_flags(dataset: BaseDataset, table: LabelTable) -> np.ndarray:
    logger = MMLogger.get_current_instance()
    key = masks_key(dataset, 'unseen images, 1', table.hidden.tobytes())
    path = cache_dir() / 'unseen_images' / f'{key}.json'
    if path.is_file():
        found = set(json.loads(path.read_text()))
        return np.array([index in found for index in range(len(dataset))], dtype=bool)
    logger.info(f'Looking for unseen classes in {len(dataset)} masks (once).')
    flags = np.zeros(len(dataset), dtype=bool)
    for index in range(len(dataset)):
        labels = read_labels(dataset, index)
        table.check(labels, str(dataset.get_data_info(index).get('seg_map_path')))
        flags[index] = table.hidden[labels].any()
    logger.info(f'{int(flags.sum())} of {len(dataset)} images hold an unseen class.')
    with_unseen = json.dumps(np.flatnonzero(flags).tolist()).encode()
    atomic_write(path, lambda stream: stream.write(with_unseen))
    return flags
