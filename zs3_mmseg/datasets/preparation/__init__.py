"""Bring the official files of the benchmarks into the layout that the configs read."""

from zs3_mmseg.datasets.preparation.archives import PreparationError, UnsafeArchiveError
from zs3_mmseg.datasets.preparation.counts import Count, summary
from zs3_mmseg.datasets.preparation.prepare import (
    BENCHMARKS,
    Report,
    convert_labels,
    prepare,
)

__all__ = [
    'BENCHMARKS',
    'Count',
    'PreparationError',
    'Report',
    'UnsafeArchiveError',
    'convert_labels',
    'prepare',
    'summary',
]
