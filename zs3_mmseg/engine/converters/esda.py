"""Official ESDA checkpoints as checkpoints of this package."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmengine.config import Config

from zs3_mmseg.datasets.splits import ZeroShotSplit, plain_split, resolve_split
from zs3_mmseg.models.backbones.prompts import ClassPrompt, LowRankBypass
from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank, ClassEmbeddings
from zs3_mmseg.models.class_embeddings.queries import TokenRows
from zs3_mmseg.models.decode_heads import ESDAHead
from zs3_mmseg.models.segmentors.vocabulary import row_state, rows_by_class
from zs3_mmseg.models.towers import Architecture, resolve_architecture
from zs3_mmseg.models.towers.architectures import build_model
from zs3_mmseg.utils.checkpoint import safe_load, state_dict_of

from .clip import (
    DROP_TEXT_TOWER,
    ImageTowerLayout,
    add_tower_arguments,
    count_numbered,
    require_quick_gelu,
    resized,
    shape_reader,
    text_tower,
)
from .core import Conversion, Converter, Rule, apply_rules, register_converter

#: The CLIP of OpenAI that ESDA was published with.
PUBLISHED_ARCH = 'ViT-B-16-quickgelu'
#: Blocks before which the published model replaces the class token.
PUBLISHED_REPLACE = (2, 3, 4)


@dataclass(frozen=True)
class ESDALayout(ImageTowerLayout):
    """Sizes of an ESDA model.

    Attributes:
        text_width: channels of the text tower's tokens.
        text_blocks: blocks of the text tower.
        low_rank: rank of the paths around the blocks; None: there are none.
        replaces: whether text replaces the class token somewhere.
        conv_channels: of the three convolutions.
    """

    text_width: int
    text_blocks: int
    low_rank: int | None
    replaces: bool
    conv_channels: tuple[int, ...]

    @classmethod
    def of(cls, state: Mapping[str, Tensor], what: str) -> ESDALayout:
        """Read the sizes of an official state dict.

        Args:
            state: with the official keys.
            what: how messages call it, e.g. the file.

        Raises:
            CheckpointError: if a weight that tells a size is not there.
        """

        shape = shape_reader(state, f'{what} is no official ESDA checkpoint')
        first = 'image_encoder.prompt.0'
        return cls(
            **cls.read(state, shape, 'image_encoder', what),
            text_width=shape('text_encoder.token_embedding.weight', 2)[1],
            text_blocks=count_numbered(state, 'text_encoder.transformer.resblocks'),
            low_rank=shape(first, 2)[1] if first in state else None,
            replaces='image_encoder.text_cls_proj.weight' in state,
            conv_channels=tuple(
                shape(f'decoder.{name}.weight', 4)[0]
                for name in ('res2.0', 'res2.2', 'cls.0')
            ),
        )

    def architecture(self, arch: str | None) -> Architecture:
        """Return the CLIP of a checkpoint, with its image size.

        Args:
            arch: as the user calls it; None: the published one.

        Raises:
            ValueError: if it has other sizes or another activation.
        """
        architecture = resolve_architecture(arch or PUBLISHED_ARCH)
        vision, text = (architecture.config[k] for k in ('vision_cfg', 'text_cfg'))
        theirs = dict(
            width=vision['width'],
            patch_size=vision['patch_size'],
            num_blocks=vision['layers'],
            embed_dim=architecture.embed_dim,
            text_width=text['width'],
            text_blocks=text['layers'],
        )
        wrong = {
            name: f'{value} instead of {getattr(self, name)}'
            for name, value in theirs.items()
            if value != getattr(self, name)
        }
        if wrong:
            raise ValueError(
                f'{architecture.name} is not what the checkpoint was made from: it has '
                + ', '.join(f'{name} {values}' for name, values in wrong.items())
                + '. Say with --arch which CLIP it was'
            )
        return require_quick_gelu(architecture, 'ESDA')

    def empty_model(self, architecture: Architecture) -> nn.Module:
        """Build what holds the weights, without memory for any."""
        with torch.device('meta'):
            model = nn.Module()
            model.backbone = nn.Module()
            clip = build_model(resized(architecture, self.image_size))
            model.backbone.visual = clip.visual
            if self.low_rank is not None:
                model.backbone.low_rank = nn.ModuleList(
                    LowRankBypass(self.width, self.low_rank)
                    for _ in range(self.num_blocks)
                )
            if self.replaces:
                model.backbone.class_prompt = ClassPrompt(
                    replace_cls=(0,),  # which ones changes no shape
                    priors=(),
                    num_blocks=self.num_blocks,
                    text_dim=self.embed_dim,
                    width=self.width,
                )
            model.decode_head = ESDAHead(
                self.width,
                embed_dim=self.embed_dim,
                num_heads=1,  # changes no shape either
                conv_channels=self.conv_channels,
            )
        return model

    def model_config(self, architecture: Architecture) -> dict[str, Any]:
        """Return the parts of a segmentor's config that a checkpoint fits.

        Which blocks replace the class token and give priors is not in the file: these
        are the published ones.
        """
        head: dict[str, Any] = dict(type='ESDAHead')
        if self.conv_channels != (256, 128, 64):
            head['conv_channels'] = self.conv_channels
        return dict(
            backbone=dict(
                type='OpenCLIPViT',
                arch=architecture.name,
                image_size=self.image_size,
                out_indices=(self.num_blocks - 1,),
                out_global=True,
                grid='floor',
                pos_interp='bilinear',
                cls_embed_twice=True,
                normalize=True,
                low_rank=self.low_rank,
                replace_cls=PUBLISHED_REPLACE if self.replaces else (),
                priors=tuple(range(self.num_blocks)),
            ),
            decode_head=head,
        )


_BLOCK = r'resblocks\.0\.(.*)'


def esda_rules(num_blocks: int) -> list[Rule]:
    """Return what becomes of the keys of an official ESDA state dict.

    Args:
        num_blocks: blocks of its image tower.
    """
    return [
        *_low_rank_rules(num_blocks),
        Rule(r'image_encoder\.text_cls_proj\.(.*)', r'backbone.class_prompt.proj.\1'),
        Rule(r'image_encoder\.(.*)', r'backbone.visual.\1', "open_clip's names"),
        Rule(r'decoder\.text_embedding_proj\.(.*)', r'decode_head.text_proj.\1'),
        Rule(r'decoder\.text_img_concat_proj\.(.*)', r'decode_head.joint_proj.\1'),
        *(
            Rule(
                rf'decoder\.{theirs}\.(\d+)\.{_BLOCK}',
                rf'decode_head.interaction.{ours}.\1.\2',
            )
            for theirs, ours in (
                ('VL_interaction', 'joint'),
                ('IEE', 'image'),
                ('SSE', 'support'),
            )
        ),
        Rule(r'decoder\.res2\.([02])\.(.*)', r'decode_head.convs.\1.\2'),
        Rule(r'decoder\.cls\.0\.(.*)', r'decode_head.convs.4.\1'),
        Rule(r'decoder\.cls\.3\.(.*)', r'decode_head.conv_seg.\1'),
        DROP_TEXT_TOWER,
    ]


def _low_rank_rules(num_blocks: int) -> list[Rule]:
    """Return rules for ``prompt.{2 i}`` and ``prompt.{2 i + 1}`` of block ``i``."""
    return [
        Rule(
            rf'image_encoder\.prompt\.{2 * block + offset}',
            f'backbone.low_rank.{block}.{name}',
            'low-rank path',
        )
        for block in range(num_blocks)
        for offset, name in enumerate(('down', 'up'))
    ]


_NOTES = (
    'It fits a model with the following parts. What the file does not tell is as in '
    'configs/esda: replace_cls, priors, the heads of the decoder, the '
    'data_preprocessor.\n'
)


@register_converter
class ESDAConverter(Converter):
    """Official ESDA checkpoints (.pth) -> .pth.

    The text of the split's class names is encoded here, once, with the text tower in
    the file, and goes into the result. Sizes are read from the shapes, and the report
    ends with the model config that the result fits.
    """

    name: ClassVar[str] = 'esda'
    help: ClassVar[str] = 'official ESDA checkpoints (.pth)'
    suffix: ClassVar[str] = '.pth'

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the flags that tell what the file itself does not."""
        parser.add_argument(
            '--split',
            required=True,
            help='the fold it was trained with: pascal5i_0 .. pascal5i_3, coco20i_0 .. '
            'coco20i_3, coco20i_contiguous_0 .. coco20i_contiguous_3',
        )
        add_tower_arguments(parser, 'the published one if it is left out')

    def convert(self, source: Path, arguments: argparse.Namespace) -> Conversion:
        """Read the file, rename its keys and add the rows of the class names.

        Raises:
            CheckpointError: if the file cannot be read or is no ESDA checkpoint.
            ValueError: if the flags do not fit the file.
            KeyError: if no split has the name.
        """
        content = safe_load(source, trust=arguments.trust)
        state = state_dict_of(content, str(source))
        layout = ESDALayout.of(state, str(source))
        architecture = layout.architecture(arguments.arch)
        split = resolve_split(arguments.split)
        conversion = apply_rules(
            state,
            esda_rules(layout.num_blocks),
            layout.empty_model(architecture).state_dict(),
        )
        tower = text_tower(state, architecture, str(source))
        if not tower.complete:
            # Its report says which keys; rows cannot be made.
            return replace(conversion, files={Path('the text tower'): tower})
        out: Path | None = arguments.text_tower_out
        name = f'{source.stem}_text.safetensors' if out is None else out.name
        rows, bank = _rows(tower, name, architecture, split)
        setting = 'inductive' if split.unseen else 'supervised'
        parts = rows_by_class(rows.embeddings, rows.query_to_class, len(split.classes))
        model = dict(
            type='ClassPromptedSegmentor',
            split=plain_split(split),
            setting=setting,
            **layout.model_config(architecture),
            class_embeddings=bank,
        )
        return replace(
            conversion,
            extra_state=dict(row_state(split, setting, parts, rows.provenance)),
            files={} if out is None else {out: tower},
            notes=_NOTES + Config(dict(model=model)).pretty_text,
        )


def _rows(
    tower: Conversion, name: str, architecture: Architecture, split: ZeroShotSplit
) -> tuple[ClassEmbeddings, dict[str, Any]]:
    """Encode the class names of a split.

    Args:
        tower: the weights.
        name: of the file with these weights, which the rows remember.
        architecture: what they are for.
        split: its classes.

    Returns:
        rows with the features of all tokens behind them, and the config of a bank
        that gives the same.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(tower.as_safetensors())
        source = dict(
            type='clip_text', arch=architecture, pretrained=str(path), cache=False
        )
        options: dict[str, Any] = dict(
            templates='bare', normalize=False, token_features=True
        )
        bank = ClassEmbeddingBank(source, **options)
        rows = TokenRows(bank).embed(split.classes)
    config = dict(
        type='ClassEmbeddingBank',
        source=dict(type='clip_text', arch=architecture.name, pretrained=name),
        **options,
    )
    return rows, config
