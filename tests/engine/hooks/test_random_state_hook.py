"""What the hook says when a resumed run cannot be the same run."""

import logging
from types import SimpleNamespace

import pytest
import torch

from zs3_mmseg.engine.hooks import RandomStateHook
from zs3_mmseg.engine.hooks import random_state_hook as module


def runner_at(iteration: int, *, batch_size: int = 2, seed: int = 5) -> SimpleNamespace:
    sampler = SimpleNamespace(seed=seed, size=7, shuffle=True)
    return SimpleNamespace(
        iter=iteration,
        world_size=1,
        logger=logging.getLogger('hook'),
        train_dataloader=SimpleNamespace(sampler=sampler, batch_size=batch_size),
    )


@pytest.fixture
def checkpoint() -> dict:
    content: dict = {}
    RandomStateHook().before_save_checkpoint(runner_at(4), content)
    return content


def resume(checkpoint: dict, runner: SimpleNamespace) -> RandomStateHook:
    hook = RandomStateHook()
    hook.after_load_checkpoint(runner, checkpoint)
    hook.before_train(runner)
    return hook


def test_restored_once_and_not_before_the_first_iteration(checkpoint, caplog) -> None:
    torch.set_rng_state(checkpoint['random_state']['ranks'][0]['torch'])
    expected = torch.rand(1)
    hook = resume(checkpoint, runner_at(4))
    torch.manual_seed(123)
    hook.before_train_iter(runner_at(4), 0)
    assert torch.equal(torch.rand(1), expected)
    hook.before_train_iter(runner_at(5), 1)
    assert not torch.equal(torch.rand(1), expected)
    assert not caplog.records


def test_weights_alone_bring_no_random_state(checkpoint) -> None:
    hook = resume(checkpoint, runner_at(0))
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    hook.before_train_iter(runner_at(0), 0)
    assert torch.equal(torch.rand(1), expected)


def test_seed_of_the_data_is_taken_over(checkpoint) -> None:
    runner = runner_at(4, seed=99)  # drawn anew, as with randomness = dict(seed=None)
    resume(checkpoint, runner)
    assert runner.train_dataloader.sampler.seed == 5


def test_checkpoint_of_others_is_announced(caplog) -> None:
    resume({}, runner_at(4))
    assert 'holds no random states' in caplog.text


def test_changed_data_is_announced(checkpoint, caplog) -> None:
    resume(checkpoint, runner_at(4, batch_size=3))
    assert 'batch_size (2 -> 3)' in caplog.text


def test_other_number_of_processes_is_announced(
    checkpoint, caplog, monkeypatch
) -> None:
    runner = runner_at(4)
    runner.world_size = 2
    monkeypatch.setattr(module, 'get_dist_info', lambda: (1, 2))
    resume(checkpoint, runner)
    assert 'world_size (1 -> 2)' in caplog.text
    assert 'random states of 1 of 1 processes, this run has 2' in caplog.text


def test_validation_leaves_training_alone() -> None:
    hook = RandomStateHook()
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    hook.before_val_epoch(runner_at(4))
    torch.rand(10)
    hook.after_val_epoch(runner_at(4))
    assert torch.equal(torch.rand(1), expected)
