"""Python interfaces for users."""

from zs3_mmseg.apis.export import export_onnx, export_program, write_classes
from zs3_mmseg.apis.hub_folder import from_pretrained, save_pretrained
from zs3_mmseg.apis.inferencer import ZeroShotInferencer
from zs3_mmseg.apis.init import DEFAULT_CONFIG, init_segmentor, load_config
from zs3_mmseg.apis.inputs import WebPicture, collect_files
from zs3_mmseg.apis.pseudo_labels import PseudoLabelChoice, make_pseudo_labels
from zs3_mmseg.apis.regions import Region
from zs3_mmseg.apis.segmentation import (
    OutputNames,
    Segmentation,
    write_segmentation,
)
from zs3_mmseg.apis.video import segment_video, video_frames
from zs3_mmseg.utils.shipped import config_folder, find_config, shipped_configs

__all__ = [
    'DEFAULT_CONFIG',
    'OutputNames',
    'PseudoLabelChoice',
    'Region',
    'Segmentation',
    'WebPicture',
    'ZeroShotInferencer',
    'collect_files',
    'config_folder',
    'export_onnx',
    'export_program',
    'find_config',
    'from_pretrained',
    'init_segmentor',
    'load_config',
    'make_pseudo_labels',
    'save_pretrained',
    'segment_video',
    'shipped_configs',
    'video_frames',
    'write_classes',
    'write_segmentation',
]
