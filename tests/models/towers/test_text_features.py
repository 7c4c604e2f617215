from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from zs3_mmseg.models.towers import load_clip, text_features

IDS = torch.tensor([[49406, 320, 2368, 49407, 0, 0], [49406, 736, 49407, 0, 0, 0]])


@pytest.fixture
def ids() -> Tensor:
    return torch.nn.functional.pad(IDS, (0, 6))


@pytest.mark.parametrize('custom_text', [False, True])
@torch.no_grad()
def test_the_last_word_projected_is_the_embedding(
    custom_text: bool, ids: Tensor, tiny_config
) -> None:
    model = load_clip(tiny_config() | dict(custom_text=custom_text)).model
    rows, tokens = text_features(model, ids)
    torch.testing.assert_close(rows, model.encode_text(ids))
    tower = model.text if custom_text else model
    last = tokens[[0, 1], [3, 2]]
    torch.testing.assert_close(last @ tower.text_projection, rows)
    assert tokens.shape == (2, 12, 16)


@torch.no_grad()
def test_all_tokens_are_the_last_blocks_after_the_norm(ids: Tensor, tiny_clip) -> None:
    model = tiny_clip()
    _, tokens = text_features(model, ids)
    before: list[Tensor] = []
    norm = copy.deepcopy(model.ln_final)
    model.transformer.resblocks[-1].register_forward_hook(
        lambda _, args, output: before.append(output)
    )
    model.encode_text(ids)
    torch.testing.assert_close(tokens, norm(before[0]))


def test_other_towers_are_named(ids: Tensor) -> None:
    with pytest.raises(ValueError, match='SimpleNamespace gives no outputs of single'):
        text_features(SimpleNamespace(), ids)
