"""Official ZegFormer checkpoints as checkpoints of this package."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from zs3_mmseg.datasets.splits import resolve_split
from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank
from zs3_mmseg.models.segmentors.vocabulary import RowState, Vocabulary
from zs3_mmseg.utils.checkpoint import CheckpointError, safe_load, state_dict_of

from .core import (
    Conversion,
    Converter,
    KeyRule,
    OfficialWeights,
    apply_rules,
    as_text,
    empty_model,
    register_converter,
)
from .lseg import RESNET_DEPTHS

#: The CLIP whose text tower the rows come from.
PUBLISHED_TEXT = 'ViT-B-16-quickgelu'
#: Heads of the query decoder, which no shape tells.
PUBLISHED_HEADS = 8
_STAGES = 4
_DECODER, _PREDICTOR = 'sem_seg_head.pixel_decoder', 'sem_seg_head.predictor'


def zegformer_rules() -> list[KeyRule]:
    """Return what becomes of the keys of an official state dict."""
    predictor, ours = r'sem_seg_head\.predictor', 'decode_head'
    query = f'{ours}.query_decoder'
    return [
        *_norm_rules(r'backbone\.stem\.conv1', 'backbone.conv1', 'backbone.bn1'),
        *(rule for stage in range(1, _STAGES + 1) for rule in _stage_rules(stage)),
        *(rule for level in range(_STAGES) for rule in _level_rules(level)),
        KeyRule(
            r'sem_seg_head\.pixel_decoder\.(mask_features\..*)',
            rf'{ours}.pixel_decoder.\1',
        ),
        KeyRule(rf'{predictor}\.bg_feature', f'{ours}.no_object'),
        KeyRule(rf'{predictor}\.projection_layer\.(.*)', rf'{ours}.projection.\1'),
        KeyRule(
            rf'{predictor}\.transformer\.decoder\.(layers|norm)\.(.*)',
            rf'{query}.\1.\2',
        ),
        KeyRule(rf'{predictor}\.((query_embed|input_proj)\..*)', rf'{query}.\1'),
        *(
            # A ReLU stands between two layers, and counts.
            KeyRule(
                rf'{predictor}\.mask_embed\.layers\.{layer}\.(.*)',
                rf'{ours}.mask_embed.{2 * layer}.\1',
                'counting',
            )
            for layer in range(3)
        ),
        KeyRule(rf'{predictor}\.logit_scale', None, 'decode_head.scale'),
        KeyRule(
            rf'{predictor}\.clip_model\..*', None, 'CLIP is loaded from its own weights'
        ),
        KeyRule(r'criterion\.empty_weight', None, 'decode_head.loss_masks'),
    ]


def _norm_rules(theirs: str, conv: str, norm: str) -> list[KeyRule]:
    """Return rules of a convolution that holds its norm."""
    return [
        KeyRule(rf'{theirs}\.weight', f'{conv}.weight'),
        KeyRule(rf'{theirs}\.norm\.(.*)', rf'{norm}.\1'),
    ]


def _stage_rules(stage: int) -> list[KeyRule]:
    theirs, ours = rf'backbone\.res{stage + 1}\.(\d+)', rf'backbone.layer{stage}.\1'
    return [
        KeyRule(rf'{theirs}\.shortcut\.weight', rf'{ours}.downsample.0.weight'),
        KeyRule(rf'{theirs}\.shortcut\.norm\.(.*)', rf'{ours}.downsample.1.\2'),
        KeyRule(rf'{theirs}\.conv(\d)\.weight', rf'{ours}.conv\2.weight'),
        KeyRule(rf'{theirs}\.conv(\d)\.norm\.(.*)', rf'{ours}.bn\2.\3'),
    ]


def _level_rules(level: int) -> list[KeyRule]:
    """Return rules of one level of the pixel decoder; they count from 1."""
    rules = []
    for theirs, ours in (('adapter', 'laterals'), ('layer', 'outputs')):
        block = f'decode_head.pixel_decoder.{ours}.{level}'
        rules += _norm_rules(
            rf'sem_seg_head\.pixel_decoder\.{theirs}_{level + 1}',
            f'{block}.conv',
            f'{block}.gn',
        )
    return rules


def _model(weights: OfficialWeights, num_heads: int) -> dict[str, Any]:
    """Return the config of the model whose shapes a file has."""
    blocks = weights.count('backbone.res4')
    if blocks not in RESNET_DEPTHS:
        raise CheckpointError(
            f'{weights.what}: no ResNet has {blocks} blocks in its third stage'
        )
    num_queries, channels = weights.shape(f'{_PREDICTOR}.query_embed.weight', 2)
    layers = f'{_PREDICTOR}.transformer.decoder.layers'
    weights.shape(f'{_PREDICTOR}.logit_scale', 1)
    scale = float(weights.state[f'{_PREDICTOR}.logit_scale'].exp())
    return dict(
        backbone=dict(
            type='ResNet',
            depth=RESNET_DEPTHS[blocks],
            style='pytorch',
            norm_cfg=dict(type='FrozenBN'),
        ),
        decode_head=dict(
            type='ZegFormerHead',
            in_channels=[
                *(
                    weights.shape(f'{_DECODER}.adapter_{level}.weight', 4)[1]
                    for level in range(1, _STAGES)
                ),
                weights.shape(f'{_DECODER}.layer_{_STAGES}.weight', 4)[1],
            ],
            channels=channels,
            embed_dim=weights.shape(f'{_PREDICTOR}.bg_feature', 2)[1],
            pixel_channels=weights.shape(f'{_DECODER}.layer_1.weight', 4)[0],
            mask_channels=weights.shape(f'{_DECODER}.mask_features.weight', 4)[0],
            num_queries=num_queries,
            num_layers=weights.count(layers),
            num_heads=num_heads,
            feedforward_channels=weights.shape(f'{layers}.0.linear1.weight', 2)[0],
            scale=round(scale, 3),
        ),
    )


_NOTES = (
    'It fits a model with the following parts; split, class_embeddings, '
    'data_preprocessor and the second look are as in configs/zegformer.\n'
)


@register_converter
class ZegFormerConverter(Converter):
    """Official ZegFormer checkpoints (.pth) -> .pth.

    Neither text rows nor CLIP are in these files: say with ``--clip`` where it is. The
    report ends with the model config that the result fits.
    """

    name: ClassVar[str] = 'zegformer'
    help: ClassVar[str] = 'official ZegFormer checkpoints (.pth)'
    suffix: ClassVar[str] = '.pth'

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the flags that tell what the file itself does not."""
        parser.add_argument(
            '--heads',
            type=int,
            default=PUBLISHED_HEADS,
            help='attention heads of the query decoder (default: %(default)s)',
        )
        parser.add_argument(
            '--split',
            help='its classes: voc12_15_5 or cocostuff_156_15; with --clip',
        )
        parser.add_argument(
            '--clip',
            metavar='WEIGHTS',
            help='weights of the CLIP of --arch, a tag of open_clip or a file: the '
            'names of the split are encoded and go into the result. Without them it '
            'has to be loaded with --allow-missing',
        )
        parser.add_argument(
            '--arch',
            default=PUBLISHED_TEXT,
            help='the CLIP that encodes names (default: %(default)s, as published)',
        )
        parser.add_argument(
            '--templates',
            default='zegformer',
            help='the sentences: zegformer for VOC (default), imagenet_select for '
            'COCO-Stuff',
        )

    def convert(self, source: Path, arguments: argparse.Namespace) -> Conversion:
        """Read the file and rename its keys.

        Raises:
            CheckpointError: if the file cannot be read or is no ZegFormer checkpoint.
            ValueError: if the flags do not fit each other or the file.
        """
        if (arguments.split is None) != (arguments.clip is None):
            raise ValueError('--split and --clip belong together: give both or neither')
        content = safe_load(source, trust=arguments.trust)
        # detectron2 writes the weights under this key.
        content = content.get('model', content)
        state = state_dict_of(content, str(source))
        what = f'{source} is no official ZegFormer checkpoint'
        weights = OfficialWeights(state, what)
        model = _model(weights, arguments.heads)
        rules, target = zegformer_rules(), empty_model(model).state_dict()
        conversion = apply_rules(state, rules, target)
        rows = None
        if arguments.split is not None:
            rows = dict(_rows(arguments))
            width = model['decode_head']['embed_dim']
            if rows['embeddings'].shape[1] != width:
                raise ValueError(
                    f'{arguments.arch} makes rows of {rows["embeddings"].shape[1]} '
                    f'values, and the queries of {source} have {width}: --arch says '
                    'which CLIP it was'
                )
        notes = _NOTES + as_text(model=model)
        return replace(conversion, extra_state=rows, notes=notes)


def _rows(arguments: argparse.Namespace) -> RowState:
    """Encode the class names of a split."""
    source = dict(type='clip_text', arch=arguments.arch, pretrained=arguments.clip)
    bank = ClassEmbeddingBank(
        source, templates=arguments.templates, reduce_synonyms=True
    )
    return Vocabulary(resolve_split(arguments.split), 'inductive', bank).state()
