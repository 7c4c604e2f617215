"""The contract of calibrators: test-time corrections of class scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor, nn

from zs3_mmseg.models.class_embeddings.queries import ClassQueries

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
