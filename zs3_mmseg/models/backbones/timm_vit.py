"""Plain vision transformers of timm as dense backbones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmengine.model import BaseModule
from mmseg.registry import MODELS

from zs3_mmseg.models.towers.positions import INTERPOLATIONS, resize_positions
from zs3_mmseg.utils.checkpoint import load_into, safe_load, state_dict_of
from zs3_mmseg.utils.names import choose

from .blocks import check_blocks, whole_patches
from .outputs import TowerOutput

#: What is behind the last block: neither is read, and neither learns.
_UNREAD = ('norm.', 'fc_norm.', 'head.')


@MODELS.register_module()
class TimmViT(BaseModule):
    """Outputs of some blocks of a ViT, each with its class token, at any image size.

    It is what DPT (arXiv 2103.13413) and LSeg (2201.03546) read: tokens behind whole
    blocks, before the final norm, which does not exist here. Position embeddings are
    resized to the image's grid; images are filled with zeros at the right and bottom
    up to whole patches.

    Args:
        model: name of a model of timm with one class token and learned positions.
        pretrained: ``True``: timm's weights, downloaded on first use; a local file with
            weights of this model; ``False``: weights at random.
        out_indices: the blocks whose outputs are returned, in ascending order.
        pos_interp: ``'bilinear'`` as in DPT and LSeg, or ``'bicubic'``.
        **kwargs: options of ``timm.create_model``, such as ``img_size``, ``embed_dim``,
            ``depth``, ``num_heads`` and ``drop_path_rate``.

    Raises:
        ValueError: for a model of another kind, or blocks that it does not have.
        CheckpointError: if the file does not fit the model.
        FileNotFoundError: if weights cannot be fetched.
    """

    def __init__(
        self,
        model: str,
        *,
        pretrained: bool | str | Path = False,
        out_indices: Sequence[int],
        pos_interp: str = 'bilinear',
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.pos_interp = choose('pos_interp', pos_interp, INTERPOLATIONS)
        self.grid_mode = 'pad'
        vit = plain_vit(type(self).__name__, model, pretrained is True, **kwargs)
        self.patch_size = int(vit.patch_embed.patch_size[0])
        self.out_indices = check_blocks('out_indices', out_indices, len(vit.blocks))
        if not self.out_indices:
            raise ValueError('out_indices is empty: no output')
        # A block that nothing reads would have no gradient.
        vit.blocks = vit.blocks[: self.out_indices[-1] + 1]
        vit.norm = vit.fc_norm = vit.head = nn.Identity()
        self.vit: Any = vit
        if pretrained and pretrained is not True:
            self._load(Path(pretrained))

    def _load(self, file: Path) -> None:
        """Read weights of a whole model, with positions of any square grid."""
        state = {
            key: value
            for key, value in state_dict_of(safe_load(file), str(file)).items()
            if not key.startswith(_UNREAD) and not _beyond(key, self.out_indices[-1])
        }
        if 'pos_embed' in state:
            state['pos_embed'] = resize_positions(
                state['pos_embed'][0], self.vit.patch_embed.grid_size, None, 'bicubic'
            )[None]
        load_into(self.vit, state, what=str(file))

    def init_weights(self) -> None:
        """Keep the weights of construction, loaded or drawn as timm draws them."""
        self._is_init = True

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each returned map."""
        return (int(self.vit.embed_dim),) * len(self.out_indices)

    def forward(self, img: Tensor) -> TowerOutput:
        """Return maps ``(N, C, h, w)`` and class tokens ``(N, len(out_indices), C)``.

        Args:
            img: ``(N, 3, H, W)``, normalised; ``h = ceil(H / patch)``.
        """
        vit = self.vit
        tokens, grid = embedded(vit, img, self.pos_interp)
        maps, classes = [], []
        for index, block in enumerate(vit.blocks):
            tokens = block(tokens)
            if index in self.out_indices:
                maps.append(tokens[:, 1:].transpose(1, 2).unflatten(2, grid))
                classes.append(tokens[:, 0])
        return TowerOutput(tuple(maps), cls_tokens=torch.stack(classes, dim=1))


def embedded(vit: Any, img: Tensor, pos_interp: str) -> tuple[Tensor, tuple[int, int]]:
    """Return what enters the first block, ``(N, 1 + h w, C)``, and the grid (h, w)."""
    patch_size = int(vit.patch_embed.patch_size[0])
    patches = vit.patch_embed.proj(whole_patches(img, patch_size, 'pad'))
    grid = (patches.shape[2], patches.shape[3])
    first = vit.cls_token.expand(img.shape[0], -1, -1)
    rest = vit.patch_embed.norm(patches.flatten(2).transpose(1, 2))
    positions = resize_positions(
        vit.pos_embed[0], grid, vit.patch_embed.grid_size, pos_interp
    )
    tokens = torch.cat([first, rest], dim=1)
    return vit.norm_pre(vit.pos_drop(tokens + positions)), grid


def plain_vit(reader: str, model: str, pretrained: bool, **kwargs: Any) -> Any:
    """Make a model of timm; refuse what has other tokens than patches and class.

    ``reader`` is the backbone that wants it, for messages.
    """
    # Not before somebody wants one: it takes seconds, as open_clip does.
    import timm
    from timm.models.vision_transformer import VisionTransformer

    try:
        vit: Any = timm.create_model(
            model, pretrained=pretrained, num_classes=0, **kwargs
        )
    except OSError as error:  # the errors of its hub are such
        raise FileNotFoundError(
            f'the weights of {model} cannot be fetched ({str(error).splitlines()[0]}): '
            'give a local file as model.backbone.pretrained'
        ) from error
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'{reader}(model={model!r}): {error}') from error
    plain = isinstance(vit, VisionTransformer) and vit.num_prefix_tokens == 1
    if not plain or vit.pos_embed is None or vit.no_embed_class:
        raise ValueError(
            f'{reader}(model={model!r}): {type(vit).__name__} is no plain ViT with one '
            "class token and learned positions, such as 'vit_base_patch16_384'"
        )
    return vit


def _beyond(key: str, last: int) -> bool:
    """Tell whether a weight belongs to a block behind the last one that is run."""
    kind, _, rest = key.partition('.')
    number = rest.split('.')[0]
    return kind == 'blocks' and number.isdigit() and int(number) > last
