"""Calibrators against their formulas, whole and by slices of the classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from zs3_mmseg.models.calibrators import (
    EMPriorShift,
    GroupTemperature,
    ImageLevelGate,
    PriorCorrection,
    SeenShift,
    TrustGate,
    UnseenMassMatch,
    VocabularyPruner,
)
from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.utils.checkpoint import load_into


@pytest.fixture
def queries():
    """Four classes; the second has two queries."""
    generator = torch.Generator().manual_seed(0)
    return ClassQueries(
        embeddings=torch.randn(5, 6, generator=generator),
        query_to_class=torch.tensor([0, 1, 1, 2, 3]),
        seen_mask=torch.tensor([True, False, True, False]),
        names=('cat', 'dog', 'grass', 'sky'),
    )


@pytest.fixture
def scores():
    return torch.rand(2, 4, 3, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def token():
    return torch.randn(2, 6, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize('mode', ['both', 'seen', 'unseen'])
def test_trust_gate_weighs_each_group_by_its_side(mode, queries, scores):
    gate = torch.rand(2, 1, 3, 5, generator=torch.Generator().manual_seed(3))
    expected = scores.clone()
    for index, seen in enumerate(queries.seen_mask):
        if mode in ('both', 'seen' if seen else 'unseen'):
            expected[:, index] *= (1 - gate[:, 0]) if seen else gate[:, 0]
    assert torch.equal(TrustGate(mode)(scores, queries, gate=gate), expected)
    part = slice(1, 3)
    sliced = TrustGate(mode)(scores[:, part], queries, classes=part, gate=gate)
    assert torch.equal(sliced, expected[:, part])


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


# ---------------------------------------------------------------- temperatures, priors


def test_each_group_has_its_temperature(queries, scores):
    expected = scores / torch.tensor([2.0, 0.5, 2.0, 0.5])[:, None, None]
    found = GroupTemperature(seen=2.0, unseen=0.5)(scores, queries)
    torch.testing.assert_close(found, expected)


TRAIN = {'cat': 0.6, 'grass': 0.4}
TEST = {'cat': 0.1, 'dog': 0.2, 'grass': 0.3, 'sky': 0.4}


def test_posteriors_move_from_one_prior_to_another(queries, scores):
    """Bayes by hand; classes without labels had the smallest share."""
    posteriors = scores.softmax(dim=1)
    train = torch.tensor([0.6, 0.4, 0.4, 0.4])[:, None, None]
    test = torch.tensor([0.1, 0.2, 0.3, 0.4])[:, None, None]
    expected = posteriors / train * test
    logits = PriorCorrection(TRAIN, TEST)(scores, queries)
    torch.testing.assert_close(
        logits.softmax(dim=1), expected / expected.sum(dim=1, keepdim=True)
    )
    found = PriorCorrection(TRAIN, TEST, space='score')(posteriors, queries)
    torch.testing.assert_close(found, expected)


def test_tau_says_how_far_a_prior_is_corrected(queries, scores):
    assert torch.equal(PriorCorrection(TRAIN, TEST, tau=0)(scores, queries), scores)
    half = PriorCorrection(TRAIN, tau=0.5)(scores, queries)
    torch.testing.assert_close(
        2 * half - scores, PriorCorrection(TRAIN)(scores, queries)
    )


@pytest.mark.parametrize(
    ('prior', 'message'),
    [
        ({'cat': 0.6, 'gras': 0.4}, "'gras' is no class. Did you mean 'grass'"),
        ({'cat': 1.0}, "train_prior has no share for 'grass'"),
    ],
)
def test_priors_must_fit_the_classes(queries, scores, prior, message):
    with pytest.raises(ValueError, match=message):
        PriorCorrection(prior)(scores, queries)


# ---------------------------------------------------------------- learned from images


class Crops:
    """Crops of images, shown in two slices of the classes."""

    def __init__(self, logits, queries):
        self.logits, self.queries = logits, queries

    def __iter__(self):
        for image in self.logits:
            parts = (slice(0, 1), slice(1, image.shape[0]))
            yield ((classes, image[None, classes]) for classes in parts)


def test_maximisation_recovers_a_planted_prior(queries):
    """Labels are drawn from a prior, and posteriors are exact for an equal one."""
    generator = torch.Generator().manual_seed(3)
    prior = torch.tensor([0.1, 0.5, 0.3, 0.1])
    means = 2 * torch.eye(4)
    labels = torch.multinomial(prior, 40_000, replacement=True, generator=generator)
    seen = means[labels] + torch.randn(40_000, 4, generator=generator)
    logits = -(seen[:, None] - means).square().sum(dim=2).T / 2
    images = [part.unflatten(1, (100, 100)) for part in logits.split(10_000, dim=1)]
    calibrator = EMPriorShift(iterations=100, pixels_per_crop=None)
    calibrator.fit(Crops(images, queries))
    found = torch.tensor(calibrator.constants).softmax(dim=0)
    torch.testing.assert_close(found, prior, atol=0.01, rtol=0)


def test_a_step_of_maximisation_is_the_mean_posterior(queries, scores):
    calibrator = EMPriorShift(iterations=1, pixels_per_crop=None)
    calibrator.fit(Crops(scores, queries))
    shares = scores.softmax(dim=1).mean(dim=(0, 2, 3))
    found = torch.tensor(calibrator.constants)
    torch.testing.assert_close(found, (4 * shares).log())


def test_an_absent_class_is_not_ruled_out(queries):
    logits = torch.zeros(1, 4, 5, 5)
    logits[:, 1] = -50
    calibrator = EMPriorShift(max_change=2.0)
    calibrator.fit(Crops(logits, queries))
    assert calibrator.constants[1] == -2


@pytest.mark.parametrize(('mass', 'expected'), [(None, 0.5), (0.1, 0.1), (0.9, 0.9)])
def test_unseen_classes_get_their_share(queries, scores, mass, expected):
    calibrator = UnseenMassMatch(mass)
    calibrator.fit(Crops(scores, queries))
    posteriors = calibrator(scores, queries).softmax(dim=1)
    found = posteriors[:, [1, 3]].sum(dim=1).mean()
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-3, rtol=0)
    assert calibrator.constants[0] == calibrator.constants[2] == 0


@pytest.mark.parametrize('kind', [EMPriorShift, UnseenMassMatch])
def test_what_was_learned_is_saved_and_bound_to_its_names(queries, scores, kind):
    calibrator = kind()
    with pytest.raises(ValueError, match=f'{kind.__name__} is not fitted'):
        calibrator(scores, queries)
    calibrator.fit(Crops(scores, queries))
    again = kind()
    again.load_state_dict(calibrator.state_dict())
    assert torch.equal(again(scores, queries), calibrator(scores, queries))
    part = again(scores[:, 1:], queries, None, slice(1, 4))
    assert torch.equal(part, again(scores, queries)[:, 1:])
    others = replace(queries, names=('cat', 'dog', 'grass', 'sea'))
    with pytest.raises(ValueError, match='fitted on other classes'):
        again(scores, others)


@pytest.mark.parametrize('kind', [EMPriorShift, UnseenMassMatch])
def test_weights_that_knew_no_calibrator_leave_it_to_be_fitted(queries, scores, kind):
    model = torch.nn.ModuleDict({'head': torch.nn.Linear(2, 2), 'calibrator': kind()})
    model['calibrator'].fit(Crops(scores, queries))
    state = {f'head.{k}': v for k, v in torch.nn.Linear(2, 2).state_dict().items()}
    assert load_into(model, state).clean
    assert torch.equal(model['head'].weight, state['head.weight'])
    with pytest.raises(ValueError, match='is not fitted'):
        model['calibrator'](scores, queries)


def test_groups_must_have_classes_to_be_matched(scores, queries):
    everything = replace(queries, seen_mask=torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match='all classes are seen'):
        UnseenMassMatch().fit(Crops(scores, everything))


# -------------------------------------------------------------------------- pruning


def observed_by(calibrator, scores, queries):
    observed = None
    for classes in (slice(0, 3), slice(3, 4)):
        part = scores[:, classes]
        observed = calibrator.observe(observed, part, queries, None, classes)
    return observed


@pytest.mark.parametrize('pool', ['max', 'mean'])
@pytest.mark.parametrize('space', ['logit', 'score'])
def test_only_the_best_classes_of_an_image_stay(queries, scores, pool, space):
    calibrator = VocabularyPruner(keep=2, pool=pool, space=space)
    observed = observed_by(calibrator, scores, queries)
    found = calibrator(scores, queries, observed=observed)
    for image, pruned in zip(scores, found, strict=True):
        votes = getattr(image.flatten(1), 'amax' if pool == 'max' else 'mean')(dim=1)
        best = sorted(votes.topk(2).indices.tolist())
        assert torch.equal(pruned[best], image[best])
        rest = [k for k in range(4) if k not in best]
        value = image.min() if space == 'score' else torch.tensor(-1e4)
        assert (pruned[rest] == value).all()
    part = calibrator(scores[:, 1:2], queries, None, slice(1, 2), observed=observed)
    assert torch.equal(part, found[:, 1:2])


def test_the_best_class_stays_below_every_threshold(queries, scores):
    calibrator = VocabularyPruner(threshold=7.0)
    observed = observed_by(calibrator, scores, queries)
    found = calibrator(scores, queries, observed=observed)
    kept = (found != -1e4).all(dim=(2, 3))
    assert kept.sum(dim=1).tolist() == [1, 1]


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: GroupTemperature(seen=0), 'seen > 0'),
        (lambda: PriorCorrection({}), 'is empty'),
        (lambda: PriorCorrection({'cat': 0}), "'cat' has 0"),
        (lambda: PriorCorrection(TRAIN, 'equal'), 'test_prior must be one of'),
        (lambda: EMPriorShift(iterations=0), 'iterations >= 1'),
        (lambda: EMPriorShift(floor=0), 'floor between'),
        (lambda: UnseenMassMatch(1.0), '0 < mass < 1'),
        (lambda: UnseenMassMatch(bins=1), 'bins >= 2'),
        (lambda: VocabularyPruner(), 'needs keep=, threshold='),
        (lambda: VocabularyPruner(keep=0), 'keep >= 1'),
        (lambda: VocabularyPruner(keep=1, pool='median'), 'pool must be one of'),
    ],
)
def test_options_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
