"""Proposers: masks of an image that know no class yet, cached by what the image holds.

Two-stage methods find masks first and name them second. A proposer is the first half;
:mod:`zs3_mmseg.models.region_classifiers` is the second, and
:class:`~zs3_mmseg.models.decode_heads.ProposalHead` puts them together.
"""

from .mask_files import MaskFileProposer
from .proposer import Proposer
from .query_masks import QueryMaskProposer
from .sam import SAMProposer
from .superpixels import SuperpixelProposer

__all__ = [
    'MaskFileProposer',
    'Proposer',
    'QueryMaskProposer',
    'SAMProposer',
    'SuperpixelProposer',
]
