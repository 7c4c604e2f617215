"""Weights that are cut over two gloo processes, against those of one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from step_runs import (
    CONFIGS,
    build_runner,
    in_processes,
    largest_differences,
    model_of,
    step_of,
    step_on,
)
from torch import nn

from mmengine.config import Config

from zs3_mmseg.engine.runner import SafeRunner
from zs3_mmseg.utils.checkpoint import safe_load
from zs3_mmseg.utils.config_check import ConfigError

SHARDED = Config.fromfile(CONFIGS / 'zegclip/cocostuff_vitl14_sharded.py')
WRAPPER = dict(SHARDED.model_wrapper_cfg)
MODEL = model_of('zegclip/shapes_tiny.py', dropout=0.0)


@pytest.mark.slow
@pytest.mark.parametrize('double', [True, False], ids=['fp64', 'fp32'])
def test_step_of_a_cut_model_is_that_of_one_process(
    tmp_path: Path, double: bool
) -> None:
    wanted = step_of(tmp_path, MODEL, batch_size=4, double=double)
    options = dict(batch_size=1, accumulate=2, double=double, model_wrapper_cfg=WRAPPER)
    for found in step_on(2, tmp_path, MODEL, **options):
        largest = largest_differences(found, wanted)
        assert largest.pop(torch.float64, 0.0) <= 1e-10
        assert largest.get(torch.float32, 0.0) <= 1e-5


def runner_of(folder: Path, **changes: Any) -> SafeRunner:
    """Return a runner of two steps that clips, saves each step, and validates."""
    options: dict[str, Any] = dict(
        batch_size=2,
        train_cfg=dict(type='StepTrainLoop', max_iters=2, val_interval=1),
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=1e-3),
            clip_grad=dict(max_norm=0.1),
        ),
        # Three images: one process has two of them, and another one.
        val_dataloader=dict(
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
            dataset=dict(type='UnevenImages', number=3),
        ),
        val_cfg=dict(type='ValLoop'),
        val_evaluator=dict(type='ZeroShotIoUMetric', split='shapes_a'),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False),
            random_state=dict(type='RandomStateHook'),
        ),
    )
    return build_runner(folder, MODEL, **options | changes)


def trained(folder: Path, **changes: Any) -> None:
    runner_of(folder, **changes).train()


def scores(folder: Path, checkpoint: Path, **changes: Any) -> dict[str, float]:
    return runner_of(folder, load_from=str(checkpoint), **changes).val()


TWO = dict(model_wrapper_cfg=WRAPPER, launcher='pytorch')


@pytest.mark.slow
def test_checkpoints_are_whole_and_resumed_from(tmp_path: Path) -> None:
    one, two, again = (tmp_path / name for name in ('one', 'two', 'again'))
    for folder in (one, two, again):
        folder.mkdir()
    trained(one, batch_size=4)
    in_processes(2, two, partial(trained, two, **TWO))
    # After the first step: Adam makes more of what rounding left of later ones.
    alone, cut = (safe_load(folder / 'iter_1.pth') for folder in (one, two))
    assert cut['state_dict'].keys() == alone['state_dict'].keys()
    for kind in ('exp_avg', 'exp_avg_sq'):
        moments, wanted = (
            {str(n): state[kind] for n, state in c['optimizer']['state'].items()}
            for c in (cut, alone)
        )
        assert max(largest_differences(moments, wanted).values()) < 1e-4
    # Resumed by two processes, bitwise; and read by one.
    resume = dict(load_from=str(two / 'iter_1.pth'), resume=True)
    in_processes(2, again, partial(trained, again, **TWO, **resume))
    cut, repeated = (safe_load(folder / 'iter_2.pth') for folder in (two, again))
    for name, value in cut['state_dict'].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(repeated['state_dict'][name], value), name
    for number, state in cut['optimizer']['state'].items():
        for name, value in state.items():
            assert torch.equal(repeated['optimizer']['state'][number][name], value)
    read = partial(scores, one, two / 'iter_2.pth')
    [wanted] = in_processes(1, one, read)
    for found in in_processes(2, two, partial(read, **TWO)):
        assert found == pytest.approx(wanted, nan_ok=True)


def refused(work: Callable[[], Any]) -> str:
    with pytest.raises(ConfigError) as error:
        work()
    return str(error.value)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(model_wrapper_cfg=dict(WRAPPER, units=['nowhere'])), "'nowhere' fits"),
        (dict(model_wrapper_cfg=dict(type='MMFullyShardedDataParallel')), 'use'),
        (dict(custom_hooks=[dict(type='EMAHook')]), 'EMAHook needs the whole model'),
        (dict(custom_hooks=[dict(type='EMATeacherHook')]), 'EMATeacherHook needs'),
    ],
    ids=['unit', 'wrapper', 'average', 'teacher'],
)
def test_what_cannot_be_cut_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    work = partial(refused, partial(trained, tmp_path, **TWO | changes))
    assert all(message in found for found in in_processes(2, tmp_path, work))


def test_one_process_has_nothing_to_cut(tmp_path: Path) -> None:
    from zs3_mmseg.engine.sharding import ShardedDataParallel

    with pytest.raises(ValueError, match='needs several processes'):
        ShardedDataParallel(nn.Linear(2, 2))
