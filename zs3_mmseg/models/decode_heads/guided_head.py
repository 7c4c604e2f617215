"""A head of our own: ZegCLIP's queries, and pixels that choose among nearby patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.resize import resize_maps
from zs3_mmseg.utils.config_check import ConfigError

from .zegclip_head import TrainingMasks, ZegCLIPHead
from .zero_shot_head import GatedLogits

if TYPE_CHECKING:
    from zs3_mmseg.models.segmentors.input_image import InputImage

__all__ = ['GuidedHead', 'GuidedUpsampler']

#: How fast the start's weights fall with the squared distance in patches.
_FALL = 2.0


class GuidedUpsampler(nn.Module):
    """Enlarges maps by letting each pixel choose among the patches around it.

    A small convolutional network makes a vector ``g`` for each pixel of the picture,
    and the mean of a patch's pixels is what stands for the patch. The value of a map at
    a pixel ``x`` is a convex combination of the ``window ** 2`` patches ``p`` around
    it, by how much pixel and patch look alike and by where the pixel lies in its
    patch::

        w_p(x) = softmax_p (W_q g(x) . mean_p W_k g / sqrt(channels) + b_p(x))
        M(x) = sum_p w_p(x) M_p

    The weights know no class: they are the same for all maps, so what is learnt from
    outlines of seen classes holds for any name, and no value leaves the range of its
    neighbours. Attention from pixels to a coarse map is the idea of JAFAR
    (arXiv 2506.11136) and NAF (arXiv 2511.18452), which enlarge features.

    Args:
        factor: pixels of the result for each side of a patch, >= 2. The picture is
            brought to that size.
        window: patches on each side of the square that a pixel chooses from, odd.
        channels: of ``g``, a multiple of 4.

    Raises:
        ConfigError: for another value of any of them.
    """

    def __init__(self, factor: int = 8, window: int = 5, channels: int = 32) -> None:
        super().__init__()
        if factor < 2:
            raise ConfigError(f'upsampler.factor={factor} must be at least 2')
        if window < 1 or window % 2 == 0:
            raise ConfigError(f'upsampler.window={window} must be odd and above 0')
        if channels < 4 or channels % 4:
            raise ConfigError(f'upsampler.channels={channels} must be a multiple of 4')
        self.factor, self.window = factor, window
        self.wide = nn.Sequential(
            *_layer(3, channels),
            *_layer(channels, channels, stride=2),
            *_layer(channels, channels, padding=2, dilation=2),
        )
        self.fine = nn.Sequential(*_layer(channels + 3, channels))
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        # Distances of pixels from the centres of patches, in patches.
        inside = (torch.arange(factor) + 0.5) / factor - 0.5
        apart = (torch.arange(window) - window // 2)[:, None] - inside
        squares = apart[:, None, :, None] ** 2 + apart[None, :, None, :] ** 2
        self.place = nn.Parameter(-_FALL * squares.reshape(window**2, factor**2))

    def weights(self, pixels: Tensor, grid: Sequence[int]) -> Tensor:
        """Return the weights ``(N, h, w, window ** 2, factor ** 2)`` of each patch.

        Args:
            pixels: ``(N, 3, H, W)``, RGB, 0..255.
            grid: height and width of the maps, in patches.
        """
        size = [side * self.factor for side in grid]
        picture = resize_maps(pixels / 127.5 - 1, size, align_corners=False)
        wide = resize_maps(self.wide(picture), size, align_corners=False)
        features = self.fine(torch.cat([wide, picture], dim=1))
        keys = F.avg_pool2d(self.key(features), self.factor)
        near = self._around(keys)  # (N, h, w, C, window ** 2)
        own = F.pixel_unshuffle(self.query(features), self.factor)
        own = own.unflatten(1, (-1, self.factor**2)).permute(0, 3, 4, 1, 2)
        alike = near.transpose(-1, -2) @ own / keys.shape[1] ** 0.5
        return (alike + self.place).softmax(dim=-2)

    def forward(self, maps: Tensor, weights: Tensor) -> Tensor:
        """Enlarge maps ``(N, Q, h, w)`` to ``(N, Q, h * factor, w * factor)``.

        ``weights`` are those of :meth:`weights` for the same pictures.
        """
        chosen = self._around(maps) @ weights.to(maps.dtype)  # (N, h, w, Q, factor**2)
        return F.pixel_shuffle(chosen.permute(0, 3, 4, 1, 2).flatten(1, 2), self.factor)

    def _around(self, maps: Tensor) -> Tensor:
        """Return what lies around each place, ``(N, h, w, C, window ** 2)``.

        Beyond the border its values are repeated.
        """
        margin = self.window // 2
        padded = F.pad(maps, [margin] * 4, mode='replicate')
        windows = padded.unfold(2, self.window, 1).unfold(3, self.window, 1)
        return windows.permute(0, 2, 3, 1, 4, 5).flatten(-2)


def _layer(before: int, after: int, **options: int) -> list[nn.Module]:
    options = {'padding': 1, **options}
    convolution = nn.Conv2d(before, after, 3, **options)  # type: ignore[arg-type]
    return [convolution, nn.GroupNorm(4, after), nn.GELU()]


@MODELS.register_module()
class GuidedHead(ZegCLIPHead):
    """:class:`ZegCLIPHead` whose masks follow the outlines of the picture.

    The published heads of the family leave their masks at patch resolution and enlarge
    them bilinearly. Here :class:`GuidedUpsampler` enlarges them, learnt together with
    everything else from the same loss. It knows no class, so unseen ones get outlines
    as sharp as those of seen ones.

    Every option of :class:`ZegCLIPHead` holds. Masks are made by its formulas, and
    losses and results read them after the upsampler.

    Args:
        in_channels: see :class:`ZegCLIPHead`.
        upsampler: options of :class:`GuidedUpsampler`.
        **kwargs: see :class:`ZegCLIPHead`.
    """

    needs_image = True

    def __init__(
        self,
        in_channels: int,
        *,
        upsampler: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, **kwargs)
        self.upsampler = GuidedUpsampler(**(upsampler or {}))

    def query_logits(
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        group_tokens: Tensor | None = None,
        image: InputImage | None = None,
    ) -> Tensor | GatedLogits:
        """Return the resulting mask logits ``(N, Q, h * factor, w * factor)``."""
        logits = super().query_logits(
            inputs,
            queries=queries,
            global_token=global_token,
            group_tokens=group_tokens,
        )
        if isinstance(logits, GatedLogits):
            weights = self._weights(logits.logits, image)
            return GatedLogits(
                self.upsampler(logits.logits, weights),
                self.upsampler(logits.gate, weights),
            )
        return self.upsampler(logits, self._weights(logits, image))

    def training_outputs(  # type: ignore[override]  # wants nothing else
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        group_tokens: Tensor | None = None,
        image: InputImage | None = None,
    ) -> TrainingMasks:
        """Return the masks that get a loss, ``(N, K, h * factor, w * factor)`` each."""
        coarse = super().training_outputs(
            inputs,
            queries=queries,
            global_token=global_token,
            group_tokens=group_tokens,
        )
        weights = self._weights(coarse[-1], image)
        masks = [self.upsampler(mask, weights) for mask in coarse]
        trust = coarse.trust
        if trust is not None:
            trust = self.upsampler(trust, weights)
        return TrainingMasks(masks, trust, coarse.recovered)

    def _weights(self, maps: Tensor, image: InputImage | None) -> Tensor:
        """Return the upsampler's weights for maps of pictures."""
        if image is None:
            raise ConfigError(
                'GuidedHead reads the picture, which this segmentor does not give: set '
                f'model.type={self.segmentor!r}'
            )
        return self.upsampler.weights(image.covered, maps.shape[-2:])
