"""PASCAL VOC 2012, with the further masks of SBD (Hariharan et al., ICCV 2011).

The layout is mmseg's: ``SegmentationClass`` holds VOC's own masks,
``SegmentationClassAug`` those of SBD. VOC's ``train.txt`` and the new ``aug.txt``
together are the 10,582 training images of the literature: everything that SBD or VOC
has a mask of, but VOC's val images. Where both have one, VOC's is used.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from zs3_mmseg.datasets.preparation.archives import PreparationError
from zs3_mmseg.datasets.preparation.counts import count_lists, names_in, read_list
from zs3_mmseg.datasets.preparation.job import Benchmark, Download, Job, Rule, voc_year
from zs3_mmseg.datasets.preparation.labels import read_mat, require_labels
from zs3_mmseg.datasets.splits.classes import VOC20

_LISTS = 'ImageSets/Segmentation'
_SUBSETS = ('train', 'val')
_THIS_YEAR = voc_year(2012)
_FILES = (
    Rule(rf'{_THIS_YEAR}JPEGImages/([\w-]+\.jpg)', r'JPEGImages/\1'),
    Rule(rf'{_THIS_YEAR}SegmentationClass/([\w-]+\.png)', r'SegmentationClass/\1'),
    Rule(rf'{_THIS_YEAR}{_LISTS}/(train|val|trainval)\.txt', rf'{_LISTS}/\1.txt'),
)


def sbd_labels(data: bytes, origin: str) -> np.ndarray:
    """Read the label map of a class annotation of SBD, (H, W), uint8, 0 to 20."""
    struct = read_mat(data, 'GTcls', origin)
    try:
        labels = struct['Segmentation'][0, 0]
    except (ValueError, IndexError, TypeError) as error:
        raise PreparationError(f'{origin}: GTcls has no Segmentation') from error
    return require_labels(labels, len(VOC20), origin).astype(np.uint8)


_MASKS = Rule(r'cls/(\d{4}_\d{6})\.mat', r'SegmentationClassAug/\1.png', sbd_labels)
_SBD_LISTS = Rule(r'dataset/(train|val)\.txt', r'ImageSets/SBD/\1.txt')


def convert(job: Job) -> None:
    """Turn the masks of SBD into PNG files and write the lists that use them."""
    job.apply(_MASKS, _SBD_LISTS, label='masks of SBD')
    _write_lists(job)


def arrange(job: Job) -> None:
    """Put VOC 2012 and SBD below the root."""
    job.apply(*_FILES, label='VOC 2012')
    convert(job)


def _write_lists(job: Job) -> None:
    train, val = (set(read_list(job.root / _LISTS / f'{s}.txt')) for s in _SUBSETS)
    listed = {
        name
        for subset in _SUBSETS
        for name in read_list(job.root / f'ImageSets/SBD/{subset}.txt')
    }
    drawn = set(names_in(job.root / 'SegmentationClassAug', '.png'))
    if not train or not listed:
        return
    aug = (listed & drawn) - train - val
    job.write_list(f'{_LISTS}/aug.txt', sorted(aug))
    job.write_list(f'{_LISTS}/trainaug.txt', sorted(aug | train))


VOC12 = Benchmark(
    name='voc12',
    root='data/VOCdevkit/VOC2012',
    downloads=(
        Download(
            'VOCtrainval_11-May-2012.tar',
            'http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar',
            'images, masks and lists',
            '6cd6e144f989b92b3379bac3b3de84fd',
        ),
        Download(
            'benchmark.tgz',
            'https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/'
            'semantic_contours/benchmark.tgz',
            'the masks of SBD',
            '82b4d87ceb2ed10f6038a1cba92111cb',
        ),
    ),
    arrange=arrange,
    convert=convert,
    count=partial(
        count_lists,
        lists=(
            ('train', f'{_LISTS}/train.txt', 'SegmentationClass', 1464),
            ('val', f'{_LISTS}/val.txt', 'SegmentationClass', 1449),
            (
                'aug, without train',
                f'{_LISTS}/aug.txt',
                'SegmentationClassAug',
                10582 - 1464,
            ),
        ),
    ),
)
