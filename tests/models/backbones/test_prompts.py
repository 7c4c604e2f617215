"""Prompt tokens of a frozen tower; the golden files say what they compute."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from zs3_mmseg.models.backbones import OpenCLIPViT
from zs3_mmseg.models.backbones.prompts import DeepPrompts, SpectralFilter

BLOCKS = 4


def make(depth: int, **more: float) -> DeepPrompts:
    return DeepPrompts(
        num_tokens=3, depth=depth, num_blocks=BLOCKS, width=8, patch_size=4, **more
    )


@pytest.mark.parametrize(
    ('depth', 'counts'),
    [
        (3, [3, 3, 3, 3]),
        (1, [3, 3, 0, 0]),
        (0, [3, 3, 3, 3]),
        (-2, [0, 0, 3, 3]),
        (-4, [3, 3, 3, 3]),
    ],
)
def test_which_blocks_have_prompts(depth: int, counts: list[int]) -> None:
    prompts, tokens = make(depth), torch.randn(2, 6, 8)
    lengths = []
    for block in range(BLOCKS):
        tokens = prompts.before(block, tokens)
        lengths.append(tokens.shape[1] - 6)
    assert lengths == counts


def test_reverse_prompts_enter_the_last_blocks_anew_each_time() -> None:
    prompts, tokens = make(-2).eval(), torch.randn(2, 6, 8)
    for block in range(BLOCKS):
        expected = tokens
        if block >= BLOCKS - 2:
            fresh = prompts.deep_prompt_embeddings[block - BLOCKS + 2]
            held = 3 if block == BLOCKS - 1 else 0
            fresh = prompts.prompt_proj(fresh).expand(2, -1, -1)
            expected = torch.cat([tokens[:, :1], fresh, tokens[:, 1 + held :]], dim=1)
        after = prompts.before(block, tokens)
        assert torch.equal(after, expected)
        tokens = after + 1  # what a block makes of them


@pytest.mark.parametrize('depth', [-1, 0, 1])
def test_all_that_learns_gets_a_gradient(depth: int) -> None:
    prompts, tokens = make(depth), torch.randn(2, 6, 8)
    for block in range(BLOCKS):
        tokens = prompts.before(block, tokens)
    prompts.after(tokens).square().sum().backward()
    learning = {n: p for n, p in prompts.named_parameters() if p.requires_grad}
    assert not [name for name, value in learning.items() if value.grad is None]


@pytest.mark.parametrize('depth', [4, -5])
def test_a_depth_beyond_the_tower_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=r'expected -4\.\.3'):
        make(depth)


def test_dropout_differs_between_images() -> None:
    prompts = make(0, dropout=0.5).train()
    tokens = prompts.before(0, torch.zeros(2, 6, 8))
    assert not torch.equal(tokens[0], tokens[1])


def test_only_prompts_learn_in_a_frozen_tower(tiny_config: Callable) -> None:
    model = OpenCLIPViT(tiny_config(), prompts=dict(num_tokens=2, depth=1)).train()
    learning = {n.split('.')[0] for n, p in model.named_parameters() if p.requires_grad}
    assert learning == {'prompts'}
    model(torch.randn(1, 3, 32, 32))[0].sum().backward()
    assert model.prompts.deep_prompt_embeddings.grad is not None
    assert not model.visual.training
    assert model.prompts.training


@pytest.mark.parametrize('grid', [(4, 6), (8, 12), (5, 7), (3, 2)])
def test_a_filter_does_the_same_at_any_size(grid: tuple[int, int]) -> None:
    """A constant filter multiplies, and one of half the waves takes the others out."""
    part = SpectralFilter(blocks=(0,), grid=(4, 6), num_blocks=1, width=2)
    tokens = torch.randn(1, 1 + 3 + grid[0] * grid[1] + 2, 2)
    patches, first = tokens[:, 4:-2], tokens[:, :1]
    with torch.no_grad():
        part.weight.copy_(torch.tensor([0.5, 0.0]).expand_as(part.weight))
    changed = part.before(0, tokens, 3, grid)
    torch.testing.assert_close(changed[:, 4:-2], patches + 0.5 * patches * first)
    assert torch.equal(changed[:, :4], tokens[:, :4])
    assert torch.equal(changed[:, -2:], tokens[:, -2:])
    assert part.before(1, tokens, 3, grid) is tokens


def test_a_wave_is_damped_alike_on_grids_that_hold_it() -> None:
    part = SpectralFilter(blocks=(0,), grid=(8, 8), num_blocks=1, width=1)
    gains = []
    for size in (8, 16, 24):
        places = torch.arange(size)
        wave = torch.cos(2 * torch.pi * (places[:, None] / 4 + places / 8))
        tokens = torch.cat([torch.ones(1), wave.flatten()]).view(1, -1, 1)
        added = part.before(0, tokens, 0, (size, size)) - tokens
        moved = torch.fft.fft2(added[0, 1:, 0].view(size, size))
        gains.append((moved / torch.fft.fft2(wave))[size // 4, size // 8])
    torch.testing.assert_close(gains[1], gains[0])
    torch.testing.assert_close(gains[2], gains[0])


def test_an_image_of_another_size_goes_through_a_filtered_tower(tiny_config) -> None:
    options = dict(out_global=True, spectral=dict(blocks=(0, 1), train=False))
    backbone = OpenCLIPViT(tiny_config(), **options)
    assert backbone.spectral.grid == (4, 4)
    assert not backbone.spectral.weight.requires_grad
    assert backbone(torch.randn(1, 3, 40, 24))[0].shape[-2:] == (5, 3)
    with pytest.raises(ValueError, match=r'spectral\.blocks'):
        OpenCLIPViT(tiny_config(), spectral=dict(blocks=(3,)))
