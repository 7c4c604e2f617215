"""What is known of data sets by their files: which are missing, what masks hold."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

import mmcv.transforms
from mmengine.dataset import BaseDataset
from mmengine.fileio import exists
from mmengine.fileio import get as read_file
from mmengine.logging import MMLogger
from mmseg.registry import DATASETS

from zs3_mmseg.utils.cache import atomic_write, cache_dir, content_hash
from zs3_mmseg.utils.config_check import missing_data
from zs3_mmseg.utils.faults import fault
from zs3_mmseg.utils.image_io import no_pictures
from zs3_mmseg.utils.origins import origin_of_data

from .labels import LabelTable, read_labels
from .splits import NameFinder, ZeroShotSplit
from .wrappers import leaves, over_samples

_KEYS = 'change data_root, data_prefix or ann_file of this data set in the config'


def _advice(dataset: object, *more: str) -> str:
    """Return what to do about missing files of a data set or its class's name."""
    origin = origin_of_data(dataset)
    keys = ', or '.join([_KEYS, *more])
    return f'{keys}; or get it: {origin}' if origin else keys


def build_dataset(dataset: Mapping[str, Any] | Any) -> Any:
    """Build a data set unless it is built; explain what is missing if that fails."""
    if not isinstance(dataset, Mapping):
        return dataset
    with explained(dataset):
        return DATASETS.build(dataset)


@contextmanager
def explained(dataset: Mapping[str, Any] | Any) -> Iterator[None]:
    """Say which file is missing if a data set, or its config, cannot read its lists."""
    try:
        yield
    except (AssertionError, OSError, ValueError, TypeError) as error:
        missing = _what_is_missing(dataset)
        if missing is None:
            raise
        raise FileNotFoundError(missing) from error


def _what_is_missing(dataset: Mapping[str, Any] | Any) -> str | None:
    """Say for want of which file a data set could not be built.

    None if every path exists and holds images, wrappers and what they hold included.
    """
    for leaf in leaves(dataset):
        if isinstance(leaf, Mapping):
            name = leaf.get('type', 'data set')
            for option, path in missing_data(leaf, failed=True):
                return f'{name}: {path} ({option}) is missing; {_advice(name)}'
        try:
            if isinstance(leaf, Mapping):
                bare = {**leaf, 'pipeline': [], 'lazy_init': True}
                leaf = DATASETS.build(bare)
            listed = leaf.load_data_list()
        except Exception:  # noqa: BLE001  (then the first error says more)
            continue
        if not listed:
            return _no_images(leaf)
    return None


def _no_images(dataset: BaseDataset) -> str:
    name, listed = type(dataset).__name__, getattr(dataset, 'ann_file', '')
    if listed and os.path.isfile(listed):
        return f'{name}: the list {listed} (ann_file) names no image; {_advice(name)}'
    found = no_pictures(
        dataset.data_prefix.get('img_path') or '', getattr(dataset, 'img_suffix', '')
    )
    return f'{name}: {found}; {_advice(name, "img_suffix")}'


def init_default(owner: type, name: str) -> Any:
    """Return the default of a constructor argument, also of an inherited one.

    A subclass that hands its keyword arguments on keeps the default of its base.
    """
    for ancestor in owner.__mro__:
        init = vars(ancestor).get('__init__')
        if init is None:
            continue
        parameter = inspect.signature(init).parameters.get(name)
        if parameter is not None:
            return parameter.default
    return None


def require_files(dataset: BaseDataset) -> None:
    """Raise an error if a built data set is empty or a file that it lists is missing.

    Other storage backends are asked for the first sample only.
    """
    if not len(dataset):
        raise FileNotFoundError(_no_images(dataset))
    backend = getattr(dataset, 'backend_args', None)
    keys = ['img_path']
    transforms = dataset.pipeline.transforms
    if any(isinstance(t, mmcv.transforms.LoadAnnotations) for t in transforms):
        keys.append('seg_map_path')
    # One look at a folder is cheaper than one at each of its files.
    listed = cache(
        lambda folder: {*os.listdir(folder)} if os.path.isdir(folder) else ()
    )

    def is_there(path: str) -> bool:
        folder, name = os.path.split(path)
        known = not backend and name in listed(folder or os.curdir)
        return known or exists(path, backend_args=backend)

    missing: list[str] = []
    for index in range(1 if backend else len(dataset)):
        info = dataset.get_data_info(index)
        missing += [
            f'{info[key]} ({key})'
            for key in keys
            if isinstance(info.get(key), str) and not is_there(info[key])
        ]
    if missing:
        name, more = type(dataset).__name__, len(missing) - 1
        others = f', as {more} other files are' if more else ''
        fault(
            FileNotFoundError(
                f'{name}: {missing[0]} is missing{others}; {_advice(name)}'
            )
        )


def class_values(dataset: BaseDataset, split: ZeroShotSplit) -> list[int | None]:
    """Return the label value of each class of a split in a data set, None if absent."""
    names = dataset.metainfo.get('classes')
    if names is None:  # its labels are indices into the split's classes already
        return list(range(len(split.classes)))
    finder = NameFinder(names)
    return [finder.find(name) for name in split.classes]


def class_pixels(
    dataset: BaseDataset, table: LabelTable, split: ZeroShotSplit
) -> np.ndarray:
    """Count the pixels of each class in each mask of a data set.

    Every mask is looked at once; the answer is kept in the cache under a hash of the
    masks' bytes, so that changed masks are looked at again. Unseen classes are counted
    as well, whatever the table hides. Returns those of class ``k`` in sample ``i``,
    (N, K), int64.
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
    """Hash what an answer about all masks depends on: bytes, reading, ``parts``."""
    masks = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        content = read_file(
            info['seg_map_path'], backend_args=getattr(dataset, 'backend_args', None)
        )
        # A file may say where its class is, and the data set which one that is.
        own = [str(info['mask_label'])] if 'mask_label' in info else []
        masks.append(content_hash(bytes(content), *own))
    # The palette says what colours mean where masks are drawn in colours.
    reading = (
        f'{type(dataset).__qualname__} {getattr(dataset, "label_map", None)} '
        f'{getattr(dataset, "reduce_zero_label", None)} '
        f'{dataset.metainfo.get("palette")}'
    )
    return content_hash(reading, '\n'.join(masks), *parts)


def images_without_unseen(
    dataset: Any, tables: dict[int, LabelTable], split: ZeroShotSplit
) -> np.ndarray:
    """Return the indices of samples without any unseen class, (N,), ascending.

    ``tables`` holds the label table of each data set inside, by ``id``.
    """

    def hold_unseen(leaf: BaseDataset) -> np.ndarray:
        pixels = class_pixels(leaf, tables[id(leaf)], split)
        flags = np.asarray(pixels[:, list(split.unseen_indices)].any(axis=1))
        MMLogger.get_current_instance().info(
            f'{int(flags.sum())} of {len(leaf)} images hold an unseen class.'
        )
        return flags

    flags = over_samples(dataset, hold_unseen, needed_by="unseen_policy='drop_image'")
    kept = np.flatnonzero(~flags)
    if not len(kept):
        raise ValueError(
            "unseen_policy='drop_image' leaves no image: every mask holds an unseen "
            "class; use unseen_policy='ignore'"
        )
    return kept
