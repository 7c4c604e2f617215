"""ADE20K's scene parsing benchmark (Zhou et al., CVPR 2017), 150 classes.

The official files are used as they are: label maps hold 1 to 150, and 0 for pixels of
no class. mmseg's ``ADE20KDataset`` subtracts one on loading.
"""

from __future__ import annotations

from pathlib import Path

from zs3_mmseg.datasets.preparation.benchmark import Benchmark, Download
from zs3_mmseg.datasets.preparation.counts import Count, count_folder
from zs3_mmseg.datasets.preparation.job import Job, Rule

_SUBSETS = 'training|validation'
_FILES = (
    Rule(rf'images/({_SUBSETS})/(ADE_\w+\.jpg)', r'images/\1/\2'),
    Rule(rf'annotations/({_SUBSETS})/(ADE_\w+\.png)', r'annotations/\1/\2'),
)


def arrange(job: Job) -> None:
    """Put images and label maps below the root."""
    job.apply(*_FILES, label='ADE20K')


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
            label_suffix='.png',
        )
        for subset, official in (('training', 20210), ('validation', 2000))
    ]


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
    arrange=arrange,
    count=count,
)
