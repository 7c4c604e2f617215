"""A head whose similarity of features and class rows is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmseg.registry import MODELS
from mmseg.utils import SampleList

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.losses import Divisor, pixel_mean
from zs3_mmseg.utils.names import choose

from .text_heads import cosine_maps
from .zero_shot_head import ZeroShotHead, pixel_accuracy, single_rows


@MODELS.register_module()
class RelationHead(ZeroShotHead):
    """A relation network between pixels and class rows (arXiv 1711.06025, eq. 1 and 2).

    With ``v = V(x)`` and ``t = T(e_k)``, both of ``channels``, one small network ``g``
    for all classes, so that it works on classes it was never trained on::

        r_k = sigmoid(g([v * t, |v - t|, cos(v, t)]) + scale * cos(v, t))

    ``g`` starts at zero: in the beginning a relation is a cosine. The paper
    concatenates ``v`` and ``t`` themselves, which ties ``g`` to the rows of the
    training; products and differences do not. Loss: mean over labelled pixels and
    classes of ``(r_k - [k = y])^2`` (eq. 2), or of the binary cross-entropy.

    Args:
        in_channels: channels of the features.
        embed_dim: length of a class row.
        channels: of ``v``, ``t``, and the hidden layer of ``g``.
        loss: ``'bce'`` or ``'mse'``.
        scale: factor on the cosine beside ``g``, >= 0.
        class_chunk: how many classes run through ``g`` at a time; their inputs are made
            again in the backward pass instead of being kept.
        **kwargs: see :class:`ZeroShotHead`.

    Raises:
        ValueError: for an unknown loss, or a number out of its range.
    """

    score_kind = 'sigmoid'

    def __init__(
        self,
        in_channels: int,
        *,
        embed_dim: int,
        channels: int = 64,
        loss: Literal['bce', 'mse'] = 'bce',
        scale: float = 5.0,
        class_chunk: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, channels, **kwargs)
        self.loss_kind = choose('RelationHead.loss', loss, ('bce', 'mse'))
        if scale < 0 or class_chunk < 1:
            raise ValueError(
                'RelationHead needs scale >= 0 and class_chunk >= 1, got '
                f'{scale} and {class_chunk}'
            )
        self.class_chunk = class_chunk
        self.scale = scale
        self.visual = nn.Conv2d(in_channels, channels, 1)
        self.text = nn.Linear(embed_dim, channels)
        last = nn.Conv2d(channels, 1, 1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.relation = nn.Sequential(
            nn.Conv2d(2 * channels + 1, channels, 1), nn.ReLU(), last
        )

    def query_logits(
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
    ) -> Tensor:
        """Return relations before the sigmoid, ``(N, Q, h, w)``."""
        visual = self.visual(self._transform_inputs(inputs))  # (N, d, h, w)
        texts = self.text(single_rows(queries, 'RelationHead'))  # (Q, d)
        parts = [
            checkpoint(self._relations, visual, chunk, use_reentrant=False)
            for chunk in texts.split(self.class_chunk)
        ]
        return torch.cat(parts, dim=1)

    def _relations(self, visual: Tensor, texts: Tensor) -> Tensor:
        """Return the relations of some classes, ``(N, q, h, w)``."""
        cosines = cosine_maps(visual, texts)  # (N, q, h, w)
        one, other = visual[:, None], texts[None, :, :, None, None]
        pairs = torch.cat(
            [one * other, (one - other).abs(), cosines[:, :, None]], dim=2
        )  # (N, q, 2d + 1, h, w)
        learned = self.relation(pairs.flatten(0, 1))  # (N q, 1, h, w)
        return learned.view_as(cosines) + self.scale * cosines

    def loss_by_feat(
        self, outputs: Tensor, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Return the loss over labelled pixels and classes, see the class.

        Args:
            outputs: class logits ``(N, K, h, w)``.
            batch_data_samples: samples with ``gt_sem_seg`` ``(1, H, W)``.
        """
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)

        def summed(logits: Tensor, truth: Tensor) -> Tensor:
            valid = truth != self.ignore_index
            target = F.one_hot(truth.where(valid, 0), logits.shape[1])
            target = target.movedim(3, 1).to(logits)
            if self.loss_kind == 'mse':
                each = (logits.sigmoid() - target).square()
            else:
                each = F.binary_cross_entropy_with_logits(
                    logits, target, reduction='none'
                )
            return (each.mean(dim=1) * valid).sum()

        return {
            f'loss_{self.loss_kind}': pixel_mean(
                summed, outputs, labels, **self._label_options
            ),
            'acc_seg': pixel_accuracy(outputs, labels, **self._label_options),
        }

    def loss_divisors(self, batch_data_samples: SampleList) -> dict[str, Divisor]:
        """Return what each loss is divided by: the labelled pixels."""
        labelled = self._labelled(batch_data_samples)
        return {f'loss_{self.loss_kind}': labelled, 'acc_seg': labelled}
