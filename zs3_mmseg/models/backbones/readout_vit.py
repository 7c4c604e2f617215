"""A ViT up to one block, whose map is made finer: the image encoder of SAZS."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmengine.model import BaseModule
from mmseg.registry import MODELS

from zs3_mmseg.models.towers.positions import INTERPOLATIONS
from zs3_mmseg.utils.checkpoint import safe_load, state_dict_of
from zs3_mmseg.utils.names import choose

from .timm_vit import embedded, plain_vit


@MODELS.register_module()
class ReadoutViT(BaseModule):
    r"""Patches of one block of a timm ViT, joined with the class token, at twice their
    resolution.

    With the output :math:`x_p` of block ``last_block`` for patch :math:`p` and
    :math:`x_0` for the class token,
    :math:`v = U\,C\,\mathrm{GELU}(R [x_p; x_0])`, with a linear :math:`R`, a 1x1
    convolution :math:`C` and a transposed convolution :math:`U` of 2x2 and stride 2:
    one of the four branches of a DPT encoder (arXiv 2103.13413), and the only one that
    reaches the outputs of SAZS's released network. Later blocks and the final norm are
    not built. Images are filled up to whole patches at the right and bottom.

    Args:
        model: name of a plain ViT of timm, with one class token and learned positions.
        out_channels: channels of the map, the width of the text rows.
        last_block: index of the block that is read.
        pretrained: True for timm's weights of that name (downloaded on first use), a
            local file with such weights; None or False: random ones.
        pos_interp: how positions are resized: ``'bilinear'`` or ``'bicubic'``.
        init_cfg: see mmengine.
        **model_options: options of the timm model, such as ``img_size`` or
            ``embed_dim``.

    Raises:
        ValueError: if the model is none of that kind or has no such block.
        FileNotFoundError: if its weights cannot be fetched.
    """

    #: The map covers what the image is filled up to.
    grid_mode = 'pad'

    def __init__(
        self,
        model: str = 'vit_large_patch16_384',
        *,
        out_channels: int = 512,
        last_block: int = 11,
        pretrained: bool | str | Path | None = None,
        pos_interp: Literal['bilinear', 'bicubic'] = 'bilinear',
        init_cfg: Any = None,
        **model_options: Any,
    ) -> None:
        super().__init__(init_cfg)
        self.pos_interp = choose('pos_interp', pos_interp, INTERPOLATIONS)
        vit = plain_vit(type(self).__name__, model, pretrained is True, **model_options)
        if not 0 <= last_block < len(vit.blocks):
            raise ValueError(
                f'ReadoutViT.last_block={last_block} is none of the {len(vit.blocks)} '
                f'blocks of {model}'
            )
        vit.blocks = vit.blocks[: last_block + 1]
        vit.norm = nn.Identity()
        self.vit = vit
        width = vit.embed_dim
        self.patch_size: int = vit.patch_embed.patch_size[0]
        self.out_channels = (out_channels,)
        self.readout = nn.Sequential(nn.Linear(2 * width, width), nn.GELU())
        self.project = nn.Conv2d(width, out_channels, 1)
        self.upsample = nn.ConvTranspose2d(out_channels, out_channels, 2, stride=2)
        if pretrained and pretrained is not True:
            self._load(Path(pretrained))

    def _load(self, path: Path) -> None:
        """Load the weights of the ViT; those of parts that are not built are left."""
        state = state_dict_of(safe_load(path), str(path))
        missing = [key for key in self.vit.state_dict() if key not in state]
        if missing:
            raise ValueError(
                f'{path} lacks {len(missing)} weights of the ViT, such as {missing[0]}'
            )
        self.vit.load_state_dict(state, strict=False)

    def init_weights(self) -> None:
        """Keep weights as timm drew or loaded them, unless ``init_cfg`` says more.

        mmengine would call timm's ``init_weights``, which draws a loaded ViT anew.
        """
        if self.init_cfg is not None:
            super().init_weights()

    def forward(self, img: Tensor) -> tuple[Tensor]:
        """Return one map ``(N, C, 2 h, 2 w)`` of ``h x w`` patches.

        Args:
            img: ``(N, 3, H, W)``, normalised; ``h = ceil(H / patch_size)``.
        """
        tokens, grid = embedded(self.vit, img, self.pos_interp)
        tokens = self.vit.blocks(tokens)
        first, rest = tokens[:, :1], tokens[:, 1:]
        joined = self.readout(torch.cat([rest, first.expand_as(rest)], dim=-1))
        maps = joined.transpose(1, 2).unflatten(2, grid)
        return (self.upsample(self.project(maps)),)
