"""The parts of open_clip's image towers, run by us: stem, positions and blocks."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zs3_mmseg.models.towers import Architecture
from zs3_mmseg.models.towers.positions import resize_positions
from zs3_mmseg.utils.config_check import ConfigError

#: The entry of ``out_indices`` that means the tokens in the space of the texts.
DENSE = -1


def check_indices(indices: Sequence[int], num_blocks: int) -> tuple[int, ...]:
    """Return ``out_indices`` as a tuple if they name different outputs."""
    chosen = tuple(indices)
    wrong = [i for i in chosen if not DENSE <= i < num_blocks]
    if wrong or len(set(chosen)) != len(chosen):
        raise ValueError(
            f'out_indices={chosen} must be different numbers, each -1 (the dense '
            f'tokens) or a block from 0 to {num_blocks - 1}'
        )
    return chosen


def check_blocks(name: str, blocks: Sequence[int], num_blocks: int) -> tuple[int, ...]:
    """Return block numbers in ascending order if they are different and exist."""
    chosen = tuple(sorted(blocks))
    if any(not 0 <= i < num_blocks for i in chosen) or len(set(chosen)) != len(chosen):
        raise ValueError(
            f'{name}={tuple(blocks)} must be different blocks from 0 to '
            f'{num_blocks - 1}'
        )
    return chosen


def require_plain_vit(architecture: Architecture) -> None:
    """Refuse towers that the backbone cannot run."""
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


def whole_patches(img: Tensor, patch_size: int, mode: str) -> Tensor:
    """Bring an image or a mask ``(..., H, W)`` to whole patches.

    ``'pad'`` adds zeros at the right and bottom; ``'floor'`` leaves the image as it is,
    because the patch convolution leaves out the rest.
    """
    height, width = img.shape[-2:]
    if mode == 'pad':
        # Of positive numbers: the remainder of ONNX has the sign of what it divides.
        right, bottom = (
            (patch_size - side % patch_size) % patch_size for side in (width, height)
        )
        return F.pad(img, (0, right, 0, bottom))
    if height < patch_size or width < patch_size:
        raise ValueError(
            f'an image of {height}x{width} pixels is smaller than a patch of '
            f"{patch_size}x{patch_size}: use grid='pad' or larger images"
        )
    return img


def embed(
    visual: Any, img: Tensor, *, pos_interp: str, cls_embed_twice: bool
) -> tuple[Tensor, tuple[int, int]]:
    """Return the tokens before the first block ``(N, 1 + hw, D)`` and the grid.

    ``img`` is ``(N, 3, H, W)`` of whole patches.
    """
    patches = visual.conv1(img)
    grid = (patches.shape[-2], patches.shape[-1])
    patches = patches.flatten(2).transpose(1, 2)
    token = visual.class_embedding
    positions, own_grid = visual.positional_embedding, tuple(visual.grid_size)
    if torch.compiler.is_exporting() or grid != own_grid:
        positions = resize_positions(positions, grid, own_grid, pos_interp)
    if cls_embed_twice:
        token = 2 * token
    token = token.expand(patches.shape[0], 1, -1)
    tokens = torch.cat([token, patches], dim=1) + positions
    return visual.ln_pre(tokens), grid


def resize_stored_positions(
    visual: Any, image_size: int | Sequence[int], pos_interp: str
) -> None:
    """Make a tower one for another image size, as if it had been built for that."""
    height, width = (
        (image_size, image_size) if isinstance(image_size, int) else image_size
    )
    patch_size = int(visual.patch_size[0])
    grid = (height // patch_size, width // patch_size)
    if min(grid) < 1:
        raise ValueError(
            f'image_size={image_size} is smaller than a patch ({patch_size})'
        )
    stored = visual.positional_embedding
    resized = resize_positions(
        stored.detach(), grid, tuple(visual.grid_size), pos_interp
    )
    visual.positional_embedding = nn.Parameter(resized, stored.requires_grad)
    visual.image_size, visual.grid_size = (height, width), grid


class GridCache:
    """Tensors built for the latest few grids: one for 64x64 patches is large.

    Inside a compiled graph they are built anew.
    """

    _KEPT = 4

    def __init__(self) -> None:
        self._tensors: OrderedDict[tuple, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tensors)

    def get(self, key: tuple, build: Callable[[], Tensor]) -> Tensor:
        """Return the tensor of a key, which holds all that ``build`` depends on."""
        if torch.compiler.is_compiling():
            return build()
        if key not in self._tensors:
            self._tensors[key] = build()
            while len(self._tensors) > self._KEPT:
                self._tensors.popitem(last=False)
        self._tensors.move_to_end(key)
        return self._tensors[key]


#: ``(q, k, v) -> A v``, all ``(N, heads, L, d)``.
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

# An open_clip ``ResidualAttentionBlock``, which is known to run time only.
Block = Any


def is_plain(block: Block) -> bool:
    """Whether a block is CLIP's own, whose attention can be replaced.

    open_clip's custom blocks (normalised queries, scaled heads, ...) have other
    modules inside and can only be run as they are.
    """
    return isinstance(block.attn, nn.MultiheadAttention)


def run_block(block: Block, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """Run a block as open_clip does: ``(N, L, D) -> (N, L, D)``.

    The mask ``(L, L)``, or ``(N, L, L)`` for plain blocks, is bool, True for pairs that
    attend, or added to the scores.
    """
    if mask is None:
        if not is_plain(block):
            return block(tokens)
        return replaced_block(block, tokens, F.scaled_dot_product_attention)
    if not is_plain(block):
        if mask.ndim == 3:
            raise ConfigError(
                'this arch has custom attention blocks, which take one mask for all '
                'images: extra_tokens that differ from image to image need another '
                'model.backbone.arch'
            )
        return block(tokens, attn_mask=_additive(mask))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        given = mask if mask.dtype == torch.bool else mask.to(q.dtype)
        given = given[:, None] if given.ndim == 3 else given  # for every head
        return F.scaled_dot_product_attention(q, k, v, attn_mask=given)

    return replaced_block(block, tokens, attend)


def _additive(mask: Tensor) -> Tensor:
    # In open_clip's own blocks, True means the contrary of what it means in torch.
    if mask.dtype != torch.bool:
        return mask
    zeros = torch.zeros(mask.shape, device=mask.device)
    return zeros.masked_fill(~mask, -math.inf)


def replaced_block(
    block: Block, tokens: Tensor, attend: Attend, full: bool = True
) -> Tensor:
    """Run a plain block with another attention in it: ``(N, L, D) -> (N, L, D)``.

    ``full`` keeps the residual and feed-forward paths; without them the block is the
    projected attention alone.
    """
    attention = block.attn
    q, k, v = _heads(attention, block.ln_1(tokens))
    mixed = attend(q, k, v).transpose(1, 2).flatten(2)  # (N, L, heads * d)
    update = block.ls_1(attention.out_proj(mixed))
    return feed_forward(block, tokens + update) if full else update


def run_first_token(block: Block, tokens: Tensor) -> Tensor:
    """Run a plain block for the first token alone: ``(N, L, D) -> (N, 1, D)``."""
    attention = block.attn
    q, k, v = _heads(attention, block.ln_1(tokens))
    mixed = F.scaled_dot_product_attention(q[:, :, :1], k, v)
    mixed = mixed.transpose(1, 2).flatten(2)  # (N, 1, heads * d)
    return feed_forward(block, tokens[:, :1] + block.ls_1(attention.out_proj(mixed)))


def feed_forward(block: Block, tokens: Tensor) -> Tensor:
    """Add the feed-forward path of a block to its tokens."""
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


def _heads(
    attention: nn.MultiheadAttention, tokens: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    qkv = F.linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    qkv = qkv.unflatten(-1, (3, attention.num_heads, -1))  # (N, L, 3, heads, d)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v
