"""The sizes of an official ZegCLIP model, read from the shapes of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zs3_mmseg.models.backbones.prompts import DeepPrompts
from zs3_mmseg.models.decode_heads import ZegCLIPHead
from zs3_mmseg.models.towers import Architecture, resolve_architecture
from zs3_mmseg.models.towers.architectures import build_model

from .clip_parts import ImageTowerLayout, count_numbered, resized, shape_reader

_DECODER = 'decode_head.decoder_1.layers'
_EMPTY_WEIGHT = 'decode_head.loss_decode.criterion.empty_weight'
#: CLIP models of OpenAI that are ViTs. L/14 at 336 pixels differs from L/14 in its
#: positions alone.
_OPENAI = ('ViT-B-16-quickgelu', 'ViT-B-32-quickgelu', 'ViT-L-14-quickgelu')


@dataclass(frozen=True)
class ZegCLIPLayout(ImageTowerLayout):
    """Sizes of a ZegCLIP model.

    Attributes:
        num_tokens: prompt tokens per block; 0: no prompts.
        depth: of the prompts, see :class:`DeepPrompts`.
        num_layers: layers of the mask decoder.
        ffn_dim: hidden width of its feed-forward part.
        project_patches: whether patches go through a linear map first.
        num_trained: classes it was trained with, if the file tells.
    """

    num_tokens: int
    depth: int
    num_layers: int
    ffn_dim: int
    project_patches: bool
    num_trained: int | None

    @classmethod
    def of(cls, state: Mapping[str, Tensor], what: str) -> ZegCLIPLayout:
        """Read the sizes of an official state dict.

        Args:
            state: with the official keys.
            what: how messages call it, e.g. the file.

        Raises:
            CheckpointError: if a weight that tells a size is not there.
        """

        shape = shape_reader(state, f'{what} is no official ZegCLIP checkpoint')
        num_tokens, depth = 0, 0
        deep = 'backbone.deep_prompt_embeddings'
        first = 'backbone.prompt_embeddings'
        if deep in state:
            depth, num_tokens, _ = shape(deep, 3)
            depth = depth if first in state else -depth
        elif first in state:
            _, num_tokens, _ = shape(first, 3)
        trained = shape(_EMPTY_WEIGHT, 1)[0] - 1 if _EMPTY_WEIGHT in state else None
        return cls(
            **cls.read(state, shape, 'backbone', what),
            num_tokens=num_tokens,
            depth=depth,
            num_layers=count_numbered(state, _DECODER),
            ffn_dim=shape(f'{_DECODER}.0.linear1.weight', 2)[0],
            project_patches='decode_head.input_proj_1.weight' in state,
            num_trained=trained,
        )

    @property
    def sizes(self) -> str:
        """The sizes of the image tower, for messages."""
        return (
            f'{self.num_blocks} blocks of width {self.width}, patches of '
            f'{self.patch_size} pixels and an embedding of {self.embed_dim}'
        )

    def architectures(self) -> list[Architecture]:
        """Return the CLIP models of OpenAI that have these sizes."""
        found = []
        for architecture in map(resolve_architecture, _OPENAI):
            vision = architecture.config['vision_cfg']
            sizes = (vision['width'], vision['patch_size'], vision['layers'])
            ours = (self.width, self.patch_size, self.num_blocks)
            if sizes == ours and architecture.embed_dim == self.embed_dim:
                found.append(architecture)
        return found

    def empty_model(self, architecture: Architecture) -> nn.Module:
        """Build what holds the weights, without memory for any.

        Args:
            architecture: of the CLIP; its image size is set to ours.
        """
        with torch.device('meta'):
            model = nn.Module()
            model.backbone = nn.Module()
            clip = build_model(resized(architecture, self.image_size))
            model.backbone.visual = clip.visual
            if self.num_tokens:
                model.backbone.prompts = DeepPrompts(
                    num_tokens=self.num_tokens,
                    depth=self.depth,
                    num_blocks=self.num_blocks,
                    width=self.width,
                    patch_size=self.patch_size,
                )
            # The number of heads changes no shape.
            model.decode_head = ZegCLIPHead(
                self.embed_dim, num_heads=1, **self._head_options()
            )
        return model

    def model_config(self, architecture: Architecture, setting: str) -> dict[str, Any]:
        """Return the parts of a segmentor's config that a checkpoint fits.

        Args:
            architecture: of the CLIP.
            setting: of the training; the seen scores are lowered unless transductive.
        """
        prompts = dict(num_tokens=self.num_tokens, depth=self.depth)
        shift = dict(type='SeenShift', shift=0.1)
        return dict(
            backbone=dict(
                type='OpenCLIPViT',
                arch=architecture.name,
                image_size=self.image_size,
                out_global=True,
                grid='floor',
                pos_interp='bilinear',
                cls_embed_twice=True,
                normalize=True,
                prompts=prompts if self.num_tokens else None,
            ),
            decode_head=dict(type='ZegCLIPHead', **self._head_options()),
            calibrators=[] if setting == 'transductive' else [shift],
        )

    def _head_options(self) -> dict[str, Any]:
        options: dict[str, Any] = dict(num_layers=self.num_layers)
        if self.ffn_dim != 4 * self.embed_dim:
            options['ffn_dim'] = self.ffn_dim
        if self.project_patches:
            options['project_patches'] = True
        return options
