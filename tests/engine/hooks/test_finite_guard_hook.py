from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mmengine.optim import OptimWrapper
from mmengine.structures import BaseDataElement

from zs3_mmseg.engine.hooks import FiniteGuardHook
from zs3_mmseg.engine.hooks.finite_guard_hook import NotFiniteError


class Run:
    """A training of two parameters that are multiplied by what a batch says."""

    def __init__(self, hook: FiniteGuardHook, accumulative_counts: int = 1) -> None:
        torch.manual_seed(0)
        self.model, self.hook, self.iter = nn.Linear(1, 1), hook, 0
        self.optim_wrapper = OptimWrapper(
            torch.optim.Adam(self.model.parameters(), weight_decay=0.1),
            accumulative_counts=accumulative_counts,
        )
        self.warnings: list[str] = []
        self.logger = SimpleNamespace(warning=self.warnings.append)
        hook.before_train(self)  # type: ignore[arg-type]

    def step(self, value: float, image: str) -> None:
        sample = BaseDataElement(metainfo=dict(img_path=image))
        runner: Any = self
        self.hook.before_train_iter(runner, 0, dict(data_samples=[sample]))
        loss = self.model(torch.full((1, 1), value)).sum()
        self.optim_wrapper.update_params(loss)
        self.hook.after_train_iter(runner, 0, outputs=dict(loss=loss.detach()))
        self.iter += 1

    def state(self) -> list[torch.Tensor]:
        moments = self.optim_wrapper.optimizer.state.values()
        every = [*self.model.parameters()]
        every += [value for part in moments for value in part.values()]
        return [value.clone() for value in every]


def test_the_step_is_not_taken_and_told() -> None:
    run = Run(FiniteGuardHook())
    run.step(1.0, 'good.png')
    before = run.state()
    with pytest.raises(
        NotFiniteError,
        match=r'Iteration 2: the gradient of weight is .*loss nan.* images bad\.png',
    ):
        run.step(float('nan'), 'bad.png')
    assert all(map(torch.equal, before, run.state()))


def test_skipping_leaves_single_steps_out() -> None:
    run, clean = Run(FiniteGuardHook('skip')), Run(FiniteGuardHook())
    for value in (1.0, float('inf'), 2.0):
        run.step(value, 'image.png')
    for value in (1.0, 2.0):
        clean.step(value, 'image.png')
    assert all(map(torch.equal, clean.state(), run.state()))
    assert len(run.warnings) == 1


def test_skipping_for_ever_ends() -> None:
    run = Run(FiniteGuardHook('skip', patience=3))
    run.step(float('nan'), 'image.png')
    run.step(float('nan'), 'image.png')
    with pytest.raises(NotFiniteError, match='No step of the last 3 iterations'):
        run.step(float('nan'), 'image.png')


def test_all_images_of_accumulated_gradients_are_named() -> None:
    run = Run(FiniteGuardHook(), accumulative_counts=2)
    run.step(float('nan'), 'first.png')
    with pytest.raises(NotFiniteError, match=r'first\.png, second\.png'):
        run.step(1.0, 'second.png')


def test_no_checkpoint_of_infinite_weights() -> None:
    run = Run(FiniteGuardHook())
    with torch.no_grad():
        run.model.bias.fill_(float('inf'))
    checkpoint = dict(state_dict=run.model.state_dict())
    with pytest.raises(NotFiniteError, match='the weights bias are'):
        run.hook.before_save_checkpoint(run, checkpoint)  # type: ignore[arg-type]
