"""A head that predicts attributes, and classes by their attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS
from mmseg.utils import SampleList

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.losses import Divisor, pixel_mean
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.names import choose

from .text_heads import cosine_maps
from .zero_shot_head import ZeroShotHead, pixel_accuracy, single_rows


class _Outputs(NamedTuple):
    """Logits of classes and attributes ``(N, ., h, w)``; who has what ``(K, A)``."""

    logits: Tensor
    attributes: Tensor
    table: Tensor


@MODELS.register_module()
class AttributeHead(ZeroShotHead):
    """Direct attribute prediction (Lampert et al., CVPR 2009, eq. 2 and 3).

    A 1x1 convolution says which attributes a pixel's thing has, ``p_a = sigmoid(u_a)``;
    a class has those whose value in its row is above 0, ``A_ka``. With the share
    ``q_a`` of seen classes that have an attribute, the posterior of a class is::

        log p(k) = sum_a log(A_ka ? p_a / q_a : (1 - p_a) / (1 - q_a)) + const
                 = sum_a A_ka (u_a - logit q_a) + const'

    where the constants are the same for all classes. ``q_a`` is counted with one class
    more on either side, as ``(n_a + 1) / (n + 2)``, so that it is never 0 or 1. Loss:
    binary cross-entropy of all attributes, over labelled pixels. Rows come from a bank
    with a source of type ``'attributes'``.

    Args:
        in_channels: channels of the features.
        embed_dim: how many attributes there are.
        compare: ``'dap'``: the posterior above; ``'cosine'``: ``scale`` times the
            cosine of ``p`` and ``A_k``.
        scale: factor on cosines, > 0.
        **kwargs: see :class:`ZeroShotHead`.

    Raises:
        ValueError: for an unknown ``compare``, or a scale that is not positive.
    """

    score_kind = 'softmax'
    prior_logits: Tensor

    def __init__(
        self,
        in_channels: int,
        *,
        embed_dim: int,
        compare: Literal['dap', 'cosine'] = 'dap',
        scale: float = 20.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, embed_dim, **kwargs)
        self.compare = choose('AttributeHead.compare', compare, ('dap', 'cosine'))
        if not scale > 0:
            raise ValueError(f'AttributeHead.scale must be > 0, not {scale}')
        self.scale = scale
        self.attributes = nn.Conv2d(in_channels, embed_dim, 1)
        self.register_buffer('prior_logits', torch.zeros(embed_dim))

    def query_logits(
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
    ) -> Tensor:
        """Return log posteriors but for a constant, or cosines, ``(N, Q, h, w)``."""
        predicted = self.attributes(self._transform_inputs(inputs))
        return self._class_scores(predicted, self._table(queries))

    def _table(self, queries: ClassQueries) -> Tensor:
        """Return which attributes each query has, ``(Q, A)`` of 0 and 1."""
        rows = single_rows(queries, 'AttributeHead')
        if (rows > 0).all():
            raise ConfigError(
                'AttributeHead takes what is above 0 in the row of a class for its '
                'attributes, and all is above 0 in all rows: set '
                "model.class_embeddings.source.type='attributes'"
            )
        return (rows > 0).to(rows)

    def _class_scores(self, predicted: Tensor, table: Tensor) -> Tensor:
        if self.compare == 'cosine':
            return self.scale * cosine_maps(predicted.sigmoid(), table)
        evidence = predicted - self.prior_logits[:, None, None]
        return torch.einsum('nahw,qa->nqhw', evidence, table)

    def training_outputs(
        self, inputs: Sequence[Tensor], *, queries: ClassQueries, **given: Any
    ) -> _Outputs:
        """Return class logits, attribute logits and who has what; count the prior."""
        table = self._table(queries)
        if len(table) != queries.num_classes:
            raise ConfigError(
                'AttributeHead is trained with one row for each class: take the '
                'synonyms out of the names of the split'
            )
        seen = table[queries.seen_mask]
        self.prior_logits.copy_(torch.logit((seen.sum(dim=0) + 1) / (len(seen) + 2)))
        predicted = self.attributes(self._transform_inputs(inputs))
        return _Outputs(self._class_scores(predicted, table), predicted, table)

    def class_logits(self, outputs: _Outputs) -> Tensor:
        """Return the class logits ``(N, K, h, w)`` in :meth:`training_outputs`."""
        return outputs.logits

    def loss_by_feat(
        self, outputs: _Outputs, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Binary cross-entropy, mean over labelled pixels and attributes.

        Args:
            outputs: what :meth:`training_outputs` returned.
            batch_data_samples: samples with ``gt_sem_seg`` ``(1, H, W)``.
        """
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)

        def summed(predicted: Tensor, truth: Tensor) -> Tensor:
            valid = truth != self.ignore_index
            target = outputs.table[truth.where(valid, 0)].movedim(3, 1)
            each = F.binary_cross_entropy_with_logits(
                predicted, target.to(predicted), reduction='none'
            )
            return (each.mean(dim=1) * valid).sum()

        loss = pixel_mean(summed, outputs.attributes, labels, **self._label_options)
        accuracy = pixel_accuracy(outputs.logits, labels, **self._label_options)
        return {'loss_attributes': loss, 'acc_seg': accuracy}

    def loss_divisors(self, batch_data_samples: SampleList) -> dict[str, Divisor]:
        """Return what each loss is divided by: the labelled pixels."""
        labelled = self._labelled(batch_data_samples)
        return {'loss_attributes': labelled, 'acc_seg': labelled}
