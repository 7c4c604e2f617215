"""Post-processors: last changes of a prediction, with the picture at hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS

from zs3_mmseg.models.proposers import Proposer
from zs3_mmseg.utils.names import choose

__all__ = ['PAMR', 'MaskMajority', 'PostProcessor']

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

    #: Whether ``forward`` wants the metainfo of the picture, as keyword ``meta``.
    needs_meta: bool = False

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


#: Of the quotient of colour differences and their spread, as in the code of PAMR.
SPREAD, TINY = 0.1, 1e-8
#: Places of the eight neighbours, and then of the pixel itself.
_AROUND = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
_PLACES = [*_AROUND, (0, 0)]


@MODELS.register_module()
class PAMR(PostProcessor):
    r"""Lets scores flow between neighbours of alike colour.

    Pixel-adaptive mask refinement (arXiv 2005.08104, section 3.3). With the neighbours
    :math:`q` of pixel :math:`p` at several dilations, eight at each, the intensities
    :math:`I` and their spread :math:`\sigma_p` (over all neighbours and, once for each
    dilation, the pixel itself),

    .. math:: \alpha_{pq} = \mathrm{softmax}_q\Bigl(-\frac{1}{3} \sum_{rgb}
        \frac{|I_p - I_q|}{0.1\, \sigma_p + 10^{-8}}\Bigr), \qquad
        s_p \leftarrow \sum_q \alpha_{pq} s_q,

    some times over. Beyond the border a picture repeats its outermost pixels. Classes
    are refined one by one, so that memory does not grow with their number; it needs
    ``test_cfg.return_scores=True``.

    Args:
        num_iter: how many times, >= 1.
        dilations: distances of the neighbours in pixels, each >= 1. NACLIP has 8 and
            16.

    Raises:
        ValueError: for numbers out of range.
    """

    def __init__(self, num_iter: int = 10, dilations: Sequence[int] = (8, 16)) -> None:
        super().__init__('score')
        if num_iter < 1 or not dilations or min(dilations) < 1:
            raise ValueError(
                'PAMR needs num_iter >= 1 and dilations >= 1, got '
                f'{num_iter} and {tuple(dilations)}'
            )
        self.num_iter = num_iter
        self.dilations = tuple(dilations)

    def forward(self, prediction: Tensor, image: Tensor) -> Tensor:
        """Return scores ``(K, H, W)`` refined."""
        alpha = self._affinity(image.float())  # (P, H, W)
        refined = torch.empty_like(prediction)
        for scores, target in zip(prediction, refined, strict=True):
            plane = scores.float()
            for _ in range(self.num_iter):
                flowed = torch.zeros_like(plane)
                for weight, moved in zip(
                    alpha, self._moved(plane[None], _AROUND), strict=True
                ):
                    flowed.addcmul_(weight, moved[0])
                plane = flowed
            target.copy_(plane)
        return refined

    def _affinity(self, image: Tensor) -> Tensor:
        """Return the weight of each neighbour, ``(P, H, W)``."""
        total, squares, count = torch.zeros_like(image), torch.zeros_like(image), 0
        for moved in self._moved(image, _PLACES):
            away = moved - image
            total, squares, count = total + away, squares + away.square(), count + 1
        # The unbiased estimate, as torch's std is.
        variance = (squares - total.square() / count) / (count - 1)
        spread = SPREAD * variance.clamp(min=0).sqrt() + TINY
        ratios = [
            ((moved - image).abs() / spread).mean(dim=0)
            for moved in self._moved(image, _AROUND)
        ]
        return (-torch.stack(ratios)).softmax(dim=0)

    def _moved(
        self, maps: Tensor, places: Sequence[tuple[int, int]]
    ) -> Iterator[Tensor]:
        """Yield maps ``(C, H, W)`` moved so that neighbours lie on each pixel."""
        height, width = maps.shape[1:]
        for far in self.dilations:
            wide = F.pad(maps[None], (far,) * 4, mode='replicate')[0]
            for down, across in places:
                top, left = far * (1 + down), far * (1 + across)
                yield wide[:, top : top + height, left : left + width]


@MODELS.register_module()
class MaskMajority(PostProcessor):
    """Gives all pixels of a mask the label that most of them have.

    The correction of maps in CorrCLIP: naming comes from any dense method, outlines
    from a proposer. Votes are those of the prediction as it was; where masks overlap,
    the smallest decides. Pixels below no mask keep their labels.

    Args:
        proposer: config of a :class:`~zs3_mmseg.models.proposers.Proposer`, or one.
    """

    def __init__(self, proposer: Mapping[str, Any] | Proposer) -> None:
        super().__init__('label')
        built = (
            MODELS.build(dict(proposer)) if isinstance(proposer, Mapping) else proposer
        )
        self.proposer: Proposer = built
        self.needs_meta = built.needs_meta

    def forward(
        self,
        prediction: Tensor,
        image: Tensor,
        meta: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Return the label map ``(1, H, W)`` corrected."""
        masks = self.proposer(image, meta).to(prediction.device)
        corrected = prediction.clone()
        sizes = masks.flatten(1).sum(dim=1)
        for index in sizes.argsort(descending=True, stable=True).tolist():
            if sizes[index]:
                votes = torch.bincount(prediction[0][masks[index]])
                corrected[0][masks[index]] = votes.argmax()
        return corrected
