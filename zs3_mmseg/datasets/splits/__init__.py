"""Which classes are seen and which are unseen: one table, by name."""

from zs3_mmseg.datasets.splits.fcclip import exactly_seen
from zs3_mmseg.datasets.splits.table import (
    get_split,
    plain_split,
    resolve_split,
    split_names,
)
from zs3_mmseg.datasets.splits.zero_shot_split import (
    NameFinder,
    ZeroShotSplit,
    canonical,
    find_name,
    make_split,
    pseudo_unseen,
    split_from_dict,
)

__all__ = [
    'NameFinder',
    'ZeroShotSplit',
    'canonical',
    'exactly_seen',
    'find_name',
    'get_split',
    'make_split',
    'plain_split',
    'pseudo_unseen',
    'resolve_split',
    'split_from_dict',
    'split_names',
]
