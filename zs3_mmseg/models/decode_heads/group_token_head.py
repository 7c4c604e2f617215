"""GroupViT's decoding: groups are masks, and their tokens are named by text rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.registry import MODELS
from mmseg.utils import ConfigType, SampleList

from zs3_mmseg.models.class_embeddings.queries import ClassQueries

from .mask_scores import MaskScores
from .zero_shot_head import ScoreKind, ZeroShotHead, reduce_queries, single_rows


@MODELS.register_module()
class GroupTokenHead(ZeroShotHead):
    r"""Names the groups of a ``GroupViTBackbone``; nothing is trained here.

    With unit tokens :math:`g_i` of the groups, :math:`v` of the image and rows
    :math:`t_k`, the classes :math:`\mathcal K` are those with the ``top_k`` largest
    :math:`v \cdot t_k`, and group :math:`i` scores for one of them

    .. math:: c_{ik} = \mathrm{softmax}_{k \in \mathcal K}(s\, g_i \cdot t_k)\;
        \mathrm{softmax}_{k}(s\, g_i \cdot t_k),

    for others 0 (GroupViT, arXiv 2202.11094, section 4.1, and its released code). A
    pixel belongs to the group with the largest value of its resized map and scores what
    that does. Pixels whose best score is below ``prob_thd`` are background.

    Args:
        in_channels: number of groups.
        scale: :math:`s`; see ``GroupViTBackbone.scale``.
        top_k: how many classes an image may have, >= 1; None: all.
        hard: one group per pixel; False: groups share it as their maps say.
        prob_thd: of the background, in 0..1; 0.95 in the released code for VOC, a
            value for each data set. None: no background.
        bg_index: the class that is the background.
        **kwargs: see :class:`ZeroShotHead`.

    Raises:
        ValueError: for numbers out of range.
    """

    score_kind: ScoreKind = 'mask_sum'
    needs_global_token = True

    def __init__(
        self,
        in_channels: int,
        *,
        scale: float = 100.0,
        top_k: int | None = 5,
        hard: bool = True,
        prob_thd: float | None = None,
        bg_index: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, **kwargs)
        if not scale > 0:
            raise ValueError(f'scale must be > 0, not {scale}')
        if top_k is not None and top_k < 1:
            raise ValueError(f'top_k must be >= 1, not {top_k}')
        if prob_thd is not None and not 0 <= prob_thd <= 1:
            raise ValueError(f'prob_thd must be in 0..1, not {prob_thd}')
        self.scale = scale
        self.top_k = top_k
        self.hard = hard
        self.prob_thd = prob_thd
        self.bg_index = bg_index

    def predict(  # type: ignore[override]
        self,
        inputs: Sequence[Tensor],
        batch_img_metas: list[dict],
        test_cfg: ConfigType | None,
        *,
        queries: ClassQueries,
        global_token: Tensor,
        group_tokens: Tensor,
    ) -> MaskScores:
        """Name the groups.

        Args:
            inputs: their maps ``(N, G, h, w)``.
            batch_img_metas: their ``img_shape`` is the size that the maps stand for.
            test_cfg: not read.
            queries: rows of ``K`` classes.
            global_token: ``(N, E)`` of the images, of length 1.
            group_tokens: ``(N, G, E)``, of length 1.

        Returns:
            masks ``(N, G, H, W)`` and class scores ``(N, G, K)``.
        """
        rows = single_rows(queries, 'GroupTokenHead')
        counts = queries.queries_per_class

        def logits(tokens: Tensor) -> Tensor:  # (..., E) -> (..., K)
            flat = self.scale * tokens.flatten(0, -2) @ rows.T
            reduced = reduce_queries(flat, counts, 'max')
            return reduced.unflatten(0, tokens.shape[:-1])

        scores = logits(group_tokens)
        every = scores.softmax(dim=-1)
        if self.top_k is not None and self.top_k < scores.shape[-1]:
            kept = logits(global_token).topk(self.top_k, dim=-1).indices  # (N, k)
            out = scores.new_ones(scores[:, 0].shape, dtype=torch.bool)
            out.scatter_(1, kept, False)
            scores = scores.masked_fill(out[:, None], -float('inf'))
        maps = inputs[self.in_index]
        if self.hard:
            size = tuple(batch_img_metas[0]['img_shape'][:2])
            full = F.interpolate(maps, size=size, mode='bilinear', align_corners=False)
            best = F.one_hot(full.argmax(dim=1), maps.shape[1])
            maps = best.permute(0, 3, 1, 2).bool()
        return MaskScores(maps, scores.softmax(dim=-1) * every, mask_kind='prob')

    def query_logits(self, inputs: Sequence[Tensor], **given: Any) -> Tensor:
        """Refuse: there is one score per group, not one map per row."""
        raise NotImplementedError('GroupTokenHead has predict in place of query_logits')

    def loss_by_feat(
        self, outputs: Any, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Refuse to train.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            'GroupTokenHead trains nothing: GroupViT learns from captions, which is '
            'not done here; test it with tools/test.py'
        )

    def training_outputs(self, inputs: Sequence[Tensor], **given: Any) -> None:
        """Return nothing, see :meth:`loss_by_feat`."""
