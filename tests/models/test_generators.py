"""Generators, and the graph of a label map against a flood fill."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmseg.registry import MODELS

from zs3_mmseg.models.generators import GMMNGenerator, label_graph

STEPS = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]


def flood_fill(labels: Tensor) -> Tensor:
    """Number 8-connected regions of one label in raster order."""
    nodes = torch.full(labels.shape, -1)
    count = 0
    for start in (labels == labels).nonzero().tolist():
        if nodes[tuple(start)] >= 0:
            continue
        stack = [tuple(start)]
        while stack:
            y, x = stack.pop()
            if nodes[y, x] >= 0:
                continue
            nodes[y, x] = count
            for dy, dx in STEPS:
                place = y + dy, x + dx
                inside = 0 <= place[0] < len(labels) and 0 <= place[1] < labels.shape[1]
                if inside and labels[place] == labels[y, x]:
                    stack.append(place)
        count += 1
    return nodes


@given(seed=st.integers(0, 999), height=st.integers(1, 6), width=st.integers(1, 6))
def test_graph_is_that_of_a_flood_fill(seed: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (height, width), generator=generator)
    labels[labels == 2] = 255
    graph = label_graph(labels)
    nodes = flood_fill(labels)
    assert torch.equal(graph.node_map, nodes)
    expected = torch.zeros(len(graph), len(graph))
    for y, x in (nodes >= 0).nonzero().tolist():
        for dy, dx in STEPS:
            if 0 <= y + dy < height and 0 <= x + dx < width:
                expected[nodes[y, x], nodes[y + dy, x + dx]] = 1
    expected.fill_diagonal_(0)
    assert torch.equal(graph.adjacency, expected)
    for node, (label, first) in enumerate(
        zip(graph.labels, graph.first_pixels, strict=True)
    ):
        places = (nodes.flatten() == node).nonzero().flatten()
        assert places[0] == first
        assert (labels.flatten()[places] == label).all()


@pytest.mark.parametrize('kind', ['GMMNGenerator', 'GraphContextGenerator'])
def test_noise_is_as_long_as_the_class_vector_by_default(kind: str) -> None:
    generator = MODELS.build(dict(type=kind, embed_dim=5, feature_dim=3))
    assert generator.noise_dim == 5
    graph = () if kind == 'GMMNGenerator' else (torch.zeros(4, 4),)
    assert generator(torch.randn(4, 5), torch.rand(4, 5), *graph).shape == (4, 3)


@pytest.mark.parametrize(
    'options', [dict(embed_dim=0), dict(hidden_channels=-1), dict(dropout=1.0)]
)
@pytest.mark.parametrize('kind', ['GMMNGenerator', 'GraphContextGenerator'])
def test_wrong_sizes(kind: str, options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        MODELS.build(dict(dict(type=kind, embed_dim=5, feature_dim=3), **options))


def test_reconstruction_needs_its_layer() -> None:
    with pytest.raises(RuntimeError, match='semantic_reconstruction=True'):
        GMMNGenerator(5, 3).reconstruct(torch.zeros(1, 3))
