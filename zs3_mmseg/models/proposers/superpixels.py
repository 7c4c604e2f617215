"""Superpixels: masks of alike, neighbouring pixels, without any weights."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from mmseg.registry import MODELS

from zs3_mmseg.utils.cache import content_hash

from .proposer import Proposals, Proposer


@MODELS.register_module()
class SuperpixelProposer(Proposer):
    r"""Cuts an image into superpixels by SLIC, and joins those of alike colours.

    Pixels are grouped by k-means over colour and place (SLIC, doi
    10.1109/TPAMI.2012.120): with the Lab colours :math:`c`, places :math:`x`, the step
    :math:`s = \sqrt{HW / n}` of a grid of centres and the compactness :math:`\kappa`,
    a pixel belongs to that of the centres of its cell and the eight around it with the
    least

    .. math:: |c - c_k|^2 + (\kappa / s)^2 |x - x_k|^2.

    What does not hang together is taken apart; pieces of less than a quarter of
    :math:`s^2` join the neighbour of the most alike mean colour. Then neighbours whose
    mean colours differ by less than ``join_below`` become one mask. Masks cover the
    image and do not overlap.

    Args:
        num_segments: :math:`n`, about how many superpixels, >= 1.
        compactness: :math:`\kappa`, > 0, in units of Lab colours.
        iterations: of k-means, >= 1.
        join_below: see above; 0 joins nothing.
        cache: see :class:`Proposer`.
        kept_images: see :class:`Proposer`.

    Raises:
        ValueError: for options out of range.
    """

    def __init__(
        self,
        num_segments: int = 100,
        *,
        compactness: float = 10.0,
        iterations: int = 5,
        join_below: float = 0.0,
        cache: bool = True,
        kept_images: int = 8,
    ) -> None:
        super().__init__(cache=cache, kept_images=kept_images)
        if min(num_segments, iterations) < 1:
            raise ValueError(
                'SuperpixelProposer needs num_segments and iterations >= 1, got '
                f'{num_segments} and {iterations}'
            )
        if compactness <= 0 or join_below < 0:
            raise ValueError(
                'SuperpixelProposer needs compactness > 0 and join_below >= 0, got '
                f'{compactness} and {join_below}'
            )
        self.num_segments = num_segments
        self.compactness = compactness
        self.iterations = iterations
        self.join_below = join_below

    @property
    def fingerprint(self) -> str:
        """The options."""
        options = (self.num_segments, self.compactness, self.iterations)
        return content_hash(*map(str, (*options, self.join_below)))

    def propose(self, image: Tensor) -> Proposals:
        """Return masks ``(M, H, W)`` bool of an image ``(3, H, W)`` uint8, RGB."""
        colours = lab(image.float().cpu() / 255)  # (3, H, W)
        parts = _connected(self._clustered(colours).numpy())
        parts = _without_pieces(
            parts, colours.numpy(), parts.size / self.num_segments / 4
        )
        if self.join_below:
            pairs, differ, count = _differences(parts, colours.numpy())
            parts = _components(pairs[:, differ < self.join_below], count)[parts]
        numbers = torch.arange(parts.max() + 1)
        masks = torch.from_numpy(parts) == numbers[:, None, None]
        return masks.to(image.device)

    def _clustered(self, colours: Tensor) -> Tensor:
        """Return the cell ``(H, W)`` long that each pixel belongs to."""
        height, width = colours.shape[1:]
        step = max((height * width / self.num_segments) ** 0.5, 1)
        rows, columns = (max(round(side / step), 1) for side in (height, width))
        y = torch.arange(height)[:, None].expand(height, width)
        x = torch.arange(width)[None].expand(height, width)
        place = torch.stack([y, x]).float() * (self.compactness / step)
        points = torch.cat([colours, place]).flatten(1).T  # (HW, 5)
        row = (y * rows // height).flatten()
        column = (x * columns // width).flatten()
        cells = row * columns + column
        for _ in range(self.iterations):
            sums = points.new_zeros(rows * columns, 5).index_add_(0, cells, points)
            counts = torch.bincount(cells, minlength=rows * columns)[:, None]
            # A centre that has lost all its pixels is too far from any.
            centres = torch.where(counts > 0, sums / counts.clamp(min=1), torch.inf)
            best = points.new_full((len(points),), torch.inf)
            for down in (-1, 0, 1):
                for across in (-1, 0, 1):
                    r, c = row + down, column + across
                    inside = (r >= 0) & (r < rows) & (c >= 0) & (c < columns)
                    other = torch.where(inside, r * columns + c, 0)
                    away = (points - centres[other]).square().sum(dim=1)
                    nearer = inside & (away < best)
                    cells = torch.where(nearer, other, cells)
                    best = torch.where(nearer, away, best)
        return cells.view(height, width)


def _differences(
    parts: np.ndarray, colours: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return neighbouring parts ``(2, P)``, how their mean colours differ, and M."""
    flat = parts.ravel()
    counts = np.bincount(flat)
    means = np.stack(
        [np.bincount(flat, weights=channel.ravel()) / counts for channel in colours]
    )
    pairs = np.unique(_neighbours(parts), axis=1)
    pairs = pairs[:, pairs[0] != pairs[1]]
    pairs = np.concatenate([pairs, pairs[::-1]], axis=1)
    differ = np.linalg.norm(means[:, pairs[0]] - means[:, pairs[1]], axis=0)
    return pairs, differ, len(counts)


