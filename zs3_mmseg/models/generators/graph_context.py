"""The generator of ZS3Net with graph context: all regions of an image at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS

from .gmmn import BIAS, require_sizes


class GraphConvolution(nn.Module):
    """``A (x W) + b``: no self loops and no normalisation but those in ``A``.

    Args:
        in_channels: length of a node's input.
        out_channels: length of a node's output.
    """

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
    :func:`~.label_graph.label_graph`. Its adjacency is neither normalised nor has it
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
