"""Generators: class vector and noise -> feature that a classifier can learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from mmengine.model import BaseModule
from mmseg.registry import MODELS

from zs3_mmseg.utils.shared_draws import SharedDropout

__all__ = [
    'CaGNetGenerator',
    'GMMNGenerator',
    'GraphContextGenerator',
    'LabelGraph',
    'label_graph',
]


# 8-connected: regions that meet at a corner are one, or neighbours.
_NEIGHBOURS = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class LabelGraph:
    """Regions of a label map, numbered in raster order of their first pixels.

    Regions of ignored pixels are nodes as well, as in the official code.

    Attributes:
        node_map: ``(H, W)`` long, the node of each pixel.
        labels: ``(N,)`` long, the label of each node.
        first_pixels: ``(N,)`` long, position ``y * W + x`` of each node's first pixel.
        adjacency: ``(N, N)`` float, 1 where two different nodes touch, symmetric.
    """

    node_map: Tensor
    labels: Tensor
    first_pixels: Tensor
    adjacency: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def label_graph(labels: Tensor) -> LabelGraph:
    """Build the graph of a label map (arXiv 1906.00817, 3.4).

    Args:
        labels: ``(H, W)`` integers, ignored pixels included.

    Returns:
        the graph, on the device of ``labels``.
    """
    values = labels.cpu().numpy()
    regions = np.zeros(values.shape, dtype=np.int64)
    count = 0
    for value in np.unique(values):
        found, number = ndimage.label(values == value, structure=_NEIGHBOURS)
        regions[found > 0] = found[found > 0] + (count - 1)
        count += number
    _, first, inverse = np.unique(regions, return_index=True, return_inverse=True)
    order = np.argsort(first)  # raster order
    rank = np.empty(count, dtype=np.int64)
    rank[order] = np.arange(count)
    node_map = rank[inverse.reshape(values.shape)]
    first = first[order]
    node_labels = values.reshape(-1)[first].astype(np.int64)
    return LabelGraph(
        node_map=torch.from_numpy(node_map).to(labels.device),
        labels=torch.from_numpy(node_labels).to(labels.device),
        first_pixels=torch.from_numpy(first).to(labels.device),
        adjacency=torch.from_numpy(_touching(node_map, count)).to(labels.device),
    )


def _touching(node_map: np.ndarray, count: int) -> np.ndarray:
    adjacency = np.zeros((count, count), dtype=np.float32)
    for one, other in (
        (node_map[:, :-1], node_map[:, 1:]),
        (node_map[:-1], node_map[1:]),
        (node_map[:-1, :-1], node_map[1:, 1:]),
        (node_map[:-1, 1:], node_map[1:, :-1]),
    ):
        adjacency[one, other] = 1
        adjacency[other, one] = 1
    np.fill_diagonal(adjacency, 0)
    return adjacency


#: Constant bias that the official code starts every linear layer with.
BIAS = 0.01


@MODELS.register_module()
class GMMNGenerator(nn.Module):
    """Perceptron from a class vector and noise to a feature (arXiv 1906.00817, 3.2).

    ``[embedding, noise] -> Linear -> LeakyReLU -> Dropout -> Linear``, without an
    activation at the end: features that follow a ReLU are never negative, generated
    ones may be. Weights start Xavier-uniform. Parameters are named as in the official
    code.

    Args:
        embed_dim: length ``E`` of a class vector.
        feature_dim: length ``F`` of a feature.
        noise_dim: length ``Z`` of the noise; None: as long as the class vector.
        hidden_channels: width of the hidden layer; 0: one linear layer, no dropout.
        dropout: probability of the dropout, in [0, 1).
        negative_slope: of the LeakyReLU.
        semantic_reconstruction: keep the layer of official checkpoints that maps a
            feature back to class vector and noise. No published run uses it.

    Raises:
        ValueError: if a size is not positive or ``dropout`` is outside [0, 1).
    """

    def __init__(
        self,
        embed_dim: int,
        feature_dim: int,
        noise_dim: int | None = None,
        *,
        hidden_channels: int = 256,
        dropout: float = 0.5,
        negative_slope: float = 0.2,
        semantic_reconstruction: bool = False,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.feature_dim = feature_dim
        self.noise_dim = embed_dim if noise_dim is None else noise_dim
        require_sizes(
            embed_dim=embed_dim, feature_dim=feature_dim, noise_dim=self.noise_dim
        )
        if hidden_channels < 0 or not 0 <= dropout < 1:
            raise ValueError(
                'GMMNGenerator needs hidden_channels >= 0 and 0 <= dropout < 1, got '
                f'{hidden_channels=} and {dropout=}'
            )
        inputs = embed_dim + self.noise_dim
        self.model: nn.Module
        if hidden_channels:
            self.model = nn.Sequential(
                nn.Linear(inputs, hidden_channels),
                nn.LeakyReLU(negative_slope),
                nn.Dropout(dropout),
                nn.Linear(hidden_channels, feature_dim),
            )
        else:
            self.model = nn.Linear(inputs, feature_dim)
        for module in self.model.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.constant_(module.bias, BIAS)
        self.semantic_reconstruction_layer = (
            nn.Linear(feature_dim, inputs) if semantic_reconstruction else None
        )

    def forward(self, embeddings: Tensor, noise: Tensor) -> Tensor:
        """Generate features.

        Args:
            embeddings: ``(N, E)`` class vector of each feature.
            noise: ``(N, Z)`` in [0, 1).

        Returns:
            ``(N, F)``.
        """
        return self.model(torch.cat([embeddings, noise], dim=1))

    def reconstruct(self, features: Tensor) -> Tensor:
        """Map ``(N, F)`` features back to class vector and noise, ``(N, E + Z)``.

        Raises:
            RuntimeError: if the generator was built without that layer.
        """
        if self.semantic_reconstruction_layer is None:
            raise RuntimeError(
                'this GMMNGenerator has no layer to map features back; build it with '
                'semantic_reconstruction=True'
            )
        return self.semantic_reconstruction_layer(features)


def require_sizes(**sizes: int) -> None:
    """Refuse sizes below 1, by their names."""
    wrong = {name: size for name, size in sizes.items() if size < 1}
    if wrong:
        raise ValueError(f'sizes of a generator must be positive, got {wrong}')


class GraphConvolution(nn.Module):
    """``A (x W) + b``: no self loops and no normalisation but those in ``A``."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        # in x out, as in the official code.
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels))
        self.bias = nn.Parameter(torch.full((out_channels,), BIAS))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """Map ``(N, in)`` nodes with ``(N, N)`` adjacency to ``(N, out)``."""
        return adjacency @ (nodes @ self.weight) + self.bias


