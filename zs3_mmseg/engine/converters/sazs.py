"""Official SAZS checkpoints, of both image encoders, for this package."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from zs3_mmseg.datasets.splits import resolve_split
from zs3_mmseg.models.backbones.pyramid_drn import POOL_SCALES
from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank
from zs3_mmseg.models.segmentors.vocabulary import RowState, Vocabulary
from zs3_mmseg.utils.checkpoint import safe_load, state_dict_of

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

#: The CLIP whose text tower the rows come from.
PUBLISHED_TEXT = 'ViT-B-32-quickgelu'
#: What stands for anything but the named class.
OTHER_NAME = 'others'
#: The block whose map is the only one that reaches the outputs.
PUBLISHED_BLOCK = 11
_VIT, _DRN = 'pretrained.model', 'base'
_UNUSED = 'reaches no output'
#: Stages of the DRN that are plain convolutions; the first is a single one.
_PLAIN = (1, 2, 7, 8)


def sazs_vit_rules(last_block: int) -> list[KeyRule]:
    """Return what becomes of the keys of an official ViT, read at ``last_block``.

    Three of its four branches, the decoder, later blocks and the classifier are in the
    file and reach no output.
    """
    used = '|'.join(str(index) for index in range(last_block + 1))
    branch = r'pretrained\.act_postprocess2'
    return [
        KeyRule(rf'pretrained\.model\.(blocks\.(?:{used})\..*)', r'backbone.vit.\1'),
        KeyRule(r'pretrained\.model\.(blocks|norm|head)\..*', None, _UNUSED),
        KeyRule(r'pretrained\.model\.(.*)', r'backbone.vit.\1'),
        KeyRule(rf'{branch}\.0\.project\.0\.(.*)', r'backbone.readout.0.\1'),
        KeyRule(rf'{branch}\.3\.(.*)', r'backbone.project.\1'),
        KeyRule(rf'{branch}\.4\.(.*)', r'backbone.upsample.\1'),
        KeyRule(r'pretrained\.act_postprocess[134]\..*', None, _UNUSED),
        KeyRule(r'scratch\..*', None, _UNUSED),
        _EDGE,
    ]


_EDGE = KeyRule(r'edgeocr_cls_head\.(.*)', r'decode_head.edge.\1')


def sazs_drn_rules(depths: dict[int, int]) -> list[KeyRule]:
    """Return what becomes of the keys of an official DRN.

    ``depths`` counts the convolutions of its plain stages, by number.
    """
    rules = [
        *_convolution(r'base\.0\.0', r'base\.0\.1', 'backbone.stages.0'),
        *_convolution('fc1', 'fc1_bn', 'backbone.fuse'),
    ]
    for stage, depth in depths.items():
        for index in range(depth):  # convolution, norm and ReLU are numbered through
            conv, norm = (rf'base\.{stage}\.{3 * index + part}' for part in (0, 1))
            rules += _convolution(conv, norm, f'backbone.stages.{stage}.{index}')
    for index, scale in enumerate(POOL_SCALES):
        ours = f'backbone.pyramid.{index}.1'
        rules += _convolution(f'pool{scale}_conv', f'pool{scale}_bn', ours)
    return [
        *rules,
        KeyRule(r'base\.([3-6]\..*)', r'backbone.stages.\1'),
        KeyRule(r'fc2\..*', None, _UNUSED),
        KeyRule(r'up\..*', None, 'a fixed bilinear kernel'),
        _EDGE,
    ]


def _convolution(conv: str, norm: str, ours: str) -> list[KeyRule]:
    return [
        KeyRule(rf'{conv}\.(.*)', rf'{ours}.conv.\1'),
        KeyRule(rf'{norm}\.(.*)', rf'{ours}.bn.\1'),
    ]


def _vit(weights: OfficialWeights, last_block: int, heads: int | None) -> dict:
    """Return the config of the ViT whose shapes a file has."""
    positions, width = weights.shape(f'{_VIT}.pos_embed', 3)[1:]
    patch = weights.shape(f'{_VIT}.patch_embed.proj.weight', 4)[2]
    num_blocks = weights.count(f'{_VIT}.blocks')
    if not 0 <= last_block < num_blocks:
        raise ValueError(
            f'--last-block {last_block} is none of the {num_blocks} blocks of the file'
        )
    side = round((positions - 1) ** 0.5)
    sizes = dict(
        img_size=side * patch, patch_size=patch, embed_dim=width, depth=num_blocks
    )
    published = dict(img_size=384, patch_size=16, embed_dim=1024, depth=24)
    options = {key: value for key, value in sizes.items() if value != published[key]}
    if heads is not None:
        options['num_heads'] = heads
    return dict(
        type='ReadoutViT',
        model='vit_large_patch16_384',
        last_block=last_block,
        out_channels=weights.shape('edgeocr_cls_head.weight', 4)[1],
        **options,
    )


def _drn(weights: OfficialWeights) -> tuple[dict, dict[int, int]]:
    """Return the config of the DRN whose shapes a file has, and its plain depths."""
    plain = {stage: -(-weights.count(f'{_DRN}.{stage}') // 3) for stage in _PLAIN}
    layers, channels = [], []
    for stage in range(1, 9):
        if stage in plain:
            layers.append(plain[stage])
            channels.append(weights.shape(f'{_DRN}.{stage}.0.weight', 4)[0])
        else:
            layers.append(weights.count(f'{_DRN}.{stage}'))
            channels.append(weights.shape(f'{_DRN}.{stage}.0.conv1.weight', 4)[0])
    backbone = dict(type='PyramidDRN', layers=tuple(layers), channels=tuple(channels))
    return backbone, plain


_NOTES = (
    'It fits a model with the following parts; split, class_embeddings and '
    'data_preprocessor are as in configs/sazs.\n'
)


@register_converter
class SAZSConverter(Converter):
    """Official SAZS checkpoints (.pth), ViT or DRN -> .pth.

    Keys may begin with ``module.``. The text tower is not in these files: say with
    ``--clip`` where it is. Parts that reach no output are dropped, and listed.
    """

    name: ClassVar[str] = 'sazs'
    help: ClassVar[str] = 'official SAZS checkpoints (.pth)'
    suffix: ClassVar[str] = '.pth'

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the flags that tell what the file itself does not."""
        parser.add_argument(
            '--last-block',
            type=int,
            default=PUBLISHED_BLOCK,
            help='ViT: the block whose map is read (default: %(default)s)',
        )
        parser.add_argument(
            '--heads',
            type=int,
            help='ViT: attention heads, if they are not those of ViT-L',
        )
        parser.add_argument(
            '--split',
            help='the fold it was trained with, such as pascal5i_0; with --clip',
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

    def convert(self, source: Path, arguments: argparse.Namespace) -> Conversion:
        """Read the file and rename its keys.

        Raises:
            CheckpointError: if the file cannot be read or is no SAZS checkpoint.
            ValueError: if the flags do not fit each other or the file.
        """
        if (arguments.split is None) != (arguments.clip is None):
            raise ValueError('--split and --clip belong together: give both or neither')
        content = safe_load(source, trust=arguments.trust)
        state = {
            key.removeprefix('module.'): value
            for key, value in state_dict_of(content, str(source)).items()
        }
        weights = OfficialWeights(state, f'{source} is no official SAZS checkpoint')
        if f'{_VIT}.pos_embed' in weights:
            rules = sazs_vit_rules(arguments.last_block)
            backbone: dict[str, Any] = _vit(
                weights, arguments.last_block, arguments.heads
            )
        else:
            backbone, plain = _drn(weights)
            rules = sazs_drn_rules(plain)
        model = dict(
            type='ClassPromptedSegmentor',
            other_name=OTHER_NAME,
            backbone=backbone,
            decode_head=dict(type='SAZSHead', void_pixels='background'),
        )
        width = weights.shape('edgeocr_cls_head.weight', 4)[1]
        empty = empty_model(model, in_channels=width)
        conversion = apply_rules(state, rules, empty.state_dict())
        rows = None
        if arguments.split is not None:
            rows = dict(_rows(arguments.split, arguments.arch, arguments.clip))
            if rows['embeddings'].shape[1] != width:
                raise ValueError(
                    f'{arguments.arch} makes rows of {rows["embeddings"].shape[1]} '
                    f'values, and the pixels of {source} have {width}: --arch says '
                    'which CLIP it was'
                )
        notes = _NOTES + as_text(model=model)
        return replace(conversion, extra_state=rows, notes=notes)


def _rows(split_name: str, arch: str, weights: str) -> RowState:
    """Encode the class names of a split and the text of everything else."""
    split = resolve_split(split_name)
    source = dict(type='clip_text', arch=arch, pretrained=weights)
    bank = ClassEmbeddingBank(source, templates='bare', normalize=False)
    setting = 'inductive' if split.unseen else 'supervised'
    vocabulary = Vocabulary(split, setting, bank)
    vocabulary.beside = (OTHER_NAME,)
    return vocabulary.state()
