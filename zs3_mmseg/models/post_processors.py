"""Post-processors: last changes of a prediction, with the picture at hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor, nn

from zs3_mmseg.utils.names import choose

__all__ = ['PostProcessor']

Space = Literal['score', 'label']
SPACES = ('score', 'label')


class PostProcessor(nn.Module, ABC):
    """Changes scores or label maps of one picture after everything else.

    A segmentor runs the list ``post_processors=[dict(type=...), ...]`` at the
    picture's original size: those of ``space='score'`` first, which need
    ``test_cfg.return_scores=True``, then the rule that makes labels of scores, then
    those of ``space='label'``. They know no class names: what depends on them is a
    calibrator.

    Args:
        space: what it changes, ``'score'`` or ``'label'``.

    Raises:
        ValueError: for another space.
    """

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space = choose('space', space, SPACES)

    def require_classes(self, num_classes: int) -> None:
        """Refuse, by a ``ValueError``, a number of classes that it is not made for."""

    @abstractmethod
    def forward(self, prediction: Tensor, image: Tensor) -> Tensor:
        """Return the prediction changed; the argument stays as it is.

        Args:
            prediction: scores ``(K, H, W)``, or a label map ``(1, H, W)`` long.
            image: ``(3, H, W)`` float, RGB, 0..255: what the network saw of the
                picture, without padding, at the size of the prediction.

        Returns:
            of the same shape and type.
        """
