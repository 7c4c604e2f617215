"""Test-time corrections of class scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.decode_heads.zero_shot_head import reduce_queries

__all__ = ['Calibrator', 'ImageLevelGate', 'SeenShift']


SPACES = ('logit', 'score')


class Calibrator(nn.Module, ABC):
    """Changes class scores at test time, never in training.

    A segmentor runs its calibrators in the order of its list: those of
    ``space='logit'`` before the activation, those of ``space='score'`` after it. They
    see scores per class, after the reduction over synonyms, and a slice of the
    classes at a time, so a class's result must not depend on other classes' scores.

    Args:
        space: ``'logit'`` or ``'score'``.

    Raises:
        ValueError: for another space.
    """

    #: Whether the calibrator cannot do without the image's global token.
    needs_global_token = False

    def __init__(self, space: Literal['logit', 'score']) -> None:
        super().__init__()
        if space not in SPACES:
            raise ValueError(f'space must be one of {SPACES}, not {space!r}')
        self.space = space

    @abstractmethod
    def forward(
        self,
        scores: Tensor,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        classes: slice = slice(None),
    ) -> Tensor:
        """Return calibrated scores.

        Args:
            scores: ``(N, K', H, W)``, of the classes in ``classes``.
            queries: rows of all ``K`` classes.
            global_token: ``(N, E)`` token of each image or crop, if there is one.
            classes: which of the ``K`` classes ``scores`` holds.

        Returns:
            ``(N, K', H, W)``, a new tensor or ``scores`` itself if nothing changes.
        """


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


@MODELS.register_module()
class ImageLevelGate(Calibrator):
    """Add the image-level logits of the global token to every pixel's scores.

    ``scores + weight * scale * cos(global token, class row)``; a class with synonyms
    counts with its best one. In sliding inference each window votes for itself. This
    is the training-free control of Shapes: choose ``weight`` on val images.

    Args:
        weight: factor on the image-level logits; 0 switches the gate off.
        space: ``'logit'`` or ``'score'``.
        scale: factor on the cosines; the one of ``DenseTextHead``, so that a weight
            of 1 counts image and pixel alike.
    """

    needs_global_token = True

    def __init__(
        self,
        weight: float,
        *,
        space: Literal['logit', 'score'] = 'logit',
        scale: float = 40.0,
    ) -> None:
        super().__init__(space)
        self.weight = weight
        self.scale = scale

    def forward(
        self,
        scores: Tensor,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        classes: slice = slice(None),
    ) -> Tensor:
        """Return gated scores.

        Raises:
            ValueError: if there is no global token, or it has another width than the
                class embeddings.
        """
        if global_token is None:
            raise ValueError(
                'ImageLevelGate needs the global token of the image: use a backbone '
                'that returns one, e.g. OpenCLIPViT(out_global=True)'
            )
        rows = queries.embeddings
        if global_token.shape[1] != rows.shape[1]:
            raise ValueError(
                f'the global token has {global_token.shape[1]} channels and class '
                f'embeddings {rows.shape[1]}: ImageLevelGate needs both from one CLIP'
            )
        with torch.autocast(scores.device.type, enabled=False):
            cosines = (
                F.normalize(global_token.float(), dim=1)
                @ F.normalize(rows.float(), dim=1).T
            )  # (N, Q)
            gate = reduce_queries(cosines, queries.queries_per_class, 'max')
            votes = self.weight * self.scale * gate[:, classes]  # (N, K')
        return scores + votes[:, :, None, None]
