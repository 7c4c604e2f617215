"""The weights in the package are what their card says, and how that is measured."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import zs3_mmseg
from clip_model import learn_merges, merges_file
from measure import (
    average_precision,
    confusion_matrices,
    image_rows,
    intersection_over_union,
    split_figures,
    text_rows,
)
from zs3_mmseg.datasets.shapes import THINGS, render_scene
from zs3_mmseg.datasets.shapes.captions import known_words
from zs3_mmseg.models.towers import LoadedCLIP, load_clip

FOLDER = Path(zs3_mmseg.__file__).parent / 'assets' / 'shapes_tiny'


@pytest.fixture(scope='module')
def shipped() -> LoadedCLIP:
    return load_clip('zs3-shapes-tiny', 'shapes')


def test_the_weights_fit_the_model_exactly_and_are_small(shipped: LoadedCLIP) -> None:
    path = FOLDER / 'weights.safetensors'
    assert path.stat().st_size <= 8e6
    stored = load_file(str(path))
    expected = shipped.model.state_dict()
    assert {k: v.shape for k, v in stored.items()} == {
        k: v.shape for k, v in expected.items()
    }


def test_words_and_merges_are_those_of_the_captions(shipped: LoadedCLIP) -> None:
    assert list(shipped.known_words) == known_words()
    merges = merges_file(learn_merges(known_words()))
    # Compressed bytes may differ between versions of zlib.
    stored = (FOLDER / 'merges.txt.gz').read_bytes()
    assert gzip.decompress(stored) == gzip.decompress(merges)


def test_it_names_single_objects_it_has_never_seen(shipped: LoadedCLIP) -> None:
    scenes = [render_scene(1, 'clip_heldout_icons', index) for index in range(200)]
    images = image_rows(shipped.model, np.stack([scene.image for scene in scenes]))
    texts = text_rows(shipped.model, shipped.tokenizer, THINGS)
    guesses = (images @ texts.T).argmax(dim=1).tolist()
    truth = [THINGS.index(scene.objects[0].name) for scene in scenes]
    assert np.mean(np.equal(guesses, truth)) >= 0.95


def test_it_finds_where_things_are_without_having_seen_a_mask() -> None:
    dense, chance = (
        split_figures(intersection_over_union(confusion))['shapes_a']
        for confusion in confusion_matrices('zs3-shapes-tiny', 'shapes', 'val', 60)
    )
    for name, least in (('mIoU_seen', 0.35), ('mIoU_unseen', 0.25)):
        assert chance[name] < 0.05
        assert dense[name] > least


def test_average_precision_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    present = np.array([True, False, True, False])
    assert average_precision(scores, present) == pytest.approx((1 + 2 / 3) / 2)
