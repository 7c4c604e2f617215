"""Pascal-Context (Mottaghi et al., CVPR 2014): VOC 2010 with every pixel labelled.

459 labels were drawn; the benchmark uses the 59 most frequent ones, and everything else
is background, label 0. The masks come as run lengths in one JSON file (the one that
mmseg reads) or as a MATLAB file for each image (the original); either will do, and the
JSON file counts if both are there. Training and testing images are those of VOC 2010.
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from zs3_mmseg.datasets.preparation.archives import PreparationError, Readable
from zs3_mmseg.datasets.preparation.counts import count_lists, names_in, read_list
from zs3_mmseg.datasets.preparation.job import Benchmark, Download, Job, Rule, voc_year
from zs3_mmseg.datasets.preparation.labels import (
    decode_mask,
    image_size,
    image_stem,
    read_mat,
)
from zs3_mmseg.datasets.splits.classes import CONTEXT59

#: The label that each of the 59 classes has among the 459, in the order of the classes.
RAW_LABELS = (
    *(2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98),
    *(104, 105, 113, 115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260),
    *(284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368, 397, 415, 416),
    *(420, 424, 427, 440, 445, 454, 458),
)
NUM_RAW_LABELS = 459
JSON_NAME = 'trainval_merged.json'
_MASKS = 'SegmentationClassContext'
_LISTS = 'ImageSets/SegmentationContext'
_SUBSETS = ('train', 'val')

_THIS_YEAR = voc_year(2010)
_FILES = (
    Rule(rf'{_THIS_YEAR}JPEGImages/([\w-]+\.jpg)', r'JPEGImages/\1'),
    Rule(rf'{_THIS_YEAR}ImageSets/Main/(train|val)\.txt', r'ImageSets/Main/\1.txt'),
)


def _raw_to_label() -> np.ndarray:
    table = np.zeros(NUM_RAW_LABELS + 1, dtype=np.uint8)
    table[list(RAW_LABELS)] = np.arange(1, len(CONTEXT59) + 1)
    return table


_RAW_TO_LABEL = _raw_to_label()


def labels_of_raw(raw: np.ndarray, origin: str) -> np.ndarray:
    """Turn the 459 labels, (H, W), into 1 to 59, uint8; 0 is background.

    Raw labels are 1 to 459, and 0 where nothing was drawn.
    """
    if raw.ndim != 2 or raw.dtype.kind not in 'iu' or not raw.size:
        raise PreparationError(
            f'{origin}: expected a label map (H, W) of integers, got shape '
            f'{raw.shape} of {raw.dtype}'
        )
    if raw.min() < 0 or raw.max() > NUM_RAW_LABELS:
        raise PreparationError(
            f'{origin}: labels from {raw.min()} to {raw.max()}, but there are '
            f'{NUM_RAW_LABELS}'
        )
    return _RAW_TO_LABEL[raw]


def mat_labels(data: bytes, origin: str) -> np.ndarray:
    """Read the label map of one MATLAB file, (H, W), uint8, 0 to 59."""
    return labels_of_raw(read_mat(data, 'LabelMap', origin), origin)


# SBD, which may lie beside it, has files of the same names in cls and inst.
_MAT = Rule(r'(?<!cls/)(?<!inst/)(\d{4}_\d{6})\.mat', rf'{_MASKS}/\1.png', mat_labels)


def arrange(job: Job) -> None:
    """Put the images of VOC 2010 and the label maps below the root."""
    job.apply(*_FILES, label='VOC 2010')
    convert(job)


def convert(job: Job) -> None:
    """Write label maps and lists from the JSON file or the MATLAB files."""
    for origin, stream in job.find(JSON_NAME):
        return _write_lists(job, _convert_json(job, origin, stream))
    if job.apply(_MAT, label='label maps'):
        _write_lists(job, _lists_of_voc(job.root))


def _lists_of_voc(root: Path) -> dict[str, list[str]]:
    """Return the images of VOC 2010 that have a label map, by subset."""
    drawn = set(names_in(root / _MASKS, '.png'))
    lists = {s: read_list(root / f'ImageSets/Main/{s}.txt') for s in _SUBSETS}
    return {subset: sorted(drawn.intersection(lists[subset])) for subset in lists}


def _write_lists(job: Job, lists: dict[str, list[str]]) -> None:
    for subset, names in lists.items():
        if names:
            job.write_list(f'{_LISTS}/{subset}.txt', names)


def _convert_json(job: Job, origin: str, stream: Readable) -> dict[str, list[str]]:
    """Draw the label maps of the JSON file; return the names of each subset."""
    images, annotations = _read_json(stream, origin)
    by_target = {f'{_MASKS}/{image_stem(image, origin)}.png': image for image in images}

    def draw(target: str) -> np.ndarray:
        image = by_target[target]
        where = f'{origin}, {image["file_name"]}'
        height, width = image_size(image, where)
        raw = np.zeros((height, width), dtype=np.int64)
        for number, (category, runs) in enumerate(annotations[image['image_id']]):
            raw[decode_mask(runs, height, width, f'{where}, mask {number}')] = category
        return labels_of_raw(raw, where)

    job.draw_all(sorted(by_target), draw)
    return {
        subset: sorted(
            image_stem(image, origin) for image in images if image['phase'] == subset
        )
        for subset in _SUBSETS
    }


def _read_json(
    stream: Readable, origin: str
) -> tuple[list[dict[str, Any]], dict[int, list[tuple[int, Any]]]]:
    """Return the images that count, and by image id (raw label, run lengths) pairs."""
    try:
        content = json.load(stream)
        images = [i for i in content['images'] if i['phase'] in _SUBSETS]
        annotations: dict[int, list[tuple[int, Any]]] = defaultdict(list)
        for image in images:
            annotations[image['image_id']] = []
        for annotation in content['annos_segmentation']:
            pair = (annotation['category_id'], annotation['segmentation'])
            if not 0 <= pair[0] <= NUM_RAW_LABELS:
                raise ValueError(f'category {pair[0]}')
            annotations[annotation['image_id']].append(pair)
    except (ValueError, KeyError, TypeError) as error:
        raise PreparationError(
            f'{origin} is not the JSON file of Pascal-Context: {error!r}'
        ) from error
    return images, annotations


PASCAL_CONTEXT = Benchmark(
    name='pascal_context',
    root='data/VOCdevkit/VOC2010',
    downloads=(
        Download(
            'VOCtrainval_03-May-2010.tar',
            'http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar',
            'images',
            'da459979d0c395079b5c75ee67908abb',
        ),
        Download(
            JSON_NAME,
            'https://codalabuser.blob.core.windows.net/public/trainval_merged.json',
            'the masks as run lengths',
        ),
        Download(
            'trainval.tar.gz',
            'https://cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz',
            'the masks as MATLAB files, if you have no JSON file',
        ),
    ),
    arrange=arrange,
    convert=convert,
    count=partial(
        count_lists,
        lists=(
            ('train', f'{_LISTS}/train.txt', _MASKS, 4998),
            ('val', f'{_LISTS}/val.txt', _MASKS, 5105),
        ),
    ),
)
