"""Training-free segmentation: patch tokens against class embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mmseg.registry import MODELS

from zs3_mmseg.models.class_embeddings.queries import ClassQueries

from .cosine import cosine_maps
from .zero_shot_head import ZeroShotHead


@MODELS.register_module()
class DenseTextHead(ZeroShotHead):
    """Scaled cosine of CLIP's dense tokens and the class embeddings; no parameters.

    The post-processing of the training-free family (MaskCLIP arXiv 2112.01071, SCLIP
    2312.01597, NACLIP 2404.08181): softmax over all queries, a class scores as its
    best query.

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
        return self.scale * cosine_maps(features, queries.embeddings)
