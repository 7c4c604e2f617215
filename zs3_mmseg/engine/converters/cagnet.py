"""Official CaGNet checkpoints, trunk to generator, for this package."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from zs3_mmseg.datasets.splits import ZeroShotSplit, get_split
from zs3_mmseg.models.segmentors import Vocabulary
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

_HEAD = 'decode_head.'
#: Parts of a block there, by the number of convolution and norm here.
_BLOCK = {'reduce': 1, 'conv3x3': 2, 'increase': 3}
#: Units of the trunk are a convolution and a norm.
_UNIT = r'(conv|bn)\.(\w+)'
_CONTEXT = {
    **{f'contextual{n + 1}': f'scales.{n}' for n in range(3)},
    'fc_1': 'selector',
    'contextualpool': 'pool',
    'contextuallocalmu': 'mean',
    'contextuallocalsigma': 'logvar',
}
_DISCRIMINATOR = {r'fc\.conv': 'shared', 'pred': 'real_fake', 'cls': 'classes'}
_TRUNK = r'back\.scale\.'


CAGNET_RULES = (
    *(
        KeyRule(rf'{_TRUNK}{theirs}\.conv\.weight', f'{_HEAD}context.{ours}.weight')
        for theirs, ours in _CONTEXT.items()
    ),
    KeyRule(r'gen\.mlp\.(\d)\.conv\.(weight|bias)', r'generator.hidden.\1.0.\2'),
    KeyRule(r'gen\.mlp\.\d\.(weight|bias)', r'generator.output.\1'),
    *(
        KeyRule(rf'dis\.{theirs}\.(weight|bias)', rf'{_HEAD}discriminator.{ours}.\1')
        for theirs, ours in _DISCRIMINATOR.items()
    ),
    KeyRule(
        r'Em_(vis|all)\.weight',
        None,
        'class vectors come from model.class_embeddings, and a test needs none',
    ),
)


def trunk_rules(blocks: Sequence[int]) -> list[KeyRule]:
    """Return what happens to the keys of a trunk with so many blocks in each stage."""
    rules = [
        KeyRule(rf'{_TRUNK}layer1\.conv1\.{_UNIT}', r'backbone.\g<1>1.\2'),
        KeyRule(
            rf'{_TRUNK}aspp\.stages\.c(\d)\.(weight|bias)', rf'{_HEAD}pyramid.\1.\2'
        ),
    ]
    for stage, count in enumerate(blocks, start=1):
        # Their blocks count from 1.
        for block in range(count):
            there = rf'{_TRUNK}layer{stage + 1}\.block{block + 1}\.'
            here = f'backbone.layer{stage}.{block}.'
            for part, number in _BLOCK.items():
                ours = rf'{here}\g<1>{number}.\2'
                rules.append(KeyRule(rf'{there}{part}\.{_UNIT}', ours))
            for number, kind in enumerate(('conv', 'bn')):
                ours = rf'{here}downsample.{number}.\1'
                rules.append(KeyRule(rf'{there}proj\.{kind}\.(\w+)', ours))
    return rules


_NOTES = 'It fits a model with the following parts; see configs/cagnet.\n'


def _blocks(weights: OfficialWeights) -> tuple[int, ...]:
    """Return how many blocks each stage of the trunk has."""
    pattern = re.compile(rf'{_TRUNK}layer(\d)\.block(\d+)\.reduce\.conv\.weight')
    found = [match for match in map(pattern.fullmatch, weights.state) if match]
    counts = tuple(
        max((int(m[2]) for m in found if int(m[1]) == stage), default=0)
        for stage in range(2, 6)
    )
    if counts not in RESNET_DEPTHS:
        raise CheckpointError(
            f'{weights.what}: stages of {", ".join(map(str, counts))} blocks are none '
            'of the ResNets 50, 101 and 152'
        )
    return counts


def _parts(weights: OfficialWeights) -> dict[str, Any]:
    """Return the parts of a config that official weights fit, trunk and head."""
    prefix = 'back.scale.'
    outputs = weights.shape('dis.cls.weight', 4)[0]
    channels, wide, _, _ = weights.shape(f'{prefix}aspp.stages.c0.weight', 4)
    stem = weights.shape(f'{prefix}layer1.conv1.conv.weight', 4)[0]
    base = weights.shape(f'{prefix}layer2.block1.reduce.conv.weight', 4)[0]
    return dict(
        backbone=dict(
            type='DeepLabV2ResNet',
            depth=RESNET_DEPTHS[_blocks(weights)],
            **(
                {}
                if (stem, base) == (64, 64)
                else dict(stem_channels=stem, base_channels=base)
            ),
        ),
        decode_head=dict(
            type='CaGNetHead',
            in_channels=wide,
            in_index=3,
            channels=channels,
            num_classes=outputs - 1,
            context=dict(
                mid_channels=weights.shape(f'{prefix}contextual1.conv.weight', 4)[0],
                selector_relu=True,
                logvar_relu=True,
                train_selector=False,
            ),
            hidden_channels=weights.shape('dis.fc.conv.weight', 4)[0],
            background_output=True,
        ),
    )


def _generator(weights: OfficialWeights, channels: int) -> dict[str, Any]:
    hidden = weights.count('gen.mlp') - 1
    inputs = weights.shape('gen.mlp.0.conv.weight', 4)[1]
    return dict(
        type='CaGNetGenerator',
        embed_dim=inputs - channels,
        feature_dim=channels,
        hidden_channels=[
            weights.shape(f'gen.mlp.{n}.conv.weight', 4)[0] for n in range(hidden)
        ],
    )


@register_converter
class CaGNetConverter(Converter):
    """Official CaGNet checkpoints (.pth) -> .pth.

    The classifier's rows, seen classes first there, are put in the order of the split's
    classes; the output without a class stays last. The report ends with the parts of
    the model config that the result fits.
    """

    name: ClassVar[str] = 'cagnet'
    help: ClassVar[str] = 'official CaGNet checkpoints (.pth)'
    suffix: ClassVar[str] = '.pth'

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the flag that tells what the file itself does not."""
        parser.add_argument(
            '--split',
            required=True,
            help='the split it was trained with: voc12_15_5, cagnet_context33 or '
            'cocostuff_167_15',
        )

    def convert(self, source: Path, arguments: argparse.Namespace) -> Conversion:
        """Read the file, rename its keys and sort the classifier's rows.

        Raises:
            CheckpointError: if the file cannot be read or is not what it should be.
            ValueError: if the split has another number of classes.
            KeyError: if no split has the name.
        """
        split = get_split(arguments.split)
        content = safe_load(source, trust=arguments.trust)
        state = state_dict_of(content, str(source))
        weights = OfficialWeights(state, f'{source} is no official CaGNet checkpoint')
        model = _parts(weights)
        head = model['decode_head']
        if head['num_classes'] != len(split.classes):
            raise ValueError(
                f'{source} has {head["num_classes"]} classes, but split '
                f'{split.name!r} {len(split.classes)}: --split names another'
            )
        generator = _generator(weights, head['channels'])
        with torch.device('meta'), DefaultScope.overwrite_default_scope('mmseg'):
            made = MODELS.build(generator).state_dict()
        target = empty_model(model).state_dict() | {
            f'generator.{key}': value for key, value in made.items()
        }
        conversion = apply_rules(
            state, [*CAGNET_RULES, *trunk_rules(_blocks(weights))], target
        )
        conversion.state.update(sorted_rows(conversion.state, split))
        names = Vocabulary(split, 'inductive')
        names.rows_needed = False
        return replace(
            conversion,
            classes=split.classes,
            extra_state=names.state(),
            notes=_NOTES + as_text(model=dict(model, generator=generator)),
        )


#: The order of unseen classes there, where it is not that of the split.
_UNSEEN_ORDER = {'cagnet_context33': ('cow', 'motorbike', 'sofa', 'cat')}
#: Labels of the pixel maps of COCO-Stuff that stand at the end of its seen classes.
_LAST_LABELS = (3, 21, 38, 45, 51, 61, 75, 81, 93, 129, 136, 139)


def official_order(split: ZeroShotSplit) -> tuple[str, ...]:
    """Return the classes in the order of the official classifier's rows."""
    last: tuple[str, ...] = ()
    if split.name == 'cocostuff_167_15':
        last = tuple(split.classes[label] for label in _LAST_LABELS)
    seen = [name for name in split.seen if name not in last]
    return (*seen, *last, *_UNSEEN_ORDER.get(split.name, split.unseen))


def sorted_rows(state: Mapping[str, Tensor], split: ZeroShotSplit) -> dict[str, Tensor]:
    """Return the classifier's weights in the order of the split's classes."""
    order = official_order(split)
    places = [*(order.index(name) for name in split.classes), len(order)]
    keys = [f'{_HEAD}discriminator.classes.{kind}' for kind in ('weight', 'bias')]
    return {key: state[key][places] for key in keys if key in state}
