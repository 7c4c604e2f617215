"""Test-time corrections of class scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.decode_heads.zero_shot_head import reduce_queries, single_rows
from zs3_mmseg.utils.names import choose

__all__ = ['Calibrator', 'ImageLevelGate', 'SeenShift']

#: Where in the scores a calibrator works: before the activation, or after it.
SPACES = ('logit', 'score')


class Calibrator(nn.Module, ABC):
    """Changes class scores at test time, never in training.

    A segmentor runs its calibrators in the order of its list: those of
    ``space='logit'`` before the activation, those of ``space='score'`` after it. They
    see scores per class, after the reduction over synonyms, and a slice of the classes
    at a time, so that memory does not grow with the vocabulary. Heads that find masks
    first have no logits per class: only ``space='score'`` fits them.

    **What to write.** :meth:`forward`, whose result for a class depends on that class
    alone. A calibrator for which this is not enough declares one of these:

    - ``needs_all_classes = True`` and a method ``observe(observed, scores, queries,
      global_token, classes)``. Before anything is calibrated it is called for every
      slice of the classes with the scores ``(N, K', H, W)`` that :meth:`forward` will
      get, and returns what has been gathered so far; ``observed`` is what it returned
      for the slice before, None for the first. :meth:`forward` then gets the last of
      it as a further keyword ``observed``. Keep it small: a normaliser ``(N, 1, H,
      W)``, or a top-k, and not all scores.
    - a method ``fit(dataset)``, which learns from images without their labels. It is
      called by ``ZeroShotEncoderDecoder.fit_calibrators`` and may go through
      ``dataset`` several times: each item is one crop of one image, an iterator over
      pairs of a slice of the classes and their scores ``(1, K', h, w)`` as
      :meth:`forward` would get them; ``dataset.queries`` are the classes. What it
      learns belongs in buffers, which are saved with the model. Results are
      transductive from then on and reported so.

    Args:
        space: ``'logit'`` or ``'score'``.

    Raises:
        ValueError: for another space.
        TypeError: if it needs all classes and has no ``observe``.
    """

    #: Whether the calibrator cannot do without the image's global token.
    needs_global_token: bool = False
    #: Whether a class's result depends on the scores of others, see above.
    needs_all_classes: bool = False

    def __init__(self, space: Literal['logit', 'score']) -> None:
        super().__init__()
        self.space = choose('space', space, SPACES)
        if self.needs_all_classes and not hasattr(self, 'observe'):
            raise TypeError(
                f'{type(self).__name__} has needs_all_classes=True, but no method '
                'observe(observed, scores, queries, global_token, classes)'
            )

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
    """Subtract ``shift`` from every seen class: ``s_k - shift [k is seen]``.

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
        rows = single_rows(queries, 'ImageLevelGate')
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
