"""Calibrated stacking: a constant off the scores of seen classes."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from mmseg.registry import MODELS

from zs3_mmseg.models.class_embeddings.queries import ClassQueries

from .base import Calibrator


@MODELS.register_module()
class SeenShift(Calibrator):
    """Subtract ``shift`` from every seen class.

    Calibrated stacking (arXiv 1605.04253). ZegCLIP (2212.03588) takes 0.1 off the
    sigmoid scores of seen classes, in inductive testing only. In the logit space of a
    softmax it multiplies seen probabilities by ``exp(-shift)`` before normalisation.

    Args:
        shift: the constant; negative values favour seen classes.
        space: ``'logit'`` or ``'score'``; the constant means nothing without it.
    """

    def __init__(
        self, shift: float = 0.1, *, space: Literal['logit', 'score'] = 'score'
    ) -> None:
        super().__init__(space)
        self.shift = shift

    def forward(
        self,
        scores: Tensor,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        classes: slice = slice(None),
    ) -> Tensor:
        """Return ``scores - shift`` for seen classes, ``scores`` for the others."""
        seen = queries.seen_mask[classes].to(scores.dtype)
        return scores - self.shift * seen[:, None, None]
