"""A tower with two extra tokens of a user's own, through the tools."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from zs3_mmseg.utils.checkpoint import safe_load

CONFIG = Path(__file__).resolve().parents[2] / 'configs/baselines/shapes_tiny_linear.py'
LOADER = dict(num_workers=0, persistent_workers=False)
LINES = dict(
    _base_=str(CONFIG),
    custom_imports=dict(imports=['zs3_mmseg', 'left_and_right']),
    model=dict(
        backbone=dict(
            last_attn='vanilla', extra_tokens=dict(type='LeftAndRight', init='zero')
        )
    ),
    train_dataloader=dict(
        LOADER, batch_size=2, dataset=dict(dataset=dict(num_images=4, workers=1))
    ),
    test_dataloader=dict(LOADER, dataset=dict(dataset=dict(num_images=2, workers=1))),
    val_dataloader=None,
    val_cfg=None,
    val_evaluator=None,
    train_cfg=dict(max_iters=2, val_interval=2),
    default_hooks=dict(checkpoint=dict(interval=2)),
)


def test_it_trains_and_tests_from_a_config(run_tool, tmp_path: Path) -> None:
    config = tmp_path / 'two_tokens.py'
    config.write_text(''.join(f'{key} = {value!r}\n' for key, value in LINES.items()))
    trained = run_tool('train.py', config, '--work-dir', 'run', folder=tmp_path)
    assert trained.status == 0, trained.output
    state = safe_load(tmp_path / 'run/iter_2.pth')['state_dict']
    tokens = state['backbone.extra_tokens.tokens']
    assert tokens.shape[0] == 2
    assert torch.isfinite(tokens).all()
    assert tokens.any()  # they started at zero
    arguments = [config, 'run/iter_2.pth', '--work-dir', 'tested']
    tested = run_tool('test.py', *arguments, folder=tmp_path)
    assert tested.status == 0, tested.output
    assert 'hIoU' in json.loads((tmp_path / 'tested/metrics.json').read_text())
