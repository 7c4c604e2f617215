"""Which pixels become pseudo-labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zs3_mmseg.apis.pseudo_labels import PseudoLabelChoice

IGNORE = 255


@given(
    seed=st.integers(0, 2**16),
    percent=st.floats(0.5, 100),
    ranking=st.sampled_from(['class', 'image']),
)
def test_the_surest_pixels_of_unseen_classes_stay(
    seed: int, percent: float, ranking: str
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, size=(7, 9)).astype(np.uint8)
    confidence = rng.permutation(labels.size).reshape(labels.shape) / labels.size
    unseen = (1, 4, 5)
    kept = PseudoLabelChoice(percent, ranking).keep(labels, confidence, unseen, IGNORE)

    groups = [{1}, {4}, {5}] if ranking == 'class' else [{1, 4, 5}]
    expected: set[int] = set()
    for group in groups:
        pixels = [i for i, label in enumerate(labels.flat) if label in group]
        pixels.sort(key=lambda i: -confidence.flat[i])
        # All pixels but the floor of the share that goes.
        gone = int(np.floor((len(pixels) - 1) * (100 - percent) / 100)) if pixels else 0
        expected |= set(pixels[: len(pixels) - gone])
    assert set(np.flatnonzero(kept != IGNORE)) == expected
    chosen = kept != IGNORE
    assert (kept[chosen] == labels[chosen]).all()


def test_equally_sure_pixels_stay_together() -> None:
    labels = np.full((2, 2), 3, dtype=np.uint8)
    kept = PseudoLabelChoice(1).keep(labels, np.ones((2, 2)), [3], IGNORE)
    assert (kept == 3).all()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(top_percent=0), 'top_percent must be above 0'),
        (dict(top_percent=101), 'at most 100, got 101'),
        (dict(ranking='pixel'), "one of 'class', 'image', not 'pixel'"),
    ],
)
def test_wrong_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PseudoLabelChoice(**options)
