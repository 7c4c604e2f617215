"""Official ZS3Net checkpoints, segmentor and generators, for this package."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from zs3_mmseg.datasets.splits import ZeroShotSplit, get_split
from zs3_mmseg.utils.checkpoint import CheckpointError, safe_load, state_dict_of

from .core import (
    RESNET_DEPTHS,
    Conversion,
    Converter,
    KeyRule,
    OfficialWeights,
    apply_rules,
    as_text,
    empty_model,
    register_converter,
)


def _parts(weights: OfficialWeights) -> dict[str, Any]:
    """Return the config of the backbone and head that official weights fit."""
    num_classes, channels, _, _ = weights.shape('decoder.pred_conv.weight', 4)
    blocks = tuple(weights.count(f'backbone.layer{stage}') for stage in range(1, 5))
    if blocks not in RESNET_DEPTHS:
        raise CheckpointError(
            f'{weights.what}: stages of {", ".join(map(str, blocks))} blocks are none '
            'of the ResNets 50, 101 and 152'
        )
    stem = weights.shape('backbone.conv1.weight', 4)[0]
    base = weights.shape('backbone.layer1.0.conv1.weight', 4)[0]
    norm = dict(type='BN', requires_grad=True)
    expansion = 4
    widths = dict(stem_channels=stem, base_channels=base)
    return dict(
        backbone=dict(
            type='ResNet',
            depth=RESNET_DEPTHS[blocks],
            strides=(1, 2, 2, 1),
            dilations=(1, 1, 1, 2),
            multi_grid=(2, 4, 8),
            norm_cfg=norm,
            **({} if (stem, base) == (64, 64) else widths),
        ),
        decode_head=dict(
            type='ZS3DeepLabHead',
            in_channels=8 * expansion * base,
            in_index=3,
            channels=channels,
            c1_in_channels=expansion * base,
            c1_channels=weights.shape('decoder.conv1.weight', 4)[0],
            num_classes=num_classes,
            norm_cfg=norm,
        ),
    )


_CONTEXT_ORDER = """
background aeroplane bicycle bird boat bottle bus car cat chair cow table dog horse
motorbike person pottedplant sheep sofa train tvmonitor bag bed bench book building
cabinet ceiling cloth computer cup door fence floor flower food grass ground keyboard
light mountain mouse curtain platform sign plate road rock shelves sidewalk sky snow
bedclothes track tree truck wall water window wood
"""
#: Classes of Pascal-Context in the order of the official code's exp_data.py.
CONTEXT_ORDER = tuple(_CONTEXT_ORDER.split())
_BN = r'(weight|bias|running_mean|running_var|num_batches_tracked)'
_HEAD = 'decode_head.'
# Convolution and norm of each unit there, and the ConvModule of ours.
_UNITS = (
    *(
        (
            rf'aspp\.aspp{n + 1}\.atrous_conv',
            rf'aspp\.aspp{n + 1}\.bn',
            f'aspp_modules.{n}',
        )
        for n in range(4)
    ),
    (r'aspp\.global_avg_pool\.1', r'aspp\.global_avg_pool\.2', 'image_pool.1'),
    (r'aspp\.conv1', r'aspp\.bn1', 'bottleneck.0'),
    (r'decoder\.conv1', r'decoder\.bn1', 'c1_bottleneck.0'),
    (r'decoder\.last_conv\.0', r'decoder\.last_conv\.1', 'decoder.0'),
    (r'decoder\.last_conv\.4', r'decoder\.last_conv\.5', 'decoder.2'),
)
ZS3NET_RULES = (
    KeyRule(r'backbone\..*', r'\g<0>'),
    *(
        KeyRule(rf'{conv}\.weight', f'{_HEAD}{ours}.conv.weight')
        for conv, _, ours in _UNITS
    ),
    *(KeyRule(rf'{norm}\.{_BN}', rf'{_HEAD}{ours}.bn.\1') for _, norm, ours in _UNITS),
    KeyRule(r'decoder\.pred_conv\.(weight|bias)', rf'{_HEAD}conv_seg.\1'),
)
_NOTES = 'It fits a model with the following parts; see configs/zs3net.\n'


@register_converter
class ZS3NetConverter(Converter):
    """Official ZS3Net checkpoints (.pth.tar) -> .pth.

    The classifier's rows are put in the order of the split's classes, which go into the
    result: the official code has another order for Pascal-Context. Sizes are read from
    the shapes, and the report ends with the model config that the result fits.
    """

    name: ClassVar[str] = 'zs3net'
    help: ClassVar[str] = 'official ZS3Net segmentors and generators (.pth.tar)'
    suffix: ClassVar[str] = '.pth'

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the flags that tell what the file itself does not."""
        parser.add_argument(
            '--split',
            required=True,
            help='the split it was trained with: voc12_zs3_K or context_zs3_K for K = '
            '2, 4, 6, 8, 10. Rows of other splits are taken to be in their order',
        )
        parser.add_argument(
            '--generator',
            type=Path,
            metavar='FILE',
            help='official checkpoint of the generator, which is a file of its own',
        )
        parser.add_argument(
            '--generator-out',
            type=Path,
            metavar='FILE.safetensors',
            help='write the weights of GMMNGenerator to this file, and those of '
            'GraphContextGenerator, if there are any, to FILE_graph.safetensors',
        )

    def convert(self, source: Path, arguments: argparse.Namespace) -> Conversion:
        """Read the files, rename their keys and sort the classifier's rows.

        Raises:
            CheckpointError: if a file cannot be read or is not what it should be.
            ValueError: if the flags do not fit each other or the file.
            KeyError: if no split has the name.
        """
        if (arguments.generator is None) != (arguments.generator_out is None):
            raise ValueError('--generator and --generator-out go together')
        split = get_split(arguments.split)
        content = safe_load(source, trust=arguments.trust)
        state = state_dict_of(content, str(source))
        weights = OfficialWeights(state, f'{source} is no official ZS3Net segmentor')
        model = dict(type='EncoderDecoder', **_parts(weights))
        num_classes = model['decode_head']['num_classes']
        if num_classes != len(split.classes):
            raise ValueError(
                f'{source} has {num_classes} classes, but split {split.name!r} '
                f'{len(split.classes)}: --split names another'
            )
        conversion = apply_rules(state, ZS3NET_RULES, empty_model(model).state_dict())
        conversion.state.update(_sorted_rows(conversion.state, split))
        files = {}
        if arguments.generator is not None:
            files = _generators(
                arguments.generator, arguments.generator_out, arguments.trust
            )
        return replace(
            conversion,
            files=files,
            classes=split.classes,
            notes=_NOTES + as_text(model=model),
        )


