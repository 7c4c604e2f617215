"""What a head returns that finds masks first and names them afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

MASK_KINDS = ('logit', 'prob')
OUTPUTS = ('sum', 'log_mean')


@dataclass(frozen=True)
class MaskScores:
    r"""Masks without classes, and how much each of them is of each class.

    A head with ``score_kind='mask_sum'`` returns it from ``predict`` or
    ``query_logits``. Masks :math:`m_{ip}` are resized to the input size, and with class
    scores :math:`c_{ik}` and weights :math:`w_i` pixel :math:`p` scores for class
    :math:`k`, class chunk by class chunk,

    .. math::
        \text{sum: } \sum_i c_{ik} m_{ip}, \qquad
        \text{log\_mean: } \log \frac{\sum_i w_i c_{ik} m_{ip}}
        {\sum_i w_i m_{ip} + \epsilon}.

    Whatever looks at several classes at once (softmaxes, ensembles, a void class,
    synonyms) has been done in the class scores.

    Attributes:
        masks: ``(N, M, h, w)`` at any resolution, also bool; ``M`` may be 0.
        class_scores: ``(N, M, K)``, one per class, synonyms reduced.
        mask_kind: ``'logit'``: a sigmoid follows the resize; ``'prob'``: values in
            0..1, as hard masks have to be (a resize makes NaN of infinite logits).
        weights: ``(N, M)``, of ``'log_mean'``; None: 1 each.
        fallback: ``(N, K, h', w')``, scores where no mask lies, of ``'log_mean'``.
        output: ``'sum'`` or ``'log_mean'``.
    """

    masks: Tensor
    class_scores: Tensor
    mask_kind: Literal['logit', 'prob'] = 'logit'
    weights: Tensor | None = None
    fallback: Tensor | None = None
    output: Literal['sum', 'log_mean'] = 'sum'

    def __post_init__(self) -> None:
        for name, known in (('mask_kind', MASK_KINDS), ('output', OUTPUTS)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f'MaskScores.{name}={value!r} is none of {known}')
        images_and_masks = self.masks.shape[:2]
        if self.masks.ndim != 4 or self.class_scores.shape[:2] != images_and_masks:
            raise ValueError(
                f'class_scores of shape {tuple(self.class_scores.shape)} do not fit '
                f'masks of shape {tuple(self.masks.shape)}: expected (N, M, K) and '
                '(N, M, h, w)'
            )
        if self.masks.dtype == torch.bool and self.mask_kind == 'logit':
            raise ValueError("bool masks are no logits: MaskScores.mask_kind='prob'")
        extra = [self.weights, self.fallback]
        if self.output == 'sum' and any(part is not None for part in extra):
            raise ValueError("weights and fallback belong to output='log_mean'")
        if self.weights is not None and self.weights.shape != images_and_masks:
            raise ValueError(
                f'weights of shape {tuple(self.weights.shape)} do not fit masks of '
                f'shape {tuple(self.masks.shape)}'
            )

    def split(self, size: int) -> list[MaskScores]:
        """Split along the batch, as ``Tensor.split`` does."""
        parts = []
        for start in range(0, len(self.masks), size):
            some = slice(start, start + size)
            parts.append(
                replace(
                    self,
                    masks=self.masks[some],
                    class_scores=self.class_scores[some],
                    weights=None if self.weights is None else self.weights[some],
                    fallback=None if self.fallback is None else self.fallback[some],
                )
            )
        return parts
