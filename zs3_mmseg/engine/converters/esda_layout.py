"""The sizes of an official ESDA model, read from the shapes of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zs3_mmseg.models.backbones.prompts import ClassPrompt, LowRankBypass
from zs3_mmseg.models.decode_heads import ESDAHead
from zs3_mmseg.models.towers import Architecture, resolve_architecture
from zs3_mmseg.models.towers.architectures import build_model

from .clip_parts import (
    ImageTowerLayout,
    count_numbered,
    require_quick_gelu,
    resized,
    shape_reader,
)

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
