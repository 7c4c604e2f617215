"""A segmentor with class names in its state, trained by two processes."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
import torch.distributed as dist
from retraining_runs import SPLIT, head

from mmengine.runner import Runner

from zs3_mmseg.engine import SafeRunner

WRAPPER = dict(type='MMDistributedDataParallel', device_ids=None)
CHECK = dict(type='ProtocolCheckHook', num_samples=0)


def train(runner_class: type[Runner], folder: Path, hooks: list[dict]) -> None:
    runner_class(
        model=dict(
            type='ZeroShotEncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor', size=(16, 16)),
            backbone=dict(type='TwoConvolutions'),
            decode_head=head(),
            class_embeddings=None,
            split=SPLIT,
            setting='supervised',
        ),
        work_dir=str(folder),
        train_dataloader=dict(
            batch_size=2,
            dataset=dict(type='StripesDataset'),
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=1),
        log_processor=dict(by_epoch=False),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False)),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        cfg=dict(model_wrapper_cfg=WRAPPER),
        custom_hooks=hooks,
        default_scope='mmseg',
        launcher='pytorch',
    ).train()


def on_rank(
    rank: int, runner_class: type[Runner], folder: Path, hooks: list[dict]
) -> None:
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE='2')
    dist.init_process_group(
        'gloo', init_method=f'file://{folder / "store"}', rank=rank, world_size=2
    )
    try:
        train(runner_class, folder, hooks)
    except (TypeError, ValueError) as error:
        (folder / f'error{rank}').write_text(f'{type(error).__name__}: {error}')
    finally:
        dist.destroy_process_group()


def errors_of(
    runner_class: type[Runner], folder: Path, hooks: list[dict]
) -> list[str | None]:
    """Train for one iteration; return the error of each rank, if there was any."""
    fork = multiprocessing.get_context('fork')
    children = [
        fork.Process(target=on_rank, args=(rank, runner_class, folder, hooks))
        for rank in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        child.kill()
    assert [child.exitcode for child in children] == [0, 0]
    files = [folder / f'error{rank}' for rank in range(2)]
    return [file.read_text() if file.exists() else None for file in files]


def test_the_check_explains_what_a_stock_runner_stops_at(tmp_path: Path) -> None:
    alone, checked = tmp_path / 'alone', tmp_path / 'checked'
    for folder in (alone, checked):
        folder.mkdir()
    for error in errors_of(Runner, alone, []):
        assert error is not None
        # Once mmengine knows what to do here, the check can go.
        assert error.startswith('TypeError: data should be a Tensor'), error
    for error in errors_of(Runner, checked, [CHECK]):
        assert error is not None
        assert error.startswith('ProtocolError: Runner cannot train')
        assert "runner_type='SafeRunner'" in error


@pytest.mark.parametrize('hooks', [[], [CHECK]])
def test_our_runner_trains_it(tmp_path: Path, hooks: list[dict]) -> None:
    assert errors_of(SafeRunner, tmp_path, hooks) == [None, None]
