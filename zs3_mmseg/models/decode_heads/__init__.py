"""Decode heads that read class embeddings at run time."""

from .attribute_head import AttributeHead
from .cagnet_head import CaGNetHead
from .closed_form_heads import BilinearCompatibilityHead, SemanticAutoencoderHead
from .esda_head import ESDAHead
from .fcclip_head import FCCLIPHead
from .group_token_head import GroupTokenHead
from .guided_head import GuidedHead
from .hierarchical_text_head import HierarchicalTextHead
from .lseg_head import LSegHead
from .mask_scores import MaskScores
from .object_centric_head import ObjectCentricHead
from .openseg_head import OpenSegHead
from .proposal_head import ProposalHead
from .relation_head import RelationHead
from .sam3_head import SAM3Head
from .sazs_head import SAZSHead
from .spec_fuse_head import SpecFuseHead
from .text_heads import CosineRegressionHead, DenseTextHead, TextPixelHead
from .zegclip_head import ZegCLIPHead
from .zegformer_head import ZegFormerHead
from .zero_shot_head import ZeroShotHead
from .zs3_deeplab_head import ZS3DeepLabHead

__all__ = [
    'AttributeHead',
    'BilinearCompatibilityHead',
    'CaGNetHead',
    'CosineRegressionHead',
    'DenseTextHead',
    'ESDAHead',
    'FCCLIPHead',
    'GroupTokenHead',
    'GuidedHead',
    'HierarchicalTextHead',
    'LSegHead',
    'MaskScores',
    'ObjectCentricHead',
    'OpenSegHead',
    'ProposalHead',
    'RelationHead',
    'SAM3Head',
    'SAZSHead',
    'SemanticAutoencoderHead',
    'SpecFuseHead',
    'TextPixelHead',
    'ZS3DeepLabHead',
    'ZegCLIPHead',
    'ZegFormerHead',
    'ZeroShotHead',
]
