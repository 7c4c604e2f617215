"""Calibrators against their formulas, whole and by slices of the classes."""

from __future__ import annotations

import pytest
import torch

from zs3_mmseg.models.calibrators import ImageLevelGate, SeenShift
from zs3_mmseg.models.class_embeddings import ClassQueries


@pytest.fixture
def queries():
    """Four classes; the second has two queries."""
    generator = torch.Generator().manual_seed(0)
    return ClassQueries(
        embeddings=torch.randn(5, 6, generator=generator),
        query_to_class=torch.tensor([0, 1, 1, 2, 3]),
        seen_mask=torch.tensor([True, False, True, False]),
    )


@pytest.fixture
def scores():
    return torch.rand(2, 4, 3, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def token():
    return torch.randn(2, 6, generator=torch.Generator().manual_seed(2))


def test_seen_shift_takes_a_constant_off_seen_classes(queries, scores):
    expected = scores.clone()
    expected[:, [0, 2]] -= 0.1
    assert torch.equal(SeenShift()(scores, queries), expected)
    assert SeenShift().space == 'score'


def test_no_shift_changes_nothing(queries, scores):
    assert torch.equal(SeenShift(0.0)(scores, queries), scores)


def test_a_huge_shift_leaves_only_unseen_classes(queries, scores):
    best = SeenShift(1e6)(scores, queries).argmax(dim=1)
    assert set(best.unique().tolist()) <= {1, 3}


def test_a_shift_of_logits_weighs_softmax_probabilities(queries, scores):
    """Weights (w_S, w_U) on a softmax equal a shift of ln(w_U / w_S)."""
    shift = torch.log(torch.tensor(3.0 / 0.5)).item()
    weights = torch.tensor([0.5, 3.0, 0.5, 3.0])[:, None, None]
    weighted = scores.softmax(dim=1) * weights
    expected = weighted / weighted.sum(dim=1, keepdim=True)
    shifted = SeenShift(shift, space='logit')(scores, queries).softmax(dim=1)
    torch.testing.assert_close(shifted, expected)


def test_the_gate_adds_the_best_synonyms_cosine(queries, scores, token):
    gate = ImageLevelGate(0.5, scale=20.0)
    cosine = torch.cosine_similarity(token[:, None], queries.embeddings[None], dim=2)
    per_class = torch.stack(
        [cosine[:, 0], cosine[:, 1:3].amax(dim=1), cosine[:, 3], cosine[:, 4]], dim=1
    )
    expected = scores + 0.5 * 20.0 * per_class[:, :, None, None]
    torch.testing.assert_close(gate(scores, queries, token), expected)
    assert gate.space == 'logit'


@pytest.mark.parametrize('calibrator', [SeenShift(), ImageLevelGate(1.0)])
def test_slices_of_the_classes_are_calibrated_alike(calibrator, queries, scores, token):
    whole = calibrator(scores, queries, token)
    for classes in (slice(0, 1), slice(1, 4)):
        part = calibrator(scores[:, classes], queries, token, classes)
        assert torch.equal(part, whole[:, classes])


def test_the_gate_needs_a_global_token(queries, scores):
    with pytest.raises(ValueError, match='out_global=True'):
        ImageLevelGate(1.0)(scores, queries)


def test_the_gate_needs_a_token_of_the_rows_width(queries, scores):
    with pytest.raises(ValueError, match='global token has 7 channels'):
        ImageLevelGate(1.0)(scores, queries, torch.randn(2, 7))


def test_unknown_spaces_are_refused():
    with pytest.raises(ValueError, match="not 'prob'"):
        SeenShift(0.1, space='prob')


def test_one_that_needs_all_classes_must_observe_them():
    class Blind(SeenShift):
        needs_all_classes = True

    with pytest.raises(TypeError, match='no method observe'):
        Blind()
