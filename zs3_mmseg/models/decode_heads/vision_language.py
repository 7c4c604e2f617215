"""The interaction of text and image tokens in ESDA's decoder.

ESDA: Image and Vision Computing 2025, doi 10.1016/j.imavis.2025.105456.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zs3_mmseg.models.backbones.blocks import run_block

#: How tokens are put together after a layer, see :class:`VisionLanguageInteraction`.
TOKEN_ORDERS = ('official', 'fixed')


class VisionLanguageInteraction(nn.Module):
    """Layers of self-attention over all tokens, then over each kind by itself.

    A layer is a CLIP block (pre-norm, QuickGELU) over support and image tokens
    together, one over the image tokens (enhancement of the image), and in all layers
    but the last one over the support tokens (enhancement of the support).

    The released code joins the tokens as image, support after a layer, and takes the
    last ``h * w`` of them for the image again. From the second layer on the "image"
    is therefore shifted by the number of support tokens and ends with them, and so is
    the result. ``token_order='official'`` does the same, and is what official weights
    were trained with; ``'fixed'`` keeps the support in front.

    Args:
        width: channels ``D`` of the tokens.
        num_heads: attention heads of each block.
        num_layers: layers, at least 1.
        token_order: ``'official'`` or ``'fixed'``.

    Raises:
        ValueError: for an unknown order, or heads that do not divide the width.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        num_layers: int = 2,
        token_order: str = 'official',
    ) -> None:
        super().__init__()
        if token_order not in TOKEN_ORDERS:
            raise ValueError(
                f'token_order must be one of {TOKEN_ORDERS}, not {token_order!r}'
            )
        if num_layers < 1:
            raise ValueError(f'num_layers must be at least 1, not {num_layers}')
        if width % num_heads:
            raise ValueError(f'{width} channels do not divide into {num_heads} heads')
        self.token_order = token_order
        self.joint = _clip_blocks(num_layers, width, num_heads)
        self.image = _clip_blocks(num_layers, width, num_heads)
        self.support = _clip_blocks(num_layers - 1, width, num_heads)

    def forward(self, support: Tensor, image: Tensor) -> Tensor:
        """Return the image tokens after all layers.

        Args:
            support: ``(N, S, D)``.
            image: ``(N, hw, D)``.

        Returns:
            ``(N, hw, D)``; with the official order these are not all image tokens.
        """
        num_image = image.shape[1]
        tokens = torch.cat([support, image], dim=1)
        for index, joint in enumerate(self.joint):
            tokens = run_block(joint, tokens)
            support, image = tokens[:, :-num_image], tokens[:, -num_image:]
            image = run_block(self.image[index], image)
            if index < len(self.support):
                support = run_block(self.support[index], support)
            parts = [support, image]
            if self.token_order == 'official':
                parts.reverse()
            tokens = torch.cat(parts, dim=1)
        return tokens[:, -num_image:]


def _clip_blocks(count: int, width: int, num_heads: int) -> nn.ModuleList:
    from open_clip.transformer import QuickGELU, ResidualAttentionBlock

    return nn.ModuleList(
        ResidualAttentionBlock(width, num_heads, act_layer=QuickGELU)
        for _ in range(count)
    )