def _sorted_rows(
    state: Mapping[str, Tensor], split: ZeroShotSplit
) -> dict[str, Tensor]:
    """Return the classifier's weights with rows in the order of the split's classes."""
    if not split.name.startswith('context_zs3_'):
        return {}
    order = torch.tensor([CONTEXT_ORDER.index(name) for name in split.classes])
    keys = [f'{_HEAD}conv_seg.weight', f'{_HEAD}conv_seg.bias']
    return {key: state[key][order] for key in keys if key in state}


def _generators(source: Path, target: Path, trust: bool) -> dict[Path, Conversion]:
    """Read the generators of an official checkpoint: what to write, and where.

    With graph context the file holds two state dicts.
    """
    content = safe_load(source, trust=trust)
    what = f'{source} is no official ZS3Net generator'
    pixels = OfficialWeights(state_dict_of(content, str(source)), what)
    files = {target: _converted(_pixel_generator(pixels), pixels)}
    if content.get('state_dict_GCN') is not None:
        state = state_dict_of(content['state_dict_GCN'], f'{source}: state_dict_GCN')
        graph = OfficialWeights(
            state, f'{source} is no official ZS3Net graph generator'
        )
        path = target.with_name(f'{target.stem}_graph{target.suffix}')
        files[path] = _converted(_graph_generator(graph), graph)
    return files


def _converted(config: dict[str, Any], weights: OfficialWeights) -> Conversion:
    """Check weights against the generator that a config describes."""
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmseg'):
        target = MODELS.build(config).state_dict()
    rules = [KeyRule('.*', r'\g<0>')]
    conversion = apply_rules(weights.state, rules, target, metadata=dict(format='pt'))
    return replace(conversion, notes=as_text(generator=config))


def _pixel_generator(weights: OfficialWeights) -> dict[str, Any]:
    """Return the config of a generator with noise as long as class vectors."""
    if 'model.weight' in weights:
        hidden = 0
        features, inputs = weights.shape('model.weight', 2)
    else:
        hidden, inputs = weights.shape('model.0.weight', 2)
        features = weights.shape('model.3.weight', 2)[0]
    reconstructs = 'semantic_reconstruction_layer.weight' in weights
    return dict(
        type='GMMNGenerator',
        embed_dim=_half(inputs, weights.what),
        feature_dim=features,
        hidden_channels=hidden,
        **(dict(semantic_reconstruction=True) if reconstructs else {}),
    )


def _graph_generator(weights: OfficialWeights) -> dict[str, Any]:
    inputs, hidden = weights.shape('gcn1.weight', 2)
    return dict(
        type='GraphContextGenerator',
        embed_dim=_half(inputs, weights.what),
        feature_dim=weights.shape('gcn2.weight', 2)[1],
        hidden_channels=hidden,
    )


def _half(inputs: int, what: str) -> int:
    if inputs % 2:
        raise CheckpointError(
            f'{what}: {inputs} inputs are no class vector and noise of the same length'
        )
    return inputs // 2
