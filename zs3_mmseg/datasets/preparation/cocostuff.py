"""COCO-Stuff 164k (Caesar et al., CVPR 2018): COCO 2017 with every pixel labelled.

The official pixel maps hold 0 to 181, where eleven labels never occur, and 255. mmseg
numbers the 171 others 0 to 170 and keeps such maps beside the official ones, with names
that end in ``_labelTrainIds.png``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zs3_mmseg.datasets.preparation.benchmark import Benchmark, Download
from zs3_mmseg.datasets.preparation.counts import Count, count_folder
from zs3_mmseg.datasets.preparation.job import Job, Rule
from zs3_mmseg.datasets.preparation.label_images import look_up, read_label_png
from zs3_mmseg.datasets.splits.classes import COCO_STUFF171, COCO_STUFF182
from zs3_mmseg.utils.labels import IGNORE_INDEX

LABEL_SUFFIX = '_labelTrainIds.png'
_SUBSETS = (('train2017', 118287), ('val2017', 5000))


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


def convert(job: Job) -> None:
    """Renumber the pixel maps."""
    job.apply(_MAPS, label='label maps')


def arrange(job: Job) -> None:
    """Put the images of COCO 2017 and the renumbered maps below the root."""
    job.apply(_IMAGES, label='images')
    convert(job)


def count(root: Path) -> list[Count]:
    """Compare the folders with the official numbers."""
    return [
        count_folder(
            root,
            subset,
            official,
            images=f'images/{subset}',
            labels=f'annotations/{subset}',
            image_suffix='.jpg',
            label_suffix=LABEL_SUFFIX,
        )
        for subset, official in _SUBSETS
    ]


COCOSTUFF164K = Benchmark(
    name='cocostuff164k',
    root='data/coco_stuff164k',
    downloads=(
        Download(
            'train2017.zip',
            'http://images.cocodataset.org/zips/train2017.zip',
            'training images',
            'cced6f7f71b7629ddf16f17bbcfab6b2',
        ),
        Download(
            'val2017.zip',
            'http://images.cocodataset.org/zips/val2017.zip',
            'test images',
            '442b8da7639aecaf257c1dceb8ba8c80',
        ),
        Download(
            'stuffthingmaps_trainval2017.zip',
            'http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/'
            'stuffthingmaps_trainval2017.zip',
            'pixel maps',
        ),
    ),
    arrange=arrange,
    convert=convert,
    count=count,
)
