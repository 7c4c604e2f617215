"""CLIP models small enough to be built for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from zs3_mmseg.models.towers import load_clip, release_towers


def _tiny_config(**vision: Any) -> dict[str, Any]:
    quick_gelu = vision.pop('quick_gelu', False)
    sizes = dict(image_size=32, patch_size=8, width=32, head_width=8, layers=3)
    return dict(
        embed_dim=24,
        quick_gelu=quick_gelu,
        vision_cfg=sizes | vision,
        text_cfg=dict(context_length=12, vocab_size=49408, width=16, heads=2, layers=1),
    )


@pytest.fixture(scope='session')
def tiny_config() -> Callable[..., dict[str, Any]]:
    """Make an open_clip model config; keywords go into ``vision_cfg``."""
    return _tiny_config


@pytest.fixture
def tiny_clip() -> Callable[..., torch.nn.Module]:
    """Build an open_clip model with random weights."""

    def build(**vision: Any) -> torch.nn.Module:
        torch.manual_seed(0)
        return load_clip(_tiny_config(**vision)).model

    return build


@pytest.fixture(autouse=True)
def _no_kept_towers() -> Iterator[None]:
    """Tests that write a weights file anew must not get the last one."""
    yield
    release_towers()
