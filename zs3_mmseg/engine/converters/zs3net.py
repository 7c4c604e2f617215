"""Official ZS3Net checkpoints, segmentor and generators, for this package."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from zs3_mmseg.datasets.splits import ZeroShotSplit, get_split
from zs3_mmseg.models.generators import GMMNGenerator, GraphContextGenerator
from zs3_mmseg.utils.checkpoint import CheckpointError, safe_load, state_dict_of

from .clip import count_numbered, shape_reader
from .core import Conversion, Converter, Rule, apply_rules, register_converter

#: Blocks of each stage to the name of the network.
_DEPTHS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}


@dataclass(frozen=True)
class ZS3NetLayout:
    """Sizes of a ZS3Net segmentor.

    Attributes:
        depth: of the ResNet.
        stem_channels: of its first convolution.
        base_channels: of the first stage's inner convolutions.
        channels: of the pyramid and of what enters the classifier.
        c1_channels: of the details that join it.
        num_classes: outputs, seen and unseen.
    """

    depth: int
    stem_channels: int
    base_channels: int
    channels: int
    c1_channels: int
    num_classes: int

    @classmethod
    def of(cls, state: Mapping[str, Tensor], what: str) -> ZS3NetLayout:
        """Read the sizes of an official state dict.

        Args:
            state: with the official keys.
            what: how messages call it, e.g. the file.

        Raises:
            CheckpointError: if a weight that tells a size is not there, or the ResNet
                is of no known depth.
        """
        shape = shape_reader(state, f'{what} is no official ZS3Net segmentor')
        num_classes, channels, _, _ = shape('decoder.pred_conv.weight', 4)
        blocks = tuple(
            count_numbered(state, f'backbone.layer{stage}') for stage in range(1, 5)
        )
        if blocks not in _DEPTHS:
            raise CheckpointError(
                f'{what}: stages of {", ".join(map(str, blocks))} blocks are none of '
                'the ResNets 50, 101 and 152'
            )
        return cls(
            depth=_DEPTHS[blocks],
            stem_channels=shape('backbone.conv1.weight', 4)[0],
            base_channels=shape('backbone.layer1.0.conv1.weight', 4)[0],
            channels=channels,
            c1_channels=shape('decoder.conv1.weight', 4)[0],
            num_classes=num_classes,
        )

    def model_config(self) -> dict[str, Any]:
        """Return the parts of a segmentor's config that a checkpoint fits."""
        norm = dict(type='BN', requires_grad=True)
        expansion = 4
        widths: dict[str, int] = {}
        if (self.stem_channels, self.base_channels) != (64, 64):
            widths = dict(
                stem_channels=self.stem_channels, base_channels=self.base_channels
            )
        return dict(
            backbone=dict(
                type='ResNet',
                depth=self.depth,
                strides=(1, 2, 2, 1),
                dilations=(1, 1, 1, 2),
                multi_grid=(2, 4, 8),
                norm_cfg=norm,
                **widths,
            ),
            decode_head=dict(
                type='ZS3DeepLabHead',
                in_channels=8 * expansion * self.base_channels,
                in_index=3,
                channels=self.channels,
                c1_in_channels=expansion * self.base_channels,
                c1_channels=self.c1_channels,
                num_classes=self.num_classes,
                norm_cfg=norm,
            ),
        )

    def empty_model(self) -> nn.Module:
        """Build what holds the weights, without memory for any."""
        with (
            torch.device('meta'),
            DefaultScope.overwrite_default_scope('mmseg'),
        ):
            model = nn.Module()
            for name, config in self.model_config().items():
                model.add_module(name, MODELS.build(config))
        return model


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
ZS3NET_RULES = (
    Rule(r'backbone\..*', r'\g<0>'),
    *(
        rule
        for number in range(4)
        for rule in (
            Rule(
                rf'aspp\.aspp{number + 1}\.atrous_conv\.weight',
                f'{_HEAD}aspp_modules.{number}.conv.weight',
            ),
            Rule(
                rf'aspp\.aspp{number + 1}\.bn\.{_BN}',
                rf'{_HEAD}aspp_modules.{number}.bn.\1',
            ),
        )
    ),
    *(
        rule
        for conv, norm, ours in (
            (r'aspp\.global_avg_pool\.1', r'aspp\.global_avg_pool\.2', 'image_pool.1'),
            (r'aspp\.conv1', r'aspp\.bn1', 'bottleneck.0'),
            (r'decoder\.conv1', r'decoder\.bn1', 'c1_bottleneck.0'),
            (r'decoder\.last_conv\.0', r'decoder\.last_conv\.1', 'decoder.0'),
            (r'decoder\.last_conv\.4', r'decoder\.last_conv\.5', 'decoder.2'),
        )
        for rule in (
            Rule(rf'{conv}\.weight', f'{_HEAD}{ours}.conv.weight'),
            Rule(rf'{norm}\.{_BN}', rf'{_HEAD}{ours}.bn.\1'),
        )
    ),
    Rule(r'decoder\.pred_conv\.(weight|bias)', rf'{_HEAD}conv_seg.\1'),
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
        layout = ZS3NetLayout.of(state, str(source))
        if layout.num_classes != len(split.classes):
            raise ValueError(
                f'{source} has {layout.num_classes} classes, but split {split.name!r} '
                f'{len(split.classes)}: --split names another'
            )
        conversion = apply_rules(state, ZS3NET_RULES, layout.empty_model().state_dict())
        conversion.state.update(_sorted_rows(conversion.state, split))
        files = {}
        if arguments.generator is not None:
            files = _generators(
                arguments.generator, arguments.generator_out, arguments.trust
            )
        model = dict(type='EncoderDecoder', **layout.model_config())
        return replace(
            conversion,
            files=files,
            dataset_meta=dict(classes=list(split.classes)),
            notes=_NOTES + Config(dict(model=model)).pretty_text,
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
    """Read the generators of an official checkpoint.

    Args:
        source: the file; with graph context it holds two state dicts.
        target: where the first goes.
        trust: see ``safe_load``.

    Returns:
        what to write, and where.
    """
    content = safe_load(source, trust=trust)
    state = state_dict_of(content, str(source))
    files = {target: _weights(_pixel_generator(state, str(source)), state)}
    graph = content.get('state_dict_GCN')
    if graph is not None:
        path = target.with_name(f'{target.stem}_graph{target.suffix}')
        graph = state_dict_of(graph, f'{source}: state_dict_GCN')
        files[path] = _weights(_graph_generator(graph, str(source)), graph)
    return files


def _weights(
    found: tuple[nn.Module, dict[str, Any]], state: Mapping[str, Tensor]
) -> Conversion:
    model, config = found
    conversion = apply_rules(
        state, [Rule('.*', r'\g<0>')], model.state_dict(), metadata=dict(format='pt')
    )
    return replace(conversion, notes=Config(dict(generator=config)).pretty_text)


def _pixel_generator(
    state: Mapping[str, Tensor], what: str
) -> tuple[GMMNGenerator, dict[str, Any]]:
    """Build a generator of a checkpoint's sizes, noise as long as class vectors."""
    what = f'{what} is no official ZS3Net generator'
    shape = shape_reader(state, what)
    if 'model.weight' in state:
        hidden = 0
        features, inputs = shape('model.weight', 2)
    else:
        hidden, inputs = shape('model.0.weight', 2)
        features = shape('model.3.weight', 2)[0]
    options: dict[str, Any] = dict(
        embed_dim=_half(inputs, what),
        feature_dim=features,
        hidden_channels=hidden,
    )
    if 'semantic_reconstruction_layer.weight' in state:
        options['semantic_reconstruction'] = True
    with torch.device('meta'):
        return GMMNGenerator(**options), dict(type='GMMNGenerator', **options)


def _graph_generator(
    state: Mapping[str, Tensor], what: str
) -> tuple[GraphContextGenerator, dict[str, Any]]:
    """Build a graph generator of a checkpoint's sizes."""
    what = f'{what} is no official ZS3Net graph generator'
    shape = shape_reader(state, what)
    inputs, hidden = shape('gcn1.weight', 2)
    options = dict(
        embed_dim=_half(inputs, what),
        feature_dim=shape('gcn2.weight', 2)[1],
        hidden_channels=hidden,
    )
    with torch.device('meta'):
        generator = GraphContextGenerator(**options)
    return generator, dict(type='GraphContextGenerator', **options)


def _half(inputs: int, what: str) -> int:
    if inputs % 2:
        raise CheckpointError(
            f'{what}: {inputs} inputs are no class vector and noise of the same length'
        )
    return inputs // 2
