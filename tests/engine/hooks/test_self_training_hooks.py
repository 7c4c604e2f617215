"""What the hooks of self-training refuse and average; real runs are in tests/tools."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from zs3_mmseg.engine.hooks import EMATeacherHook, SelfTrainingHook
from zs3_mmseg.engine.protocol import ProtocolError


class Student(nn.Module):
    """What the hooks may know of a segmentor in transductive training."""

    setting = 'transductive'
    understands_unlabelled = True

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.learning = nn.Linear(2, 2)
        self.register_buffer('statistics', torch.zeros(2))
        self.teachers: list[Any] = []

    def set_teacher(self, teacher: Any) -> None:
        self.teachers = [] if teacher is None else [teacher]

    def train_as(self, setting: str) -> None:
        self.trained_as = setting


class Lines(list):
    """A logger."""

    def info(self, line: str) -> None:
        self.append(line)

    def log(self, level: int, line: str) -> None:
        self.append(line)


def runner(model: nn.Module, iteration: int = 0, max_iters: int = 9) -> Any:
    learning = [p for p in model.parameters() if p.requires_grad]
    return SimpleNamespace(
        model=model,
        iter=iteration,
        max_iters=max_iters,
        logger=Lines(),
        optim_wrapper=SimpleNamespace(optimizer=torch.optim.AdamW(learning)),
    )


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: SelfTrainingHook(-1), 'begin must be 0 or more'),
        (lambda: EMATeacherHook(begin=-1), 'begin must be 0 or more'),
        (lambda: EMATeacherHook(momentum=0), 'momentum must be between'),
        (lambda: EMATeacherHook(momentum=1.0), 'momentum must be between'),
    ],
)
def test_arguments_that_mean_nothing(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize('hook', [SelfTrainingHook(3), EMATeacherHook()])
def test_models_without_unlabelled_pixels_are_refused(hook) -> None:
    model = Student()
    model.understands_unlabelled = False
    with pytest.raises(ProtocolError, match=r"model\.setting='transductive'"):
        hook.before_train(runner(model))


def test_self_training_must_begin_before_the_end() -> None:
    with pytest.raises(ProtocolError, match='begin=9 is not before the end'):
        SelfTrainingHook(9).before_train(runner(Student()))


@pytest.mark.parametrize(
    ('begin', 'iteration', 'expected'),
    [(3, 0, 'inductive'), (3, 2, 'inductive'), (3, 3, 'transductive'), (0, 0, None)],
)
def test_a_run_starts_in_the_part_it_is_in(begin, iteration, expected) -> None:
    model = Student()
    SelfTrainingHook(begin).before_train(runner(model, iteration))
    assert model.trained_as == (expected or 'transductive')


def test_the_optimiser_starts_over_once() -> None:
    model, hook = Student(), SelfTrainingHook(3)
    for iteration in range(5):
        run = runner(model, iteration)
        optimizer = run.optim_wrapper.optimizer
        model.learning(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        assert optimizer.state
        hook.before_train_iter(run, iteration)
        assert bool(optimizer.state) == (iteration != 3)


def step(model: Student, hook: EMATeacherHook, iteration: int) -> None:
    run = runner(model, iteration)
    hook.before_train_iter(run, iteration)
    with torch.no_grad():
        for parameter in model.learning.parameters():
            parameter.add_(torch.randn_like(parameter))
    hook.after_train_iter(run, iteration)


def test_the_teacher_is_the_average_of_what_learns() -> None:
    torch.manual_seed(0)
    model, hook = Student(), EMATeacherHook(momentum=0.25, begin=1)
    hook.before_train(runner(model))
    step(model, hook, 0)
    assert not model.teachers
    expected = model.learning.weight.detach().clone()
    for iteration in (1, 2, 3):
        step(model, hook, iteration)
        expected = 0.75 * expected + 0.25 * model.learning.weight.detach()
    (teacher,) = model.teachers
    torch.testing.assert_close(teacher.learning.weight.data, expected)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    # What does not learn is shared, not copied.
    assert teacher.frozen.weight is model.frozen.weight
    assert teacher.statistics is model.statistics


def test_a_resumed_teacher_goes_on_and_a_missing_one_is_told() -> None:
    torch.manual_seed(0)
    model, hook = Student(), EMATeacherHook(momentum=0.25)
    hook.before_train(runner(model))
    for iteration in range(2):
        step(model, hook, iteration)
    checkpoint: dict[str, Any] = {}
    hook.before_save_checkpoint(runner(model, 2), checkpoint)

    resumed = EMATeacherHook(momentum=0.25)
    resumed.after_load_checkpoint(runner(model), checkpoint)
    run = runner(model, 2)
    resumed.before_train(run)
    assert not run.logger
    (teacher,) = model.teachers
    assert not torch.equal(teacher.learning.weight, model.learning.weight)
    for ours, theirs in zip(
        resumed.average.parameters(), hook.average.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)

    EMATeacherHook().before_train(run)
    assert 'holds no teacher' in run.logger[0]
    assert torch.equal(model.teachers[0].learning.weight, model.learning.weight)


def test_weights_of_another_run_bring_no_teacher() -> None:
    """``load_from`` takes weights only."""
    model, hook = Student(), EMATeacherHook()
    hook.after_load_checkpoint(runner(model), {'ema_teacher': {}})
    hook.before_train(runner(model))
    hook.before_train_iter(runner(model), 0)
    assert torch.equal(model.teachers[0].learning.weight, model.learning.weight)
