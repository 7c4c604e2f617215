"""A label map as a graph: regions of one label, and which of them touch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

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
