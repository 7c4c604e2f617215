"""ZegCLIP's family behind a refinement of patches by tokens of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mmseg.registry import MODELS

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.utils.config_check import ConfigError

from .zegclip_head import TrainingMasks, ZegCLIPHead
from .zero_shot_head import GatedLogits

__all__ = ['ObjectCentricHead', 'ObjectRefinement']


class _Exchange(nn.Module):
    """Objects gather from patches, patches from objects, and patches from around them.

    With layer norms before each part and residuals around it::

        o = o + attention(o, p);  o = o + mlp(o)
        p = p + attention(p, o);  p = p + sum_k depthwise_k(p)
    """

    def __init__(self, dim: int, num_heads: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(6))
        self.gather = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )
        self.scatter = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.fields = nn.ModuleList(
            nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)
            for kernel in kernels
        )

    def forward(
        self, patches: Tensor, objects: Tensor, grid: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Return new patches ``(N, hw, E)`` and objects ``(N, G, E)``."""
        near = self.norms[1](patches)
        own = self.norms[0](objects)
        objects = objects + self.gather(own, near, near, need_weights=False)[0]
        objects = objects + self.mlp(self.norms[2](objects))
        own, near = self.norms[3](objects), self.norms[4](patches)
        patches = patches + self.scatter(near, own, own, need_weights=False)[0]
        maps = self.norms[5](patches).transpose(1, 2).unflatten(2, tuple(grid))
        for field in self.fields:
            patches = patches + field(maps).flatten(2).transpose(1, 2)
        return patches, objects


class ObjectRefinement(nn.Module):
    """Patches that learn what else belongs to their object.

    Some layers exchange what object tokens and patches know; a last linear map, which
    starts at zero, of the normed result is added to the patches, so that the start
    leaves them as they are. It stands for the "object refinement attention" of OC-ZSS
    (ICLR 2026) and its attention over several receptive fields, of which the abstract
    says no more than that.

    Args:
        dim: channels ``E``.
        num_layers: how often both learn from each other, >= 1.
        num_heads: of attention; a divisor of ``dim``.
        kernels: odd sides of the receptive fields around a patch; may be empty.

    Raises:
        ConfigError: for values out of range.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_layers: int = 2,
        num_heads: int = 8,
        kernels: Sequence[int] = (1, 3, 5),
    ) -> None:
        super().__init__()
        if num_layers < 1 or num_heads < 1 or dim % num_heads:
            raise ConfigError(
                f'refinement.num_layers={num_layers} must be at least 1, and num_heads='
                f'{num_heads} must divide {dim}'
            )
        if any(kernel < 1 or kernel % 2 == 0 for kernel in kernels):
            raise ConfigError(f'refinement.kernels={tuple(kernels)} must be odd')
        self.layers = nn.ModuleList(
            _Exchange(dim, num_heads, kernels) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, maps: Tensor, objects: Tensor) -> Tensor:
        """Return refined patches ``(N, E, h, w)``.

        Args:
            maps: patches ``(N, E, h, w)``.
            objects: their tokens ``(N, G, E)``.
        """
        grid = maps.shape[2:]
        patches = maps.flatten(2).transpose(1, 2)
        for layer in self.layers:
            patches, objects = layer(patches, objects, grid)
        added = self.out(self.norm(patches))
        return maps + added.transpose(1, 2).unflatten(2, grid)


@MODELS.register_module()
class ObjectCentricHead(ZegCLIPHead):
    """:class:`ZegCLIPHead` on patches that tokens of objects have refined.

    An approximation of OC-ZSS (ICLR 2026), whose code is not public: of its encoder see
    :class:`~zs3_mmseg.models.backbones.ClusterTokens`. With ``H`` the patches and ``o``
    the group tokens of the tower::

        H' = H + W_out LN(refined(H, o)),  W_out = 0 at the start

    takes the place of ``H`` in all formulas of :class:`ZegCLIPHead`; the maps of
    ``tap_groups`` stay as they are. With the options of OTSeg the start is OTSeg's.

    Args:
        in_channels: see :class:`ZegCLIPHead`.
        refinement: options of :class:`ObjectRefinement`.
        **kwargs: see :class:`ZegCLIPHead`.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        refinement: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, **kwargs)
        self.refinement = ObjectRefinement(in_channels, **(refinement or {}))

    def query_logits(
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        group_tokens: Tensor | None = None,
    ) -> Tensor | GatedLogits:
        """Return the resulting mask logits ``(N, Q, h, w)``."""
        return super().query_logits(
            self._refined(inputs, group_tokens),
            queries=queries,
            global_token=global_token,
            group_tokens=group_tokens,
        )

    def training_outputs(  # type: ignore[override]  # wants nothing else
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        group_tokens: Tensor | None = None,
    ) -> TrainingMasks:
        """Return the masks that get a loss, ``(N, K, h, w)`` each."""
        return super().training_outputs(
            self._refined(inputs, group_tokens),
            queries=queries,
            global_token=global_token,
            group_tokens=group_tokens,
        )

    def _refined(
        self, inputs: Sequence[Tensor], groups: Tensor | None
    ) -> Sequence[Tensor]:
        """Return the maps with that of ``in_index`` refined."""
        if groups is None:
            raise ConfigError(
                'ObjectCentricHead reads tokens of objects, which the backbone does '
                "not give: set model.backbone.extra_tokens=dict(type='ClusterTokens') "
                "of an 'OpenCLIPViT'"
            )
        maps = [*inputs]
        maps[self.in_index] = self.refinement(maps[self.in_index], groups)
        return maps
