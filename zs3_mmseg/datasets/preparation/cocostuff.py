"""COCO-Stuff 164k (Caesar et al., CVPR 2018): COCO 2017 with every pixel labelled.

The official pixel maps hold 0 to 181, where eleven labels never occur, and 255. mmseg
numbers the 171 others 0 to 170 and keeps such maps beside the official ones, with names
that end in ``_labelTrainIds.png``.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from zs3_mmseg.datasets.preparation.coco_objects import coco_images
from zs3_mmseg.datasets.preparation.counts import count_folders
from zs3_mmseg.datasets.preparation.job import Benchmark, Download, Rule, taking
from zs3_mmseg.datasets.preparation.labels import look_up, read_label_png
from zs3_mmseg.datasets.splits.classes import COCO_STUFF171, COCO_STUFF182
from zs3_mmseg.utils.labels import IGNORE_INDEX

LABEL_SUFFIX = '_labelTrainIds.png'
_OFFICIAL = {'train2017': 118287, 'val2017': 5000}


def _raw_to_label() -> np.ndarray:
    """Return the label of each raw one, (256,); -1 where it must not occur."""
    table = np.full(256, -1)
    for label, name in enumerate(COCO_STUFF171):
        table[COCO_STUFF182.index(name)] = label
    table[IGNORE_INDEX] = IGNORE_INDEX
    return table


_RAW_TO_LABEL = _raw_to_label()


def stuff_labels(data: bytes, origin: str) -> np.ndarray:
    """Renumber an official pixel map, (H, W), uint8, 0 to 170 and 255."""
    return look_up(read_label_png(data, origin), _RAW_TO_LABEL, origin)


_IMAGES = Rule(r'(train2017|val2017)/(\d{12}\.jpg)', r'images/\1/\2')
_MAPS = Rule(
    r'(train2017|val2017)/(\d{12})\.png',
    rf'annotations/\1/\2{LABEL_SUFFIX}',
    stuff_labels,
)

COCOSTUFF164K = Benchmark(
    name='cocostuff164k',
    root='data/coco_stuff164k',
    downloads=(
        *coco_images(*_OFFICIAL),
        Download(
            'stuffthingmaps_trainval2017.zip',
            'http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/'
            'stuffthingmaps_trainval2017.zip',
            'pixel maps',
        ),
    ),
    arrange=taking(images=_IMAGES, label_maps=_MAPS),
    convert=taking(label_maps=_MAPS),
    count=partial(
        count_folders,
        official=_OFFICIAL,
        images='images/{}',
        labels='annotations/{}',
        image_suffix='.jpg',
        label_suffix=LABEL_SUFFIX,
    ),
)
