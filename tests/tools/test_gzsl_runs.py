"""Heads in closed form, and every config of the folder, through the tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from zs3_mmseg.utils.checkpoint import safe_load

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/gzsl'
TRAINED = ('eszsl', 'eszsl_attributes', 'sae', 'relation', 'attributes', 'qfsl')
#: Two iterations on enough scenes for every class.
SMALL = [
    *(
        'train_cfg.max_iters=2',
        'train_cfg.val_interval=9',
        'train_dataloader.batch_size=4',
        'default_hooks.checkpoint.interval=1',
    ),
    *('train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False'),
    *('train_dataloader.dataset.dataset.num_images=120', 'randomness.seed=0'),
]


def train(run_tool: Any, name: str, folder: Path, *flags: str, **kwargs: Any) -> Any:
    folder.mkdir(exist_ok=True)
    return run_tool(
        'train.py',
        CONFIGS / f'shapes_{name}.py',
        *('--work-dir', 'run', *flags),
        folder=folder,
        **kwargs,
    )


def state(folder: Path, iteration: int = 2) -> dict[str, Any]:
    return safe_load(folder / f'run/iter_{iteration}.pth')['state_dict']


@pytest.mark.slow
@pytest.mark.parametrize('name', TRAINED)
def test_configs_are_trained(run_tool: Any, tmp_path: Path, name: str) -> None:
    fitted = 'eszsl' in name or name == 'sae'
    options = SMALL + ['custom_hooks.1.num_images=120'] * fitted
    finished = train(run_tool, name, tmp_path, '--cfg-options', *options)
    assert finished.status == 0, finished.output
    before, after = state(tmp_path, 1), state(tmp_path, 2)
    learnt = {
        key
        for key, value in after.items()
        if isinstance(value, torch.Tensor) and not torch.equal(value, before[key])
    }
    assert learnt
    assert all(key.startswith('decode_head.') for key in learnt)
    if fitted:
        assert learnt == {'decode_head.log_scale'}


FIT = ['--cfg-options', *SMALL, 'custom_hooks.1.num_images=120']


def test_a_fit_is_the_same_in_two_processes_and_after_a_resume(
    run_tool: Any, tmp_path: Path
) -> None:
    finished = train(run_tool, 'eszsl', tmp_path / 'one', *FIT)
    assert finished.status == 0, finished.output
    assert 'was fitted on' in finished.output
    weight = state(tmp_path / 'one')['decode_head.weight']
    halves = [*FIT, 'train_dataloader.batch_size=2']
    both = train(run_tool, 'eszsl', tmp_path / 'two', *halves, processes=2)
    assert both.status == 0, both.output
    torch.testing.assert_close(state(tmp_path / 'two')['decode_head.weight'], weight)
    # A run that goes on takes the fit from its checkpoint.
    folder = tmp_path / 'one'
    (folder / 'run/iter_2.pth').unlink()
    resumed = train(run_tool, 'eszsl', folder, '--resume', *FIT)
    assert resumed.status == 0, resumed.output
    assert 'was fitted on' not in resumed.output
    assert torch.equal(state(folder)['decode_head.weight'], weight)


def test_a_fit_needs_a_head_that_has_one(run_tool: Any, tmp_path: Path) -> None:
    (tmp_path / 'other.py').write_text(
        f"_base_ = '{CONFIGS / 'shapes_relation.py'}'\n"
        "custom_hooks = [dict(type='ClosedFormFitHook')]\n"
    )
    options = ['--cfg-options', *SMALL]
    refused = run_tool('train.py', 'other.py', *options, folder=tmp_path)
    assert refused.status == 2
    assert 'RelationHead has none: leave it out of custom_hooks' in refused.output
