"""Official LSeg checkpoints as checkpoints of this package."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from zs3_mmseg.datasets.splits import plain_split, resolve_split
from zs3_mmseg.models.decode_heads.lseg_head import ACTIVATIONS, SPATIAL_BLOCKS, STRIDES
from zs3_mmseg.models.towers import Architecture, resolve_architecture
from zs3_mmseg.utils.checkpoint import (
    CheckpointError,
    rename_keys,
    safe_load,
    state_dict_of,
)

from .clip import add_tower_arguments, encoded_rows, require_quick_gelu, text_tower
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

#: Length of a text row to the CLIP of OpenAI whose text tower gives it.
PUBLISHED_ARCH = {512: 'ViT-B-32-quickgelu', 768: 'RN50x16-quickgelu'}
#: Width, blocks and patch size to the ViT of timm.
PUBLISHED_VIT = {
    (1024, 24, 16): 'vit_large_patch16_384',
    (768, 12, 32): 'vit_base_patch32_384',
    (768, 12, 16): 'vit_base_patch16_384',
}
#: Blocks of the third stage to the depth of a ResNet with bottlenecks.
RESNET_DEPTHS = {6: 50, 23: 101, 36: 152}
#: The word that stands for anything else in the two-word networks.
OTHER_NAME = 'others'
#: The words of the code, by the first part of a split's name.
PUBLISHED_TEXTS = {'ade20k': 'lseg_ade20k', 'coco20i': 'lseg_coco'}

_TEXT_KEYS = (
    r'(positional_embedding|text_projection|token_embedding\.weight'
    r'|ln_final\.(weight|bias)|transformer\.resblocks\.\d+\..*)'
)
_DECODER = 'decode_head.reassemble_blocks'


def lseg_rules() -> list[KeyRule]:
    """Return what becomes of the keys of an official LSeg state dict."""
    unread = 'no output of the network depends on it'
    return [
        KeyRule(r'clip_pretrained\.(visual\..*|logit_scale)', None, unread),
        KeyRule(
            rf'clip_pretrained\.{_TEXT_KEYS}',
            None,
            'the rows it gave are kept instead',
        ),
        KeyRule(r'pretrained\.model\.(norm|head)\..*', None, unread),
        KeyRule(r'scratch\.refinenet4\.resConfUnit1\..*', None, unread),
        KeyRule(r'pretrained\.model\.(.*)', r'backbone.vit.\1'),
        *_counted(
            r'pretrained\.act_postprocess{theirs}\.0\.project\.0\.(.*)',
            _DECODER + r'.readout_projects.{ours}.0.\1',
        ),
        *_counted(
            r'pretrained\.act_postprocess{theirs}\.3\.(.*)',
            _DECODER + r'.projects.{ours}.conv.\1',
        ),
        *_counted(
            r'pretrained\.act_postprocess{theirs}\.4\.(.*)',
            _DECODER + r'.resize_layers.{ours}.\1',
        ),
        KeyRule(r'pretrained\.layer1\.0\.(.*)', r'backbone.conv1.\1', 'the stem'),
        KeyRule(r'pretrained\.layer1\.1\.(.*)', r'backbone.bn1.\1', 'the stem'),
        KeyRule(r'pretrained\.layer1\.4\.(.*)', r'backbone.layer1.\1'),
        KeyRule(r'pretrained\.(layer[234]\..*)', r'backbone.\1'),
        *_counted(r'scratch\.layer{theirs}_rn\.(.*)', r'decode_head.convs.{ours}.\1'),
        *(
            rule
            for level in range(1, 5)
            # The coarsest is the first here.
            for rule in _fusion_rules(rf'scratch\.refinenet{level}', 4 - level)
        ),
        KeyRule(r'scratch\.head1\.(.*)', r'decode_head.projection.\1'),
        KeyRule(
            r'scratch\.head_block\.depthwise\.depthwise\.(.*)',
            r'decode_head.spatial_block.conv.\1',
        ),
    ]


def _counted(pattern: str, replacement: str) -> list[KeyRule]:
    """Return rules for parts that they count from 1 and we from 0."""
    return [
        KeyRule(
            pattern.format(theirs=level + 1), replacement.format(ours=level), 'counting'
        )
        for level in range(len(STRIDES))
    ]


def _fusion_rules(theirs: str, ours: int) -> list[KeyRule]:
    block = f'decode_head.fusion_blocks.{ours}'
    unit = rf'{theirs}\.resConfUnit(\d)'
    return [
        KeyRule(rf'{theirs}\.out_conv\.(.*)', rf'{block}.project.conv.\1'),
        KeyRule(rf'{unit}\.conv(\d)\.(.*)', rf'{block}.res_conv_unit\1.conv\2.conv.\3'),
        KeyRule(rf'{unit}\.bn(\d)\.(.*)', rf'{block}.res_conv_unit\1.conv\2.bn.\3'),
    ]


def _backbone(weights: OfficialWeights) -> dict[str, Any]:
    """Return the config of the trunk."""
    if 'pretrained.model.cls_token' not in weights:
        weights.shape('pretrained.layer1.0.weight', 4)
        blocks = weights.count('pretrained.layer3')
        if blocks not in RESNET_DEPTHS:
            raise CheckpointError(
                f'{weights.what}: no ResNet has {blocks} blocks in its third stage'
            )
        return dict(
            type='ResNet',
            depth=RESNET_DEPTHS[blocks],
            style='pytorch',
            norm_cfg=dict(type='BN'),
        )
    width, _, patch, _ = weights.shape('pretrained.model.patch_embed.proj.weight', 4)
    depth = weights.count('pretrained.model.blocks')
    positions = weights.shape('pretrained.model.pos_embed', 3)[1] - 1
    side = math.isqrt(positions) * patch
    options: dict[str, Any] = dict(img_size=side)
    model = PUBLISHED_VIT.get((width, depth, patch))
    if model is None:
        model = 'vit_base_patch16_384'
        options |= dict(
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=max(width // 64, 1),
        )
    # The ends of four equal parts, as published.
    taps = [depth * (part + 1) // 4 - 1 for part in range(4)]
    return dict(type='TimmViT', model=model, out_indices=taps, **options)


def _head(
    weights: OfficialWeights, spatial_block: str | None, depth: int, activation: str
) -> dict[str, Any]:
    """Return the config of the decoder."""
    levels = range(1, len(STRIDES) + 1)
    widths = [weights.shape(f'scratch.layer{i}_rn.weight', 4)[1] for i in levels]
    head = dict(
        type='LSegHead',
        in_channels=widths,
        channels=weights.shape('scratch.layer1_rn.weight', 4)[0],
        embed_dim=weights.shape('scratch.head1.weight', 4)[0],
        in_index=[0, 1, 2, 3],
    )
    if 'pretrained.model.cls_token' in weights:
        width, _, patch, _ = weights.shape(
            'pretrained.model.patch_embed.proj.weight', 4
        )
        head |= dict(
            in_channels=[width] * len(STRIDES),
            post_process_channels=widths,
            patch_size=patch,
        )
    has_block = 'scratch.head_block.depthwise.depthwise.weight' in weights
    if has_block and spatial_block is None:
        raise ValueError(
            'the checkpoint has a spatial block and does not tell of which kind: say '
            '--spatial-block bottleneck or depthwise'
        )
    if spatial_block is not None:
        head |= dict(
            spatial_block=spatial_block, block_depth=depth, activation=activation
        )
    return head


#: Options of the bank that gives the rows: the bare words.
_BANK: dict[str, Any] = dict(templates='bare')

_NOTES = (
    'It fits a model with the following parts. What the file does not tell is as in '
    'configs/lseg: the blocks that are read, the data_preprocessor.\n'
)


@register_converter
class LSegConverter(Converter):
    """Official LSeg checkpoints (PyTorch Lightning, .ckpt) -> .pth.

    Multi-class and two-word networks, with a ViT or a ResNet. The words of the split's
    classes are encoded here, once, with the text tower in the file, and go into the
    result. Sizes are read from the shapes, and the report ends with the model config
    that the result fits.
    """

    name: ClassVar[str] = 'lseg'
    help: ClassVar[str] = 'official LSeg checkpoints (.ckpt)'
    suffix: ClassVar[str] = '.pth'

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the flags that tell what the file itself does not."""
        parser.add_argument(
            '--split',
            required=True,
            help='the classes it is for: ade20k_150, pascal5i_0 .. pascal5i_3, '
            'coco20i_contiguous_0 .., or any other',
        )
        parser.add_argument(
            '--two-words',
            action='store_true',
            help=f'a network of {OTHER_NAME!r} and one name per image, as those of the '
            'folds are',
        )
        parser.add_argument('--spatial-block', choices=SPATIAL_BLOCKS)
        parser.add_argument('--block-depth', type=int, default=1)
        parser.add_argument('--activation', choices=[*ACTIVATIONS], default='lrelu')
        add_tower_arguments(parser, 'found by the length of its rows if left out')

    def convert(self, source: Path, arguments: argparse.Namespace) -> Conversion:
        """Read the file, rename its keys and add the rows of the class names.

        Raises:
            CheckpointError: if the file cannot be read or is no LSeg checkpoint.
            ValueError: if the flags do not fit the file.
            KeyError: if no split has the name.
        """
        content = safe_load(source, trust=arguments.trust)
        state = rename_keys(state_dict_of(content, str(source)), r'^net\.', '')
        weights = OfficialWeights(state, f'{source} is no official LSeg checkpoint')
        head = _head(
            weights,
            arguments.spatial_block,
            arguments.block_depth,
            arguments.activation,
        )
        backbone = _backbone(weights)
        split = resolve_split(arguments.split)
        setting = 'inductive' if split.unseen else 'supervised'
        architecture = _architecture(weights, head['embed_dim'], arguments.arch)
        tower = text_tower(_text_part(state), architecture, str(source))
        out: Path | None = arguments.text_tower_out
        name = f'{source.stem}_text.safetensors' if out is None else out.name
        texts = PUBLISHED_TEXTS.get(split.name.split('_')[0])
        bank = dict(_BANK, **({} if texts is None else dict(texts=texts)))
        two_words: dict[str, Any] = {}
        if arguments.two_words:
            two_words['other_name'] = OTHER_NAME
            head['void_pixels'] = 'background'
        model = dict(
            type='ClassPromptedSegmentor' if two_words else 'ZeroShotEncoderDecoder',
            split=plain_split(split),
            setting=setting,
            **two_words,
            backbone=backbone,
            decode_head=head,
            class_embeddings=dict(
                type='ClassEmbeddingBank',
                source=dict(type='clip_text', arch=architecture.name, pretrained=name),
                **bank,
            ),
        )
        conversion = apply_rules(state, lseg_rules(), empty_model(model).state_dict())
        if not tower.complete:
            return replace(conversion, files={Path('the text tower'): tower})
        rows = encoded_rows(
            tower,
            name,
            architecture,
            split,
            setting,
            bank,
            beside=tuple(two_words.values()),
        )
        return replace(
            conversion,
            extra_state=dict(rows),
            files={} if out is None else {out: tower},
            notes=_NOTES + as_text(model=model),
        )


def _architecture(
    weights: OfficialWeights, embed_dim: int, arch: str | None
) -> Architecture:
    """Return the CLIP of the text tower; without a name the published one."""
    if arch is None and embed_dim not in PUBLISHED_ARCH:
        raise ValueError(
            f'text rows have {embed_dim} values, as those of no published network: say '
            'with --arch which CLIP it was'
        )
    architecture = resolve_architecture(arch or PUBLISHED_ARCH[embed_dim])
    width = weights.shape('clip_pretrained.token_embedding.weight', 2)[1]
    ours = architecture.config['text_cfg']['width'], architecture.embed_dim
    if ours != (width, embed_dim):
        raise ValueError(
            f'{architecture.name} has a text tower of width {ours[0]} with rows of '
            f'{ours[1]} values, and the checkpoint one of {width} with {embed_dim}: '
            'say with --arch which CLIP it was'
        )
    return require_quick_gelu(architecture, 'LSeg')


def _text_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the text tower, named as the others' checkpoints name theirs."""
    pattern = re.compile(rf'clip_pretrained\.{_TEXT_KEYS}')
    matches = {key: pattern.fullmatch(key) for key in state}
    return {
        f'text_encoder.{found[1]}': state[key]
        for key, found in matches.items()
        if found
    }
