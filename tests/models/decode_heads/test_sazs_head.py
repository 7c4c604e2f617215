"""SAZS's head and losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmengine.structures import PixelData
from mmseg.models.losses import BoundaryLoss
from mmseg.structures import SegDataSample

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads import SAZSHead
from zs3_mmseg.models.losses import EdgeAttentionLoss

D = 6


def queries_of(rows: Tensor) -> ClassQueries:
    number = rows.shape[-2]
    return ClassQueries(
        rows, torch.arange(number), torch.ones(number, dtype=torch.bool)
    )


def samples_of(labels: Tensor, edges: Tensor | None) -> list[SegDataSample]:
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    if edges is not None:
        for sample, edge in zip(samples, edges, strict=True):
            sample.set_data(dict(gt_edge_map=PixelData(data=edge)))
    return samples


@pytest.fixture
def inputs() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return dict(
        maps=(draw(2, D, 4, 5),),
        pairs=queries_of(draw(2, 2, D)),
        classes=queries_of(draw(3, D)),
        labels=torch.randint(0, 2, (2, 1, 32, 40), generator=generator),
        edges=torch.randint(0, 2, (2, 1, 32, 40), generator=generator),
    )


def test_scores_are_raw_dot_products(inputs: dict[str, Any]) -> None:
    head, (maps,) = SAZSHead(D), inputs['maps']
    for name, equation in (('classes', 'ndhw,kd->nkhw'), ('pairs', 'ndhw,nkd->nkhw')):
        queries = inputs[name]
        expected = torch.einsum(equation, maps, queries.embeddings)
        found = head.query_logits((maps,), queries=queries)
        assert torch.allclose(found, expected, atol=1e-5)
    alone = head.query_logits(
        (maps[:1],), queries=queries_of(inputs['pairs'].embeddings[:1])
    )
    assert torch.allclose(alone[0], found[0], atol=1e-6), 'batch mates matter'


@pytest.mark.parametrize('void', ['ignore', 'background'])
def test_every_eighth_label_counts(inputs: dict[str, Any], void: str) -> None:
    torch.manual_seed(0)
    head = SAZSHead(D, void_pixels=void)
    inputs['labels'][:, :, :9] = 255
    labels, edges = inputs['labels'], inputs['edges']
    outputs = head.training_outputs(inputs['maps'], queries=inputs['pairs'])
    losses = head.loss_by_feat(outputs, samples_of(labels, edges))
    small = labels[:, 0, ::8, ::8]
    if void == 'background':
        small = small.masked_fill(small == 255, 0)
    assert torch.allclose(
        losses['loss_seg'], F.cross_entropy(outputs.logits, small, ignore_index=255)
    )
    boundary = BoundaryLoss(0.3)(outputs.edges, edges[:, 0, ::8, ::8].contiguous())
    assert torch.allclose(losses['loss_edge'], boundary)


@pytest.mark.parametrize('term', ['loss_seg', 'loss_edge', 'loss_attention'])
def test_no_term_is_inert(inputs: dict[str, Any], term: str) -> None:
    """Each term reaches the pixels; that of the edges reaches the edge head, too."""
    torch.manual_seed(0)
    head = SAZSHead(D, edge_threshold=-1.0)
    maps = inputs['maps'][0].requires_grad_()
    outputs = head.training_outputs((maps,), queries=inputs['pairs'])
    head.loss_by_feat(outputs, samples_of(inputs['labels'], inputs['edges']))[
        term
    ].backward()
    assert maps.grad.abs().sum() > 0
    reached = head.edge.weight.grad is not None
    assert reached == (term == 'loss_edge')


def test_attention_is_finite_where_no_pixel_passes() -> None:
    logits = torch.randn(2, 2, 3, 3, requires_grad=True)
    labels = torch.randint(0, 2, (2, 3, 3))
    edges = torch.full((2, 1, 3, 3), -5.0)
    loss = EdgeAttentionLoss()(logits, edges, labels)
    loss.backward()
    assert loss == 0
    assert logits.grad.isfinite().all()
    # One image with such pixels counts as if it were alone.
    edges[0] = 5.0
    both = EdgeAttentionLoss()(logits, edges, labels)
    assert torch.allclose(both, EdgeAttentionLoss()(logits[:1], edges[:1], labels[:1]))


def test_void_everywhere_gives_no_gradient(inputs: dict[str, Any]) -> None:
    head = SAZSHead(D)
    outputs = head.training_outputs(inputs['maps'], queries=inputs['classes'])
    void = torch.full_like(inputs['labels'], 255)
    losses = head.loss_by_feat(outputs, samples_of(void, void))
    assert [losses[k].item() for k in losses if 'loss' in k] == [0, 0, 0]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda head, given: SAZSHead(D, embed_dim=9), r'backbone.out_channels=9'),
        (lambda head, given: SAZSHead(D, edge_weight=-1), 'must be >= 0'),
        (
            lambda head, given: head.query_logits(
                given['maps'], queries=queries_of(torch.zeros(3, 9))
            ),
            'text rows 9',
        ),
        (
            lambda head, given: SAZSHead(D, void_pixels='background').query_logits(
                given['maps'], queries=given['classes']
            ),
            "set it to 'ignore'",
        ),
        (
            lambda head, given: head.loss(
                given['maps'],
                samples_of(given['labels'], None),
                None,
                queries=given['pairs'],
            ),
            'no gt_edge_map',
        ),
    ],
)
def test_what_does_not_fit(inputs: dict[str, Any], change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change(SAZSHead(D), inputs)
