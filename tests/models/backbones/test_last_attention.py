from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from zs3_mmseg.models.backbones import LAST_ATTENTION
from zs3_mmseg.models.backbones.last_attention import (
    build_last_attention,
    gaussian_window,
)

GRID = (3, 5)
HEAD = 4


@pytest.fixture
def qkv() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 1 + GRID[0] * GRID[1], HEAD).unbind(0)
    return q, k, v


def _window(std: float) -> Tensor:
    """Compute the window pair by pair, with zeros for the class token."""
    count = GRID[0] * GRID[1]
    window = torch.zeros(1 + count, 1 + count)
    for i in range(count):
        for j in range(count):
            (y, x), (v, u) = divmod(i, GRID[1]), divmod(j, GRID[1])
            distance = (y - v) ** 2 + (x - u) ** 2
            window[1 + i, 1 + j] = math.exp(-distance / (2 * std**2))
    return window


def _softmax(scores: Tensor) -> Tensor:
    powers = torch.exp(scores)
    return powers / powers.sum(dim=-1, keepdim=True)


def _scores(a: Tensor, b: Tensor) -> Tensor:
    return a @ b.transpose(-1, -2) / math.sqrt(HEAD)


def _only_window(q: Tensor, k: Tensor) -> Tensor:
    rows = []
    for image_q, image_k in zip(q, k, strict=True):
        pairs = image_q.norm(dim=-1)[:, :, None] * image_k.norm(dim=-1)[:, None, :]
        rows.append(_softmax(_window(2.0) * pairs.mean() / math.sqrt(HEAD)))
    return torch.stack(rows)[:, None]


MATRICES = {
    'vanilla': lambda q, k: _softmax(_scores(q, k)),
    'maskclip': lambda q, k: torch.eye(q.shape[2]),
    'maskclip_v': lambda q, k: torch.eye(q.shape[2]),
    'sclip': lambda q, k: _softmax(_scores(q, q)) + _softmax(_scores(k, k)),
    'clearclip': lambda q, k: _softmax(_scores(q, q)),
    'kk': lambda q, k: _softmax(_scores(k, k)),
    'naclip': lambda q, k: _softmax(_scores(k, k) + _window(2.0)),
    'nonly': _only_window,
}


def _build(name: str):
    options = dict(std=2.0) if name in ('naclip', 'nonly') else {}
    return build_last_attention(dict(type=name, **options))


def test_every_strategy_has_a_matrix_here() -> None:
    assert set(MATRICES) == set(LAST_ATTENTION)


@pytest.mark.parametrize('name', MATRICES)
def test_strategy_equals_its_formula(name: str, qkv: tuple) -> None:
    q, k, v = qkv
    torch.testing.assert_close(_build(name)(q, k, v, GRID), MATRICES[name](q, k) @ v)


@pytest.mark.parametrize('name', MATRICES)
def test_rows_of_the_matrix_sum_to_one_or_two(name: str, qkv: tuple) -> None:
    """Equal values come out as they are: ``A 1 = 1``, and 2 for sclip."""
    q, k, v = qkv
    total = _build(name)(q, k, torch.ones_like(v), GRID)
    expected = torch.full_like(v, 2.0 if name == 'sclip' else 1.0)
    torch.testing.assert_close(total, expected)


def test_sclip_doubles_a_single_token(qkv: tuple) -> None:
    q, k, v = (tensor[:, :, :1] for tensor in qkv)
    torch.testing.assert_close(_build('sclip')(q, k, v, (1, 1)), 2 * v)


def test_naclip_without_its_window_is_kk(qkv: tuple) -> None:
    without = build_last_attention(dict(type='naclip', weight=0))
    torch.testing.assert_close(without(*qkv, GRID), _build('kk')(*qkv, GRID))


def test_csa_is_another_name_of_sclip() -> None:
    assert type(build_last_attention('csa')) is LAST_ATTENTION['sclip']


def test_tokens_before_the_patches_have_no_window(qkv: tuple) -> None:
    """Prompt tokens stand between the class token and the patches."""
    strategy = _build('naclip')
    tokens = torch.cat([qkv[0], qkv[0][:, :, :3]], dim=2)
    window = strategy.window(tokens, GRID)
    assert window.shape == (19, 19)
    assert not window[:4].any()
    assert not window[:, :4].any()
    torch.testing.assert_close(window[4:, 4:], gaussian_window(GRID, 2.0))


def test_only_the_latest_windows_are_kept() -> None:
    strategy = _build('naclip')
    for height in range(1, 8):
        strategy.window(torch.zeros(1, 1, 1 + 2 * height, HEAD), (height, 2))
    first = torch.zeros(1, 1, 1 + 14, HEAD)
    assert strategy.window(first, (7, 2)) is strategy.window(first, (7, 2))
    assert len(strategy._windows) == 4


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ('nacilp', "Did you mean 'naclip'"),
        (dict(std=3.0), 'last_attn must be one of .*not None'),
        (dict(type='naclip', sdt=5.0), "'naclip'.*sdt"),
        (dict(type='naclip', std=0), 'std must be positive'),
    ],
)
def test_a_wrong_strategy_is_named(config, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_last_attention(config)
