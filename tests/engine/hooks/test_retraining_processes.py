"""Two processes end where one process with their whole batch ends."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from retraining_runs import build_runner, checkpoint_of, retraining, tensors_of

DDP = dict(
    type='MMDistributedDataParallel',
    device_ids=None,
    broadcast_buffers=False,
    find_unused_parameters=True,
)


def train(folder: Path, batch_size: int, hook: dict, **changes: object) -> None:
    build_runner(folder, hook=hook, batch_size=batch_size, **changes).train()


def on_rank(rank: int, folder: Path, hook: dict, wrapper: dict) -> None:
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE='2')
    dist.init_process_group(
        'gloo', init_method=f'file://{folder / "store"}', rank=rank, world_size=2
    )
    try:
        train(folder, 2, hook, launcher='pytorch', model_wrapper_cfg=wrapper)
    except Exception as error:
        (folder / f'error{rank}').write_text(str(error))
        raise
    finally:
        dist.destroy_process_group()


def train_on_two(folder: Path, hook: dict, wrapper: dict = DDP) -> list[int | None]:
    fork = multiprocessing.get_context('fork')
    arguments = folder, hook, wrapper
    children = [
        fork.Process(target=on_rank, args=(rank, *arguments)) for rank in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        child.kill()
    return [child.exitcode for child in children]


# With zero segmentor_iters batch norm is frozen from the beginning. Dropout of the
# generators stays on: its masks follow from the sample, not from the process.
@pytest.mark.parametrize('generator_iters', [None, 6])
def test_two_processes_equal_one(tmp_path: Path, generator_iters: int | None) -> None:
    folders = [tmp_path / name for name in ('one', 'two')]
    for folder in folders:
        folder.mkdir()
    hooks = [
        retraining(
            folder, segmentor_iters=0, generator_iters=generator_iters, graph=dict()
        )
        for folder in folders
    ]
    train(folders[0], 4, hooks[0])
    assert train_on_two(folders[1], hooks[1]) == [0, 0]
    # Where Adam's moments are tiny, its steps magnify rounding: weights only.
    one, two = (
        {
            key: value
            for key, value in tensors_of(checkpoint_of(folder)).items()
            if 'state_dict' in key or 'weights' in key or 'pixels' in key
        }
        for folder in folders
    )
    assert one.keys() == two.keys()
    assert sum('generative' in key for key in one) == 9
    for key, value in one.items():
        torch.testing.assert_close(
            two[key], value, rtol=1e-3, atol=1e-4, msg=lambda m, key=key: f'{key}: {m}'
        )


@pytest.mark.parametrize(
    ('wrapper', 'changes', 'message'),
    [
        (
            {**DDP, 'find_unused_parameters': False},
            dict(),
            'find_unused_parameters=True',
        ),
        (DDP, dict(generator_step='class'), "generator_step='iteration'"),
    ],
)
def test_what_hangs_is_refused(
    tmp_path: Path, wrapper: dict, changes: dict, message: str
) -> None:
    hook = retraining(tmp_path, **changes)
    assert all(train_on_two(tmp_path, hook, wrapper))
    assert message in (tmp_path / 'error0').read_text()
