"""ADE20K's scene parsing benchmark (Zhou et al., CVPR 2017), 150 classes.

The official files are used as they are: label maps hold 1 to 150, and 0 for pixels of
no class. mmseg's ``ADE20KDataset`` subtracts one on loading.
"""

from __future__ import annotations

from functools import partial

from zs3_mmseg.datasets.preparation.counts import count_folders
from zs3_mmseg.datasets.preparation.job import Benchmark, Download, Rule, taking

_SUBSETS = {'training': 20210, 'validation': 2000}
_NAMES = '|'.join(_SUBSETS)

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
        images=Rule(rf'images/({_NAMES})/(ADE_\w+\.jpg)', r'images/\1/\2'),
        label_maps=Rule(
            rf'annotations/({_NAMES})/(ADE_\w+\.png)', r'annotations/\1/\2'
        ),
    ),
    count=partial(
        count_folders,
        official=_SUBSETS,
        images='images/{}',
        labels='annotations/{}',
        image_suffix='.jpg',
        label_suffix='.png',
    ),
)
