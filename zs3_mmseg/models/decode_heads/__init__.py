"""Decode heads that read class embeddings at run time."""

from .esda_head import ESDAHead
from .lseg_head import LSegHead
from .mask_scores import MaskScores
from .proposal_head import ProposalHead
from .sazs_head import SAZSHead
from .spec_fuse_head import SpecFuseHead
from .text_heads import CosineRegressionHead, DenseTextHead, TextPixelHead
from .zegclip_head import ZegCLIPHead
from .zero_shot_head import ZeroShotHead
from .zs3_deeplab_head import ZS3DeepLabHead

__all__ = [
    'CosineRegressionHead',
    'DenseTextHead',
    'ESDAHead',
    'LSegHead',
    'MaskScores',
    'ProposalHead',
    'SAZSHead',
    'SpecFuseHead',
    'TextPixelHead',
    'ZS3DeepLabHead',
    'ZegCLIPHead',
    'ZeroShotHead',
]
