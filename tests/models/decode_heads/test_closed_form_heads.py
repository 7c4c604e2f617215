"""ESZSL and the semantic autoencoder against solutions that are found by force."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads import (
    BilinearCompatibilityHead,
    SemanticAutoencoderHead,
)
from zs3_mmseg.models.decode_heads.closed_form_heads import FeatureSums

KINDS = (BilinearCompatibilityHead, SemanticAutoencoderHead)


def problem(dim, width, classes, count, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    rows = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (count,), generator=generator)
    sums = FeatureSums(dim, classes, torch.device('cpu'))
    for part, own in zip(features.split(3), labels.split(3), strict=True):
        sums.add(part, own)
    return features, rows, labels, sums


SIZES = dict(
    dim=st.integers(1, 6),
    width=st.integers(1, 5),
    classes=st.integers(2, 5),
    count=st.integers(5, 30),
    seed=st.integers(0, 1000),
    weight=st.floats(0.1, 10),
)


@settings(max_examples=25, deadline=None)
@given(**SIZES, other=st.floats(0.1, 10))
def test_eszsl_is_where_its_loss_has_no_slope(
    dim, width, classes, count, seed, weight, other
):
    """The loss of the paper (eq. 3), written out and differentiated."""
    features, rows, labels, sums = problem(dim, width, classes, count, seed)
    head = BilinearCompatibilityHead(dim, embed_dim=width, gamma=weight, lam=other)
    found = head.solution(sums, rows).requires_grad_()
    targets = 2 * F.one_hot(labels, classes).double() - 1
    compatibility = features @ found.T  # (n, A)
    loss = (
        (compatibility @ rows.T - targets).square().sum()
        + weight * (found.T @ rows.T).square().sum()
        + other * compatibility.square().sum()
        + weight * other * found.square().sum()
    )
    (slope,) = torch.autograd.grad(loss, found)
    assert slope.abs().max() < 1e-8 * max(1.0, loss.item())


@settings(max_examples=25, deadline=None)
@given(**SIZES)
def test_the_autoencoder_solves_its_equation_by_force(
    dim, width, classes, count, seed, weight
):
    """``A W + W B = C`` as one linear system in all entries of W."""
    features, rows, labels, sums = problem(dim, width, classes, count, seed)
    latent = rows[labels].T  # (A, n)
    left, right = latent @ latent.T, weight * features.T @ features
    goal = (1 + weight) * latent @ features
    whole = torch.kron(left, torch.eye(dim).double()) + torch.kron(
        torch.eye(width).double(), right.T.contiguous()
    )
    expected = torch.linalg.lstsq(whole, goal.reshape(-1, 1)).solution
    head = SemanticAutoencoderHead(dim, embed_dim=width, lam=weight)
    found = head.solution(sums, rows)
    if torch.linalg.cond(whole) < 1e8:
        torch.testing.assert_close(found, expected.view(width, dim))


def test_the_autoencoder_is_where_its_loss_has_no_slope():
    features, rows, labels, sums = problem(5, 3, 4, 40, seed=1)
    head = SemanticAutoencoderHead(5, embed_dim=3, lam=0.7)
    found = head.solution(sums, rows).requires_grad_()
    latent = rows[labels].T
    loss = (features.T - found.T @ latent).square().sum()
    loss = loss + 0.7 * (found @ features.T - latent).square().sum()
    (slope,) = torch.autograd.grad(loss, found)
    assert slope.abs().max() < 1e-8


def queries_of(rows, seen=None):
    names = tuple('abcdefgh'[: len(rows)])
    seen = torch.ones(len(rows), dtype=torch.bool) if seen is None else seen
    return ClassQueries(rows, torch.arange(len(rows)), seen, names=names)


def samples_of(labels):
    samples = []
    for label_map in labels:
        sample = SegDataSample()
        sample.gt_sem_seg = PixelData(data=label_map[None])
        samples.append(sample)
    return samples


@pytest.mark.parametrize('kind', KINDS)
def test_what_losses_see_is_what_is_fitted(kind):
    """Two batches, ignored pixels, labels of twice the size."""
    torch.manual_seed(0)
    queries = queries_of(torch.randn(3, 4))
    maps, labels = torch.randn(4, 5, 2, 3), torch.randint(0, 4, (4, 2, 3))
    labels[labels == 3] = 255
    full = labels.repeat_interleave(2, 1).repeat_interleave(2, 2)
    head = kind(5, embed_dim=4, normalize=True)
    head.collect(None)
    for part in (slice(0, 3), slice(3, 4)):
        outputs = head.training_outputs((maps[part],), queries=queries)
        head.loss_by_feat(outputs, samples_of(full[part]))
    count = head.solve(queries)
    valid = labels != 255
    features = F.normalize(maps, dim=1).movedim(1, 3)[valid]
    sums = FeatureSums(5, 3, torch.device('cpu'))
    sums.add(features, labels[valid])
    expected = head.solution(sums, queries.embeddings.double()).float()
    torch.testing.assert_close(head.weight, expected)
    assert count == valid.sum()


def test_large_areas_count_no_more_than_asked_for():
    queries = queries_of(torch.randn(2, 4))
    labels = torch.zeros(1, 4, 4).long()
    labels[0, 0, :3] = 1
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    head = BilinearCompatibilityHead(1, embed_dim=4)
    head.collect(2)
    head.loss_by_feat(
        head.training_outputs((maps,), queries=queries), samples_of(labels)
    )
    # Of thirteen places, 3 to 15, the first and the seventh; of three the first two.
    assert head._sums.counts.tolist() == [2, 2]
    assert head._sums.by_row.tolist() == [[3.0 + 9.0, 0.0 + 1.0]]


def test_scores_are_what_the_formulas_say():
    torch.manual_seed(0)
    maps, rows = torch.randn(2, 5, 3, 2), torch.randn(3, 4)
    pixels = maps.movedim(1, 3)  # (N, h, w, D)
    matrix = torch.randn(4, 5)
    expected = {
        BilinearCompatibilityHead: pixels @ matrix.T @ rows.T,
        SemanticAutoencoderHead: F.normalize(pixels @ matrix.T, dim=3)
        @ F.normalize(rows, dim=1).T,
    }
    for kind, scores in expected.items():
        head = kind(5, embed_dim=4, scale=3.0)
        head.weight.copy_(matrix)
        head.fitted.fill_(True)
        found = head.query_logits((maps,), queries=queries_of(rows))
        torch.testing.assert_close(found, 3 * scores.movedim(3, 1))
    head = SemanticAutoencoderHead(5, embed_dim=4, scale=1.0, compare='feature')
    head.weight.copy_(matrix)
    head.fitted.fill_(True)
    decoded = F.normalize(pixels, dim=3) @ F.normalize(rows @ matrix, dim=1).T
    found = head.query_logits((maps,), queries=queries_of(rows))
    torch.testing.assert_close(found, decoded.movedim(3, 1))
    assert math.isclose(head.log_scale.exp().item(), 1.0)


def test_a_head_that_is_not_fitted_says_so():
    head = BilinearCompatibilityHead(5, embed_dim=4)
    with pytest.raises(ValueError, match='ClosedFormFitHook'):
        head.query_logits(
            (torch.zeros(1, 5, 2, 2),), queries=queries_of(torch.ones(2, 4))
        )


def test_a_class_without_pixels_is_named():
    queries = queries_of(torch.randn(2, 4))
    head = BilinearCompatibilityHead(5, embed_dim=4)
    head.collect(None)
    outputs = head.training_outputs((torch.randn(1, 5, 2, 2),), queries=queries)
    head.loss_by_feat(outputs, samples_of(torch.zeros(1, 2, 2).long()))
    with pytest.raises(ValueError, match="no pixel of 'b'"):
        head.solve(queries)


@pytest.mark.parametrize(
    ('kind', 'options', 'message'),
    [
        (BilinearCompatibilityHead, dict(gamma=0), 'gamma > 0 and lam > 0'),
        (SemanticAutoencoderHead, dict(lam=0), 'lam > 0'),
        (SemanticAutoencoderHead, dict(compare='class'), 'compare must be one of'),
        (SemanticAutoencoderHead, dict(scale=0), 'scale must be > 0'),
    ],
)
def test_options_out_of_range_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(5, embed_dim=4, **options)
