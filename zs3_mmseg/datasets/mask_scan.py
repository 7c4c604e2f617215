"""Which classes each mask holds, counted once for each content."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.fileio import get as read_file
from mmengine.logging import MMLogger

from zs3_mmseg.datasets.label_policy import LabelTable
from zs3_mmseg.datasets.pipeline_guard import read_labels
from zs3_mmseg.datasets.splits import ZeroShotSplit, find_name
from zs3_mmseg.utils.cache import atomic_write, cache_dir, content_hash


def over_samples(
    dataset: Any, of_leaf: Callable[[BaseDataset], np.ndarray], *, needed_by: str
) -> np.ndarray:
    """Put together what is known of each sample of the data sets inside wrappers.

    Args:
        dataset: a data set, or ConcatDataset and RepeatDataset around some.
        of_leaf: gives one row for each sample of a data set that reads files.
        needed_by: what cannot do without, for the message.

    Returns:
        One row for each sample of ``dataset``.

    Raises:
        TypeError: if another wrapper is inside, whose samples mix several images.
    """
    if isinstance(dataset, ConcatDataset):
        parts = [
            over_samples(d, of_leaf, needed_by=needed_by) for d in dataset.datasets
        ]
        return np.concatenate(parts)
    if isinstance(dataset, RepeatDataset):
        rows = over_samples(dataset.dataset, of_leaf, needed_by=needed_by)
        return np.concatenate([rows] * dataset.times)
    if not isinstance(dataset, BaseDataset):
        raise TypeError(
            f'{needed_by} works on data sets in ConcatDataset and RepeatDataset, not '
            f'inside {type(dataset).__name__}'
        )
    return of_leaf(dataset)


def class_values(dataset: BaseDataset, split: ZeroShotSplit) -> list[int | None]:
    """Return the label value of each class of a split in a data set, None if absent."""
    names = dataset.metainfo.get('classes')
    if names is None:  # its labels are indices into the split's classes already
        return list(range(len(split.classes)))
    return [find_name(name, names) for name in split.classes]


def class_pixels(
    dataset: BaseDataset, table: LabelTable, split: ZeroShotSplit
) -> np.ndarray:
    """Count the pixels of each class in each mask of a data set.

    Every mask is looked at once; the answer is kept in the cache under a hash of the
    masks' bytes, so that changed masks are looked at again. Unseen classes are counted
    as well, whatever the table hides.

    Args:
        dataset: a data set whose pipeline loads label maps.
        table: its label table; tells which values are legal.
        split: the classes.

    Returns:
        Pixels of class ``k`` in sample ``i``, (N, K), int64.

    Raises:
        ValueError: naming the file, if a label map is wrong.
    """
    values = class_values(dataset, split)
    key = masks_key(dataset, 'class pixels, 1', json.dumps(values))
    path = cache_dir() / 'class_pixels' / f'{key}.json'
    if path.is_file():
        return _dense(json.loads(path.read_text()), len(values))
    logger = MMLogger.get_current_instance()
    logger.info(f'Looking for classes in {len(dataset)} masks (once).')
    found: list[dict[int, int]] = []
    index_of = {value: k for k, value in enumerate(values) if value is not None}
    for index in range(len(dataset)):
        labels = read_labels(dataset, index)
        table.check(labels, str(dataset.get_data_info(index).get('seg_map_path')))
        present, pixels = np.unique(labels, return_counts=True)
        counted = zip(present.tolist(), pixels.tolist(), strict=True)
        found.append({index_of[v]: n for v, n in counted if v in index_of})
    text = json.dumps(found)
    atomic_write(path, lambda stream: stream.write(text.encode()))
    return _dense(found, len(values))


def _dense(found: list[dict], num_classes: int) -> np.ndarray:
    counts = np.zeros((len(found), num_classes), dtype=np.int64)
    for row, present in zip(counts, found, strict=True):
        for index, pixels in present.items():  # JSON has made the keys strings
            row[int(index)] = pixels
    return counts


def masks_key(dataset: BaseDataset, *parts: bytes | str) -> str:
    """Hash what an answer about all masks depends on: their bytes and their reading.

    Args:
        dataset: the data set.
        parts: what else the answer depends on.
    """
    masks = []
    for index in range(len(dataset)):
        path = dataset.get_data_info(index)['seg_map_path']
        content = read_file(path, backend_args=getattr(dataset, 'backend_args', None))
        masks.append(content_hash(bytes(content)))
    # The palette says what colours mean where masks are drawn in colours.
    reading = (
        f'{type(dataset).__qualname__} {getattr(dataset, "label_map", None)} '
        f'{getattr(dataset, "reduce_zero_label", None)} '
        f'{dataset.metainfo.get("palette")}'
    )
    return content_hash(reading, '\n'.join(masks), *parts)