@MODELS.register_module()
class GraphContextGenerator(nn.Module):
    """Two graph convolutions over the regions of an image (arXiv 1906.00817, 3.4).

    ``LeakyReLU(A [e, z] W1 + b1) -> Dropout -> A h W2 + b2`` over the graph of
    :func:`label_graph`. Its adjacency is neither normalised nor has it
    self loops, unlike Kipf and Welling's.

    Args:
        embed_dim: length ``E`` of a class vector.
        feature_dim: length ``F`` of a feature.
        noise_dim: length ``Z`` of the noise; None: as long as the class vector.
        hidden_channels: width of the hidden layer.
        dropout: probability of the dropout, in [0, 1).
        negative_slope: of the LeakyReLU.

    Raises:
        ValueError: if a size is not positive or ``dropout`` is outside [0, 1).
    """

    def __init__(
        self,
        embed_dim: int,
        feature_dim: int,
        noise_dim: int | None = None,
        *,
        hidden_channels: int = 256,
        dropout: float = 0.5,
        negative_slope: float = 0.2,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.feature_dim = feature_dim
        self.noise_dim = embed_dim if noise_dim is None else noise_dim
        require_sizes(
            embed_dim=embed_dim,
            feature_dim=feature_dim,
            noise_dim=self.noise_dim,
            hidden_channels=hidden_channels,
        )
        if not 0 <= dropout < 1:
            raise ValueError(f'GraphContextGenerator: {dropout=} is outside [0, 1)')
        self.negative_slope = negative_slope
        self.gcn1 = GraphConvolution(embed_dim + self.noise_dim, hidden_channels)
        self.dropout = nn.Dropout(dropout)
        self.gcn2 = GraphConvolution(hidden_channels, feature_dim)

    def forward(self, embeddings: Tensor, noise: Tensor, adjacency: Tensor) -> Tensor:
        """Generate one feature for each node of an image.

        Args:
            embeddings: ``(N, E)`` class vector of each node.
            noise: ``(N, Z)`` in [0, 1).
            adjacency: ``(N, N)``, 1 between nodes that touch.

        Returns:
            ``(N, F)``.
        """
        nodes = torch.cat([embeddings, noise], dim=1)
        hidden = F.leaky_relu(self.gcn1(nodes, adjacency), self.negative_slope)
        return self.gcn2(self.dropout(hidden), adjacency)


#: Of the official code of CaGNet; its paper describes one hidden layer of 512.
CAGNET_WIDTHS = (1024, 960, 864, 784, 720)
CAGNET_DROPOUT = (0.1, 0.1, 0.3, 0.5, 0.5)


@MODELS.register_module()
class CaGNetGenerator(BaseModule):
    """Perceptron of 1 x 1 convolutions, map by map (CaGNet, arXiv 2008.06893, 3.3).

    ``[embedding, code] -> (conv -> LeakyReLU -> dropout) x n -> conv -> sigmoid``. Its
    features are in (0, 1), as the real ones of :class:`CaGNetHead` are. Under several
    processes all draw the dropout of the whole batch.

    Args:
        embed_dim: length ``E`` of a class vector.
        feature_dim: channels ``F`` of a feature.
        code_dim: channels ``Z`` of the latent code; None: as many as of a feature.
        hidden_channels: widths of the hidden layers.
        dropout: probability after each of them, in [0, 1).
        negative_slope: of the LeakyReLU.
        init_cfg: see mmengine's ``BaseModule``.

    Raises:
        ValueError: if a size is not positive, or there are not as many probabilities as
            hidden layers.
    """

    def __init__(
        self,
        embed_dim: int,
        feature_dim: int,
        code_dim: int | None = None,
        *,
        hidden_channels: Sequence[int] = CAGNET_WIDTHS,
        dropout: Sequence[float] = CAGNET_DROPOUT,
        negative_slope: float = 0.2,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        code_dim = feature_dim if code_dim is None else code_dim
        require_sizes(
            embed_dim=embed_dim,
            feature_dim=feature_dim,
            code_dim=code_dim,
            hidden_channels=min(hidden_channels, default=1),
        )
        if len(hidden_channels) != len(dropout):
            raise ValueError(
                f'CaGNetGenerator: {len(hidden_channels)} hidden_channels need as many '
                f'values of dropout, got {len(dropout)}'
            )
        widths = (embed_dim + code_dim, *hidden_channels)
        self.hidden = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(wide, narrow, 1),
                nn.LeakyReLU(negative_slope),
                SharedDropout(p),
            )
            for (wide, narrow), p in zip(pairwise(widths), dropout, strict=True)
        )
        self.output = nn.Conv2d(widths[-1], feature_dim, 1)

    def forward(self, embeddings: Tensor, codes: Tensor) -> Tensor:
        """Generate features.

        Args:
            embeddings: ``(N, E, h, w)`` class vector of each pixel.
            codes: ``(N, Z, h, w)`` latent codes.

        Returns:
            ``(N, F, h, w)`` in (0, 1).
        """
        values = torch.cat([embeddings, codes], dim=1)
        for layer in self.hidden:
            values = layer(values)
        return self.output(values).sigmoid()
