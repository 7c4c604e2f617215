"""Find the training images without any unseen class."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger

from zs3_mmseg.datasets.label_policy import LabelTable
from zs3_mmseg.datasets.mask_scan import class_pixels, over_samples
from zs3_mmseg.datasets.splits import ZeroShotSplit


def images_without_unseen(
    dataset: Any, tables: dict[int, LabelTable], split: ZeroShotSplit
) -> np.ndarray:
    """Return the indices of the samples that hold no unseen class, ascending.

    Every mask is looked at once, see
    :func:`~zs3_mmseg.datasets.mask_scan.class_pixels`.

    Args:
        dataset: a data set, or ConcatDataset and RepeatDataset around some.
        tables: the label table of each data set inside, by ``id``.
        split: tells which classes are unseen.

    Returns:
        Indices into ``dataset``, (N,), int64.

    Raises:
        TypeError: if another wrapper is inside, whose samples mix several images.
        ValueError: if no image is left.
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
