"""Cityscapes (Cordts et al., CVPR 2016): 19 training labels, fine annotations.

The official label maps number all 34 labels; the benchmark trains and tests on 19 of
them, and the rest is 255. Turning ids into training labels pixel by pixel gives the
same maps as drawing the polygons with training labels, since both draw the same
polygons in the same order and leave out the same negative ids.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from zs3_mmseg.datasets.preparation.counts import count_folders
from zs3_mmseg.datasets.preparation.job import Benchmark, Download, Rule, taking
from zs3_mmseg.datasets.preparation.labels import look_up, read_label_png
from zs3_mmseg.utils.labels import IGNORE_INDEX

#: The official id of each of the 19 classes, in their order.
CLASS_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
NUM_IDS = 34
LABEL_SUFFIX = '_gtFine_labelTrainIds.png'


def _id_to_label() -> np.ndarray:
    table = np.full(256, -1)
    table[:NUM_IDS] = IGNORE_INDEX
    table[list(CLASS_IDS)] = np.arange(len(CLASS_IDS))
    return table


_ID_TO_LABEL = _id_to_label()


def train_labels(data: bytes, origin: str) -> np.ndarray:
    """Turn a map of ids into training labels, (H, W), uint8, 0 to 18 and 255."""
    return look_up(read_label_png(data, origin), _ID_TO_LABEL, origin)


_NAME = r'(train|val)/(\w+)/(\w+)'
_IMAGES = Rule(
    rf'leftImg8bit/{_NAME}_leftImg8bit\.png', r'leftImg8bit/\1/\2/\3_leftImg8bit.png'
)
_MAPS = Rule(
    rf'gtFine/{_NAME}_gtFine_labelIds\.png',
    rf'gtFine/\1/\2/\3{LABEL_SUFFIX}',
    train_labels,
)

_PAGE = 'https://www.cityscapes-dataset.com/downloads/ (needs an account)'
CITYSCAPES = Benchmark(
    name='cityscapes',
    root='data/cityscapes',
    downloads=(
        Download('leftImg8bit_trainvaltest.zip', _PAGE, 'images'),
        Download('gtFine_trainvaltest.zip', _PAGE, 'label maps'),
    ),
    arrange=taking(images=_IMAGES, label_maps=_MAPS),
    convert=taking(label_maps=_MAPS),
    count=partial(
        count_folders,
        official={'train': 2975, 'val': 500},
        images='leftImg8bit/{}',
        labels='gtFine/{}',
        image_suffix='_leftImg8bit.png',
        label_suffix=LABEL_SUFFIX,
    ),
)
