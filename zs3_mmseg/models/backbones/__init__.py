"""Backbones."""

from .deeplabv2_resnet import DeepLabV2ResNet
from .extra_tokens import ClusterTokens, ExtraTokens, RegionTokens
from .frozen import FrozenBackbone, FrozenBatchNorm
from .group_vit import GroupViTBackbone
from .last_attention import LAST_ATTENTION
from .open_clip_conv import OpenCLIPConvNeXt, OpenCLIPResNet
from .open_clip_vit import OpenCLIPViT
from .outputs import TowerOutput
from .pyramid_drn import PyramidDRN
from .readout_vit import ReadoutViT
from .sam3 import SAM3Backbone
from .timm_vit import TimmViT

__all__ = [
    'LAST_ATTENTION',
    'ClusterTokens',
    'DeepLabV2ResNet',
    'ExtraTokens',
    'FrozenBackbone',
    'FrozenBatchNorm',
    'GroupViTBackbone',
    'OpenCLIPConvNeXt',
    'OpenCLIPResNet',
    'OpenCLIPViT',
    'PyramidDRN',
    'ReadoutViT',
    'RegionTokens',
    'SAM3Backbone',
    'TimmViT',
    'TowerOutput',
]