def _without_pieces(parts: np.ndarray, colours: np.ndarray, least: float) -> np.ndarray:
    """Join parts of fewer pixels to the most alike neighbour, until there are none."""
    while True:
        small = np.bincount(parts.ravel()) < least
        if not small.any() or len(small) == 1:
            return parts
        pairs, differ, count = _differences(parts, colours)
        order = np.argsort(differ, kind='stable')
        pairs = pairs[:, order][:, small[pairs[0, order]]]
        _, first = np.unique(pairs[0], return_index=True)
        parts = _components(pairs[:, first], count)[parts]


def lab(picture: Tensor) -> Tensor:
    """Return CIE Lab (D65) colours of sRGB ones ``(3, H, W)`` in 0..1."""
    linear = torch.where(
        picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4
    )
    matrix = picture.new_tensor(
        [
            [0.412453, 0.357580, 0.180423],
            [0.212671, 0.715160, 0.072169],
            [0.019334, 0.119193, 0.950227],
        ]
    )
    white = picture.new_tensor([0.950456, 1.0, 1.088754])
    xyz = torch.einsum('ij,jhw->ihw', matrix, linear) / white[:, None, None]
    root = torch.where(
        xyz > 0.008856, xyz.clamp(min=0.008856) ** (1 / 3), 7.787 * xyz + 16 / 116
    )
    x, y, z = root
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _neighbours(parts: np.ndarray) -> np.ndarray:
    """Return the values of all pairs of neighbouring pixels, ``(2, P)``."""
    beside = np.stack([parts[:, :-1].ravel(), parts[:, 1:].ravel()])
    below = np.stack([parts[:-1].ravel(), parts[1:].ravel()])
    return np.concatenate([beside, below], axis=1)


def _components(pairs: np.ndarray, count: int) -> np.ndarray:
    """Number ``count`` nodes by what the pairs ``(2, P)`` join, from 0 without gaps."""
    graph = coo_matrix((np.ones(pairs.shape[1]), (*pairs,)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _connected(cells: np.ndarray) -> np.ndarray:
    """Number what hangs together in a map of cells ``(H, W)``, from 0."""
    index = _neighbours(np.arange(cells.size).reshape(cells.shape))
    first, second = _neighbours(cells)
    return _components(index[:, first == second], cells.size).reshape(cells.shape)
