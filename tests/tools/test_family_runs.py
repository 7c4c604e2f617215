"""Shapes configs of what came after ZegCLIP through the tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_zegclip_runs import SMALL, merged

from zs3_mmseg.utils.checkpoint import safe_load

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SLOW = pytest.mark.slow


def small(config: str, folder: Path, **changes: Any) -> Path:
    """Write a config of two iterations over a few scenes."""
    lines = merged(SMALL, dict(train_cfg=dict(max_iters=2, val_interval=2), **changes))
    lines['_base_'] = str(CONFIGS / f'{config}.py')
    file = folder / 'config.py'
    file.write_text(''.join(f'{key} = {value!r}\n' for key, value in lines.items()))
    return file


@pytest.mark.parametrize(
    ('config', 'learns'),
    [
        ('tagclip/shapes_tiny', 'decode_head.trust_token'),
        ('guided/shapes_tiny', 'decode_head.upsampler.place'),
        pytest.param(
            'object_centric/shapes_tiny',
            'decode_head.refinement.out.weight',
            marks=SLOW,
        ),
        pytest.param('spt_seg/shapes_tiny', 'backbone.spectral.weight', marks=SLOW),
        pytest.param(
            'clip_rc/shapes_tiny_trained_tokens',
            'backbone.extra_tokens.tokens',
            marks=SLOW,
        ),
    ],
)
def test_it_trains_and_tests(
    config: str, learns: str, run_tool, tmp_path: Path
) -> None:
    file = small(config, tmp_path, default_hooks=dict(checkpoint=dict(interval=1)))
    trained = run_tool('train.py', file, '--work-dir', 'run', folder=tmp_path)
    assert trained.status == 0, trained.output
    first, last = (
        safe_load(tmp_path / f'run/iter_{i}.pth')['state_dict'][learns] for i in (1, 2)
    )
    assert last.isfinite().all()
    assert not torch.equal(first, last)
    arguments = [file, 'run/iter_2.pth', '--work-dir', 'tested']
    tested = run_tool('test.py', *arguments, folder=tmp_path)
    assert tested.status == 0, tested.output
    assert 'hIoU' in json.loads((tmp_path / 'tested/metrics.json').read_text())


@SLOW
def test_the_location_of_unseen_pixels_needs_consent(run_tool, tmp_path: Path) -> None:
    hooks = [dict(type='ProtocolCheckHook')]
    file = small('tagclip/shapes_tiny', tmp_path, custom_hooks=hooks)
    refused = run_tool('train.py', file, '--work-dir', 'run', folder=tmp_path)
    assert refused.status != 0
    assert 'allow_leak=True' in refused.output
