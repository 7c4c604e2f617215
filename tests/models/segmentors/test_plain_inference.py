"""Label maps against scores made by their definition, and what they are made of."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from zs3_mmseg.models.decode_heads.zero_shot_head import RunningArgmax

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def plain_scores(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    return importlib.import_module('_inference').plain_scores


@pytest.fixture(scope='module')
def zegclip():
    torch.manual_seed(0)
    init_default_scope('mmseg')
    config = Config.fromfile(ROOT / 'configs/zegclip/shapes_tiny.py').model
    model = MODELS.build(config).eval()
    width = model.decode_head.in_channels
    names = [f'name {index}' for index in range(29)]
    model.set_classes(names, names[::4], embeddings=torch.randn(29, width))
    return model


@pytest.mark.parametrize('mask_size', [None, (64, 64)])
@pytest.mark.parametrize('mode', ['whole', 'slide'])
@torch.no_grad()
def test_label_maps_are_those_of_the_definition(
    zegclip, plain_scores, mode, mask_size
) -> None:
    zegclip.test_cfg.update(
        mode=mode,
        crop_size=(64, 64),
        stride=(52, 44),
        mask_size=mask_size,
        return_scores=False,
    )
    image = torch.randn(1, 3, 128, 176)
    expected = plain_scores(zegclip, image)[0]
    found = zegclip.predict(image)[0].pred_sem_seg.data
    best = expected.amax(0, keepdim=True)
    # Sums in another order differ in the last digit, and a tie may go either way.
    torch.testing.assert_close(expected.gather(0, found), best, rtol=0, atol=1e-6)
    assert (found != expected.argmax(0)).float().mean() < 1e-3


@given(
    chunks=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    levels=st.integers(1, 5),
    seed=st.integers(0, 999),
)
def test_of_equal_scores_the_first_class_wins_in_any_slices(
    chunks, levels, seed
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (sum(chunks), 5, 7), generator=generator).float()
    running, reused = RunningArgmax(), torch.empty(max(chunks), 5, 7)
    for part in scores.split(chunks):
        reused[: len(part)] = part
        running.update(reused[: len(part)])
    found = running.best()
    assert found is not None
    assert torch.equal(found[0], scores.amax(0))
    assert torch.equal(found[1], scores.argmax(0))


@torch.no_grad()
def test_scores_can_be_asked_for_again(make_segmentor) -> None:
    """Maps that have their size already are not written over."""
    model = make_segmentor('ToySigmoidHead', test_cfg=dict(mask_size=(2, 3)))
    ((_, crop),) = model._crops(torch.randn(1, 3, 8, 12), [{}], 'whole')
    first = crop(slice(0, 2))
    torch.testing.assert_close(crop(slice(0, 2)), first, rtol=0, atol=0)
