"""Dense tokens of open_clip's vision transformers at any image size."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmengine.model import BaseModule
from mmseg.registry import MODELS

from zs3_mmseg.models.towers import Architecture, load_clip, resolve_architecture
from zs3_mmseg.models.towers.positions import check_interpolation, resize_positions

from .blocks import is_plain, replaced_block, run_block, run_first_token
from .last_attention import Vanilla, build_last_attention
from .prompts import DeepPrompts

#: The entry of ``out_indices`` that means the tokens in the space of the texts.
DENSE = -1


@MODELS.register_module()
class OpenCLIPViT(BaseModule):
    """The image tower of an open_clip ViT as a dense backbone.

    The forward pass runs over the tower's own modules and differs from open_clip's in
    three ways: position embeddings are resized to the image, patches are never dropped,
    and the attention of the last block can be replaced without any training.

    The tower is registered as ``visual`` with open_clip's names below it. Its text
    tower is not kept. Outputs are not normalised unless ``normalize`` is set: heads
    that compare by cosine normalise for themselves.

    Images are expected as the data preprocessor leaves them: RGB, normalised. The
    statistics that the tower was trained with are in :attr:`mean` and :attr:`std`.

    Args:
        arch: an open_clip model name, the path of an open_clip JSON model config, such
            a config as a dict, or ``'zs3-shapes-tiny'``. Towers of timm (SigLIP, EVA02,
            ViTamin, ConvNeXt), ResNets and attentional pooling are not supported.
        pretrained: a tag of open_clip, a local file, ``'shapes'``, or None for random
            weights. Loaded here and now; ``init_weights()`` never overwrites it.
        image_size: resize the stored position embeddings to this image size at once,
            as ZegCLIP does for 512; None: keep the tower's own. Either way, images of
            any size are accepted.
        out_indices: the maps to return, in this order: ``-1`` for the dense tokens in
            the space of the texts, ``i >= 0`` for the raw output of block ``i``.
        out_global: return the global token as the last output as well. It comes from
            the untouched last block, whatever ``last_attn`` is.
        frozen: parameters get no gradient and the module stays in evaluation mode.
        last_attn: attention of the last block: ``'vanilla'``, ``'maskclip'``,
            ``'maskclip_v'``, ``'sclip'``, ``'clearclip'``, ``'kk'``, ``'naclip'``,
            ``'nonly'``, or a dict with ``type`` and options (``std`` in patches).
        last_block: ``'full'`` keeps residual and feed-forward path of the last block,
            ``'attn_only'`` drops both, None does what the strategy's authors did.
        grid: ``'pad'`` fills the image with zeros at the right and bottom up to whole
            patches; ``'floor'`` leaves out pixels that fill no patch.
        pos_interp: ``'bicubic'``, or ``'bilinear'`` as in ZegCLIP and ESDA.
        cls_embed_twice: add the class embedding twice, as ZegCLIP and ESDA do.
        project: multiply the dense tokens by the tower's projection.
        normalize: scale dense tokens and global token to length 1.
        prompts: options of :class:`DeepPrompts` (``num_tokens``, ``depth``,
            ``dropout``), whose tokens are trained whether or not the tower is frozen;
            None: no prompts.
        trust: open a TorchScript archive even if it is none of OpenAI's.
    """

    visual: Any

    def __init__(
        self,
        arch: str | Mapping | Architecture,
        pretrained: str | Path | None = None,
        *,
        image_size: int | Sequence[int] | None = None,
        out_indices: Sequence[int] = (DENSE,),
        out_global: bool = False,
        frozen: bool = True,
        last_attn: str | Mapping = 'vanilla',
        last_block: Literal['full', 'attn_only'] | None = None,
        grid: Literal['pad', 'floor'] = 'pad',
        pos_interp: Literal['bicubic', 'bilinear'] = 'bicubic',
        cls_embed_twice: bool = False,
        project: bool = True,
        normalize: bool = False,
        prompts: Mapping[str, Any] | None = None,
        trust: bool = False,
    ) -> None:
        super().__init__()
        _one_of('grid', grid, ('pad', 'floor'))
        _one_of('last_block', last_block, ('full', 'attn_only', None))
        self.pos_interp = check_interpolation(pos_interp)
        self.grid_mode = grid
        self.last_attn = build_last_attention(last_attn)
        self.full_last_block = (
            self.last_attn.full_block if last_block is None else last_block == 'full'
        )
        self.out_global = out_global
        self.cls_embed_twice = cls_embed_twice
        self.project = project
        self.normalize = normalize
        self.frozen = frozen

        architecture = resolve_architecture(arch)
        _require_plain_vit(architecture)
        clip = load_clip(
            architecture, pretrained, trust=trust, need='image', pos_interp=pos_interp
        )
        # A copy: the model is shared with whoever needs the text tower.
        self.visual = copy.deepcopy(clip.model.visual)
        self.content_hash = clip.content_hash
        #: Statistics of the images, for RGB values in 0..255.
        self.mean = tuple(255 * value for value in clip.mean)
        self.std = tuple(255 * value for value in clip.std)
        self.patch_size = int(self.visual.patch_size[0])
        self.num_blocks = len(self.visual.transformer.resblocks)
        self.width = int(self.visual.conv1.out_channels)
        self.embed_dim = architecture.embed_dim
        self.out_indices = _check_indices(out_indices, self.num_blocks)
        if not (self.out_indices or out_global):
            raise ValueError('out_indices is empty and out_global is False: no output')
        self._last_is_vanilla = (
            isinstance(self.last_attn, Vanilla) and self.full_last_block
        )
        if not self._last_is_vanilla and not is_plain(self._blocks[-1]):
            raise ValueError(
                f'arch={architecture.name!r} has custom attention blocks, whose '
                "attention cannot be replaced: expected last_attn='vanilla' with the "
                'full block'
            )
        if image_size is not None:
            self._resize_stored_positions(image_size)
        if frozen:
            self.visual.requires_grad_(False)
        self.prompts = None
        if prompts is not None:
            self.prompts = DeepPrompts(
                **prompts,
                num_blocks=self.num_blocks,
                width=self.width,
                patch_size=self.patch_size,
            )
        self.train(self.training)

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each returned map."""
        dense = self.embed_dim if self.project else self.width
        return tuple(dense if i == DENSE else self.width for i in self.out_indices)

    @property
    def _blocks(self) -> nn.ModuleList:
        return self.visual.transformer.resblocks

    def init_weights(self) -> None:
        """Keep the weights loaded at construction."""
        self._is_init = True

    def train(self, mode: bool = True) -> OpenCLIPViT:
        """Switch the mode; a frozen tower stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.visual.eval()
        return self

    def forward(self, img: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps asked for.

        Args:
            img: ``(N, 3, H, W)``, normalised RGB.

        Returns:
            One map ``(N, C, h, w)`` for each of ``out_indices``, then the global token
            ``(N, E)`` if ``out_global``. ``h = ceil(H / patch)`` with ``grid='pad'``,
            ``floor`` otherwise.
        """
        img = self._whole_patches(img)
        tokens, grid = self._embed(img)
        needs_last = self.out_global or DENSE in self.out_indices
        deepest = self.num_blocks - 1 if needs_last else max(self.out_indices)
        maps: dict[int, Tensor] = {}
        pooled = tokens
        for index, block in enumerate(self._blocks):
            if index > deepest:
                break
            if self.prompts is not None:
                tokens = self.prompts.before(index, tokens)
            if index == self.num_blocks - 1:
                tokens, pooled = self._run_last(block, tokens, grid)
            else:
                tokens = run_block(block, tokens)
            if index in self.out_indices:
                maps[index] = _to_map(tokens, grid)
        if self.prompts is not None and needs_last:
            shared = pooled is tokens
            tokens = self.prompts.after(tokens)
            pooled = tokens if shared else self.prompts.after(pooled)
        if DENSE in self.out_indices:
            maps[DENSE] = _to_map(self._dense(tokens), grid)
        outputs = tuple(maps[index] for index in self.out_indices)
        if not self.out_global:
            return outputs
        return (*outputs, self._pool(pooled, grid[0] * grid[1]))

    def _whole_patches(self, img: Tensor) -> Tensor:
        patch = self.patch_size
        height, width = img.shape[-2:]
        if self.grid_mode == 'pad':
            return F.pad(img, (0, -width % patch, 0, -height % patch))
        if height < patch or width < patch:
            raise ValueError(
                f'an image of {height}x{width} pixels is smaller than a patch of '
                f"{patch}x{patch}: use grid='pad' or larger images"
            )
        return img  # the patch convolution leaves out the rest

    def _embed(self, img: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the tokens before the first block ``(N, 1 + hw, D)`` and the grid."""
        patches = self.visual.conv1(img)
        grid = (patches.shape[-2], patches.shape[-1])
        patches = patches.flatten(2).transpose(1, 2)
        token = self.visual.class_embedding
        positions = resize_positions(
            self.visual.positional_embedding,
            grid,
            tuple(self.visual.grid_size),
            self.pos_interp,
        )
        if self.cls_embed_twice:
            token = 2 * token
        token = token.expand(len(patches), 1, -1)
        tokens = torch.cat([token, patches], dim=1) + positions
        return self.visual.ln_pre(tokens), grid

    def _run_last(
        self, block: nn.Module, tokens: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens after the last block, and those that pooling needs."""
        if self._last_is_vanilla:
            after = run_block(block, tokens)
            return after, after
        after = replaced_block(
            block,
            tokens,
            lambda q, k, v: self.last_attn(q, k, v, grid),
            full=self.full_last_block,
        )
        if not self.out_global:
            return after, after
        # Replaced attention says nothing about the image as a whole.
        if self.visual.pool_type == 'tok':
            return after, run_first_token(block, tokens)
        return after, run_block(block, tokens)

    def _dense(self, tokens: Tensor) -> Tensor:
        dense = self.visual.ln_post(tokens)
        if self.project:
            dense = dense @ self.visual.proj
        return self._scaled(dense)

    def _pool(self, tokens: Tensor, num_patches: int) -> Tensor:
        """Return the global token ``(N, E)`` as open_clip pools it."""
        norm: Callable[[Tensor], Tensor] = self.visual.ln_post
        if self.visual.pool_type == 'tok':
            pooled = norm(tokens[:, 0])
        elif self.visual.final_ln_after_pool:
            pooled = norm(tokens[:, -num_patches:].mean(dim=1))
        else:
            pooled = norm(tokens[:, -num_patches:]).mean(dim=1)
        pooled = pooled @ self.visual.proj
        return self._scaled(pooled)

    def _scaled(self, rows: Tensor) -> Tensor:
        # In bfloat16 the lengths would be off by half a percent.
        return F.normalize(rows.float(), dim=-1) if self.normalize else rows

    def _resize_stored_positions(self, image_size: int | Sequence[int]) -> None:
        height, width = (
            (image_size, image_size) if isinstance(image_size, int) else image_size
        )
        grid = (height // self.patch_size, width // self.patch_size)
        if min(grid) < 1:
            raise ValueError(
                f'image_size={image_size} is smaller than a patch ({self.patch_size})'
            )
        stored = self.visual.positional_embedding
        resized = resize_positions(
            stored.detach(), grid, tuple(self.visual.grid_size), self.pos_interp
        )
        self.visual.positional_embedding = nn.Parameter(resized, stored.requires_grad)
        self.visual.image_size, self.visual.grid_size = (height, width), grid


def _to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Turn the patches, the last tokens, into a map: ``(N, L, C) -> (N, C, h, w)``."""
    patches = tokens[:, -grid[0] * grid[1] :]
    return patches.transpose(1, 2).unflatten(2, grid)


def _one_of(name: str, value: object, allowed: tuple) -> None:
    if value not in allowed:
        options = ', '.join(map(repr, allowed))
        raise ValueError(f'{name} must be one of {options}, not {value!r}')


def _check_indices(indices: Sequence[int], num_blocks: int) -> tuple[int, ...]:
    chosen = tuple(indices)
    wrong = [i for i in chosen if not DENSE <= i < num_blocks]
    if wrong or len(set(chosen)) != len(chosen):
        raise ValueError(
            f'out_indices={chosen} must be different numbers, each -1 (the dense '
            f'tokens) or a block from 0 to {num_blocks - 1}'
        )
    return chosen


def _require_plain_vit(architecture: Architecture) -> None:
    """Refuse towers that this backbone cannot run, before anything is downloaded."""
    vision = architecture.config['vision_cfg']
    patch = vision.get('patch_size', 16)
    kind = None
    if vision.get('timm_model_name'):
        kind = f'a timm model ({vision["timm_model_name"]})'
    elif isinstance(vision.get('layers'), (list, tuple)):
        kind = 'a ResNet'
    elif vision.get('attentional_pool'):
        kind = 'a ViT with attentional pooling'
    elif vision.get('pool_type', 'tok') == 'none':
        kind = 'a ViT without pooling'
    elif not isinstance(patch, int) and len(set(patch)) > 1:
        kind = f'a ViT with patches of {"x".join(map(str, patch))}'
    if kind is not None:
        raise ValueError(
            f'the image tower of arch={architecture.name!r} is {kind}, and OpenCLIPViT '
            "runs open_clip's own vision transformers with square patches and class "
            "token or average pooling: use one such as 'ViT-B-16'."
        )
