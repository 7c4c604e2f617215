"""Benchmarks whose makers publish a label map for each image.

The maps of ADE20K are used as they are, those of COCO-Stuff and Cityscapes renumbered.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from zs3_mmseg.datasets.splits.classes import COCO_STUFF171, COCO_STUFF182
from zs3_mmseg.utils.labels import IGNORE_INDEX

from .coco_objects import COCO2017, coco_images
from .counts import count_folders
from .job import Benchmark, Download, Rule, taking
from .labels import label_table, look_up, read_label_png

# ADE20K's scene parsing benchmark (Zhou et al., CVPR 2017), 150 classes. Label maps
# hold 1 to 150, and 0 for pixels of no class; mmseg's ADE20KDataset subtracts one.

_ADE_SUBSETS = {'training': 20210, 'validation': 2000}
_ADE_NAMES = '|'.join(_ADE_SUBSETS)

ADE20K = Benchmark(
    name='ade20k',
    root='data/ade/ADEChallengeData2016',
    downloads=(
        Download(
            'ADEChallengeData2016.zip',
            'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',
            'images and label maps',
        ),
    ),
    arrange=taking(
        images=Rule(rf'images/({_ADE_NAMES})/(ADE_\w+\.jpg)', r'images/\1/\2'),
        label_maps=Rule(
            rf'annotations/({_ADE_NAMES})/(ADE_\w+\.png)', r'annotations/\1/\2'
        ),
    ),
    count=partial(
        count_folders,
        official=_ADE_SUBSETS,
        label_suffix='.png',
    ),
)

# COCO-Stuff 164k (Caesar et al., CVPR 2018): COCO 2017 with every pixel labelled. The
# official pixel maps hold 0 to 181, where eleven labels never occur, and 255. mmseg
# numbers the 171 others 0 to 170 and keeps such maps beside the official ones.

STUFF_SUFFIX = '_labelTrainIds.png'
_STUFF_LABELS = label_table(
    [COCO_STUFF182.index(name) for name in COCO_STUFF171], ignored=[IGNORE_INDEX]
)


def stuff_labels(data: bytes, origin: str) -> np.ndarray:
    """Renumber an official pixel map, (H, W), uint8, 0 to 170 and 255."""
    return look_up(read_label_png(data, origin), _STUFF_LABELS, origin)


_STUFF_IMAGES = Rule(r'(train2017|val2017)/(\d{12}\.jpg)', r'images/\1/\2')
_STUFF_MAPS = Rule(
    r'(train2017|val2017)/(\d{12})\.png',
    rf'annotations/\1/\2{STUFF_SUFFIX}',
    stuff_labels,
)

COCOSTUFF164K = Benchmark(
    name='cocostuff164k',
    root='data/coco_stuff164k',
    downloads=(
        *coco_images(*COCO2017),
        Download(
            'stuffthingmaps_trainval2017.zip',
            'http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/'
            'stuffthingmaps_trainval2017.zip',
            'pixel maps',
        ),
    ),
    arrange=taking(images=_STUFF_IMAGES, label_maps=_STUFF_MAPS),
    convert=taking(label_maps=_STUFF_MAPS),
    count=partial(
        count_folders,
        official=COCO2017,
        label_suffix=STUFF_SUFFIX,
    ),
)

# Cityscapes (Cordts et al., CVPR 2016): 19 training labels, fine annotations. Official
# maps number all 34 labels; the other 15 become 255. Turning ids into training labels
# pixel by pixel gives the same maps as drawing the polygons with training labels, since
# both draw the same polygons in the same order and leave out the same negative ids.

#: The official id of each of the 19 classes, in their order.
CLASS_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
NUM_IDS = 34
CITYSCAPES_SUFFIX = '_gtFine_labelTrainIds.png'
_CITYSCAPES_LABELS = label_table(CLASS_IDS, ignored=range(NUM_IDS))


def train_labels(data: bytes, origin: str) -> np.ndarray:
    """Turn a map of ids into training labels, (H, W), uint8, 0 to 18 and 255."""
    return look_up(read_label_png(data, origin), _CITYSCAPES_LABELS, origin)


_CITY_NAME = r'(train|val)/(\w+)/(\w+)'
_CITYSCAPES_IMAGES = Rule(
    rf'leftImg8bit/{_CITY_NAME}_leftImg8bit\.png',
    r'leftImg8bit/\1/\2/\3_leftImg8bit.png',
)
_CITYSCAPES_MAPS = Rule(
    rf'gtFine/{_CITY_NAME}_gtFine_labelIds\.png',
    rf'gtFine/\1/\2/\3{CITYSCAPES_SUFFIX}',
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
    arrange=taking(images=_CITYSCAPES_IMAGES, label_maps=_CITYSCAPES_MAPS),
    convert=taking(label_maps=_CITYSCAPES_MAPS),
    count=partial(
        count_folders,
        official={'train': 2975, 'val': 500},
        images='leftImg8bit/{}',
        labels='gtFine/{}',
        image_suffix='_leftImg8bit.png',
        label_suffix=CITYSCAPES_SUFFIX,
    ),
)
