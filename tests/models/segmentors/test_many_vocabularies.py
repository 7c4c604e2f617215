"""A model that was asked with many vocabularies is the model it was."""

from __future__ import annotations

import gc
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from zs3_mmseg.apis import ZeroShotInferencer, load_config

CHANGES = 100
WORDS = (
    'grass',
    'sea',
    'star',
    'boat',
    'cup|mug',
    'two words',
    'heart',
    'sand',
    'moon',
)
PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def live_bytes() -> int:
    """Return the bytes of all tensors that Python can reach."""
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        # Not what compilers leave behind, which has no memory.
        tensors = [
            item
            for item in gc.get_objects()
            if type(item) in (torch.Tensor, nn.Parameter) and item.device.type == 'cpu'
        ]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors}
    return sum(storage.nbytes() for storage in storages.values())


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: value.clone() for name, value in named}


@pytest.mark.slow
@pytest.mark.parametrize('config', ['clip_dense/shapes_tiny', 'fcclip/shapes_tiny'])
def test_nothing_stays_of_a_vocabulary(config: str) -> None:
    torch.manual_seed(0)
    settings = load_config(config, {'model.test_cfg.return_scores': True})
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(settings.model).eval()
    model.cfg = settings
    inferencer = ZeroShotInferencer(model, return_scores=True)
    before = inferencer.segment(PICTURE)[0]
    weights = tensors_of(model)
    rng = random.Random(0)
    sizes = []
    for number in range(CHANGES):
        names = rng.sample(WORDS, rng.randint(2, len(WORDS)))
        if number % 2:
            inferencer.set_classes(names)
            found = inferencer.segment(PICTURE)[0]
            inferencer.set_classes(None)
        else:
            found = inferencer.segment(PICTURE, classes=names)[0]
        assert found.classes == tuple(names)
        assert len(found.scores) == len(names)
        del found
        if number >= CHANGES // 10:
            sizes.append(live_bytes())
    assert max(sizes) == min(sizes)
    after = inferencer.segment(PICTURE)[0]
    assert after.classes == before.classes
    np.testing.assert_array_equal(after.scores, before.scores)
    now = tensors_of(model)
    assert now.keys() == weights.keys()
    for key, value in now.items():
        assert torch.equal(value, weights[key]), key
