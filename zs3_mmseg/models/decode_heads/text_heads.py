"""Heads that compare each pixel with the class rows by cosine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS
from mmseg.utils import SampleList

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.losses import Divisor
from zs3_mmseg.models.precision import at_least_float32
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.names import choose

from .zero_shot_head import ZeroShotHead, pixel_accuracy, single_rows


def cosine_maps(features: Tensor, rows: Tensor) -> Tensor:
    """Return ``cos(features, rows)`` of each position and each row.

    Computed in float32 under autocast as well: bfloat16 resolves cosines of a typical
    0.2 only to 0.001, which a logit scale of 40 or 100 turns into visible noise.
    Features ``(N, D, h, w)`` and rows ``(Q, D)``, or rows ``(N, Q, D)`` of each image,
    give ``(N, Q, h, w)`` in -1..1.
    """
    if features.shape[1] != rows.shape[-1]:
        raise ConfigError(
            f'feature maps have {features.shape[1]} channels and class embeddings '
            f'{rows.shape[-1]}: they must come from the same embedding space (same '
            'arch and pretrained of backbone and class_embeddings), or a head with a '
            'trained projection to decode_head.embed_dim='
            f'{rows.shape[-1]} has to stand between them'
        )
    with torch.autocast(features.device.type, enabled=False):
        patches = at_least_float32(features.flatten(2))  # (N, D, hw)
        patches = F.normalize(patches, dim=1)
        maps = F.normalize(rows.to(patches), dim=-1) @ patches  # (N, Q, hw)
    return maps.unflatten(2, features.shape[2:])


@MODELS.register_module()
class DenseTextHead(ZeroShotHead):
    """Scaled cosine of CLIP's dense tokens and the class embeddings; no parameters.

    ``z_q = scale * cos(f, t_q)`` of a token ``f`` and a row ``t_q``, both ``(D,)``: the
    post-processing of the training-free family (MaskCLIP arXiv 2112.01071, SCLIP
    2312.01597, NACLIP 2404.08181). Softmax over all queries, a class scores as its best
    query.

    Args:
        in_channels: channels of the dense tokens; the width of the embeddings.
        scale: factor on the cosines before the softmax, > 0.
        prob_thd: pixels whose best class scores below it get ``bg_index``; None: off.
        bg_index: index of the background class for ``prob_thd``.
        **kwargs: see :class:`ZeroShotHead`.

    Raises:
        ValueError: for a scale, threshold or index out of range.
    """

    score_kind = 'softmax'

    def __init__(
        self,
        in_channels: int,
        *,
        scale: float = 40.0,
        prob_thd: float | None = None,
        bg_index: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, **kwargs)
        if not scale > 0:
            raise ValueError(f'scale must be > 0, not {scale}')
        if prob_thd is not None and not 0 <= prob_thd <= 1:
            raise ValueError(f'prob_thd is a probability in 0..1, not {prob_thd}')
        if bg_index < 0:
            raise ValueError(f'bg_index is a class index >= 0, not {bg_index}')
        self.scale = scale
        self.prob_thd = prob_thd
        self.bg_index = bg_index

    def query_logits(
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
    ) -> Tensor:
        """Return ``scale`` times the cosines, ``(N, Q, h, w)``."""
        features = self._transform_inputs(inputs)  # (N, D, h, w)
        rows = single_rows(queries, 'DenseTextHead')
        return self.scale * cosine_maps(features, rows)


#: Upper bound of the learned scale, as in CLIP (arXiv 2103.00020, section 2.5).
MAX_SCALE = 100.0


@MODELS.register_module()
class TextPixelHead(ZeroShotHead):
    """Projected pixel features against class embeddings, trained by cross-entropy.

    ``z_q = scale * cos(P(f), t_q)``, with softmax cross-entropy over the classes. It
    stands on patch tokens or on the features of any mmseg backbone. What it learns
    is the projection and the temperature; classes stay rows, so that a new row is a
    new class without training.

    Args:
        in_channels: channels of the features; a number for each of several maps with
            ``input_transform='resize_concat'``.
        embed_dim: width of the class embeddings; ``in_channels`` if None.
        projection: ``'none'``, ``'linear'`` (one 1x1 convolution) or ``'mlp'`` (two,
            with a GELU between).
        channels: hidden width of the ``'mlp'``; ``embed_dim`` if None.
        scale: initial factor on the cosines, in (0, 100].
        learn_scale: whether the factor is trained.
        **kwargs: see :class:`ZeroShotHead`.

    Raises:
        ValueError: for an unknown projection, a scale out of range, or
            ``projection='none'`` between spaces of different widths.
    """

    score_kind = 'softmax'

    def __init__(
        self,
        in_channels: int | Sequence[int],
        *,
        embed_dim: int | None = None,
        projection: Literal['none', 'linear', 'mlp'] = 'linear',
        channels: int | None = None,
        scale: float = 20.0,
        learn_scale: bool = True,
        **kwargs: Any,
    ) -> None:
        width = in_channels if isinstance(in_channels, int) else sum(in_channels)
        embed_dim = embed_dim or width
        channels = channels or embed_dim
        super().__init__(in_channels, channels, **kwargs)
        if not 0 < scale <= MAX_SCALE:
            raise ValueError(f'scale must be in (0, {MAX_SCALE:g}], not {scale}')
        self.projection = _projection(projection, width, channels, embed_dim)
        log_scale = torch.tensor(math.log(scale))
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer('log_scale', log_scale)

    def query_logits(
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
    ) -> Tensor:
        """Return scaled cosines of projected features and rows, ``(N, Q, h, w)``."""
        features = self.projection(self._transform_inputs(inputs))  # (N, D, h, w)
        rows = single_rows(queries, 'TextPixelHead')
        return self.scale() * cosine_maps(features, rows)

    def scale(self) -> Tensor:
        """Return the factor on the cosines."""
        return self.log_scale.exp().clamp(max=MAX_SCALE)


def _projection(
    kind: str, in_channels: int, channels: int, embed_dim: int
) -> nn.Module:
    choose('projection', kind, ('none', 'linear', 'mlp'))
    if kind == 'none':
        if in_channels != embed_dim:
            raise ValueError(
                f"projection='none' keeps {in_channels} channels, but the class "
                f"embeddings have {embed_dim}: use 'linear' or 'mlp'"
            )
        return nn.Identity()
    if kind == 'linear':
        return nn.Conv2d(in_channels, embed_dim, 1)
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 1),
        nn.GELU(),
        nn.Conv2d(channels, embed_dim, 1),
    )


@MODELS.register_module()
class CosineRegressionHead(ZeroShotHead):
    """One 1x1 convolution to the class vectors' space, trained by ``1 - cosine``.

    The baseline of ZS3Net (arXiv 1906.00817, section 4) after DeViSE: each pixel is
    drawn to the vector of its class and pushed away from none; the class with the
    largest cosine wins. No official code exists, so this is a reconstruction.

    Args:
        in_channels: channels of the features; a number for each of several maps with
            ``input_transform='resize_concat'``.
        embed_dim: length of a class vector.
        **kwargs: see :class:`ZeroShotHead`.
    """

    # Cosines are compared as they are.
    score_kind = 'logit'

    def __init__(
        self, in_channels: int | Sequence[int], *, embed_dim: int, **kwargs: Any
    ) -> None:
        super().__init__(in_channels, embed_dim, **kwargs)
        self.projection = nn.Conv2d(self.in_channels, embed_dim, 1)

    def query_logits(
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
    ) -> Tensor:
        """Return cosines of projected features and rows, ``(N, Q, h, w)``."""
        features = self.projection(self._transform_inputs(inputs))
        return cosine_maps(features, single_rows(queries, 'CosineRegressionHead'))

    def loss_by_feat(
        self, outputs: Tensor, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Mean over labelled pixels of ``1 - cos(P(f), t_y)``, ``y`` the true class.

        Args:
            outputs: cosines ``(N, K, h, w)``, resized bilinearly to the labels.
            batch_data_samples: samples with ``gt_sem_seg`` ``(1, H, W)``.
        """
        labels = self._stack_batch_gt(batch_data_samples)  # (N, 1, H, W)
        cosines = F.interpolate(
            outputs,
            size=labels.shape[-2:],
            mode='bilinear',
            align_corners=self.align_corners,
        )
        valid = labels != self.ignore_index
        chosen = cosines.gather(1, labels.where(valid, 0))
        loss = ((1 - chosen) * valid).sum() / valid.sum().clamp(min=1)
        accuracy = pixel_accuracy(outputs, labels.squeeze(1), **self._label_options)
        return {'loss_cosine': loss, 'acc_seg': accuracy}

    def loss_divisors(self, batch_data_samples: SampleList) -> dict[str, Divisor]:
        """Return what each loss is divided by: the labelled pixels."""
        labelled = self._labelled(batch_data_samples)
        return {'loss_cosine': labelled, 'acc_seg': labelled}
