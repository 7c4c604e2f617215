"""From an image to the tokens of a ViT's first block, at any image size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zs3_mmseg.models.towers.positions import resize_positions


def whole_patches(img: Tensor, patch_size: int, mode: str) -> Tensor:
    """Bring an image or a mask to whole patches.

    Args:
        img: ``(..., H, W)``.
        patch_size: in pixels.
        mode: ``'pad'`` adds zeros at the right and bottom; ``'floor'`` leaves the
            image as it is, because the patch convolution leaves out the rest.

    Raises:
        ValueError: if the image is smaller than a patch and is not to be padded.
    """
    height, width = img.shape[-2:]
    if mode == 'pad':
        return F.pad(img, (0, -width % patch_size, 0, -height % patch_size))
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

    Args:
        visual: open_clip's image tower.
        img: ``(N, 3, H, W)``, whole patches.
        pos_interp: how position embeddings get the size of the grid.
        cls_embed_twice: add the class embedding twice.
    """
    patches = visual.conv1(img)
    grid = (patches.shape[-2], patches.shape[-1])
    patches = patches.flatten(2).transpose(1, 2)
    token = visual.class_embedding
    positions = resize_positions(
        visual.positional_embedding, grid, tuple(visual.grid_size), pos_interp
    )
    if cls_embed_twice:
        token = 2 * token
    token = token.expand(len(patches), 1, -1)
    tokens = torch.cat([token, patches], dim=1) + positions
    return visual.ln_pre(tokens), grid


def resize_stored_positions(
    visual: Any, image_size: int | Sequence[int], pos_interp: str
) -> None:
    """Make a tower one for another image size, as if it had been built for that.

    Raises:
        ValueError: if the size is smaller than a patch.
    """
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
