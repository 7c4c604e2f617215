"""From one phase to the next: what learns, how it starts, what stands still."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from mmengine.hooks import EMAHook, Hook

from .classifier import freeze_all_but, reset_classifier
from .retraining import Retraining
from .schedule import Phase
from .state import RunFacts


class PhaseChanges:
    """Brings model, optimiser and averages of a run to its phases.

    Args:
        segmentor: the model, not wrapped.
        optimizer: the segmentor's.
        hooks: of the run; averages of weights are among them.
        retraining: whose phase changes.
        facts: seed and classes of the run.
        reset: how the classifier starts, see
            :func:`~zs3_mmseg.engine.generative.classifier.reset_classifier`.
    """

    def __init__(
        self,
        segmentor: nn.Module,
        optimizer: torch.optim.Optimizer,
        hooks: Iterable[Hook],
        retraining: Retraining,
        facts: RunFacts,
        reset: str,
    ) -> None:
        self.segmentor = segmentor
        self.optimizer = optimizer
        self.averages = [hook for hook in hooks if isinstance(hook, EMAHook)]
        self.retraining = retraining
        self.facts = facts
        self.reset = reset
        self._frozen = False
        handle = optimizer.register_step_pre_hook(self._drop_gradients)
        self._undo: list[Callable[[], None]] = [handle.remove]

    def begin(self, phase: Phase) -> None:
        """Begin a phase; not called where a run is resumed within one."""
        self.enter(phase)
        if phase.trains_classifier:
            conv = self.retraining.head.conv_seg
            reset_classifier(conv, self.reset, self.facts.roles, self.facts.seed)
            for parameter in conv.parameters():
                # Momentum of what the parameter was before.
                self.optimizer.state.pop(parameter, None)
        for hook in self.averages:
            hook.ema_model.module.load_state_dict(hook.src_model.state_dict())

    def enter(self, phase: Phase) -> None:
        """Freeze what does not learn in a phase, and weigh the classes."""
        self.retraining.phase = phase
        if phase is Phase.SEGMENTOR or self._frozen:
            return
        self._frozen = True
        weights = self.retraining.weights
        weights.apply()
        thaw = freeze_all_but(self.segmentor, self.retraining.head.conv_seg)
        self._undo += [weights.remove, thaw]

    def undo(self) -> None:
        """Leave model and optimiser as they were."""
        while self._undo:
            self._undo.pop()()

    def _drop_gradients(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Keep decay and momentum from moving a classifier that does not learn."""
        if self.retraining.training and self.retraining.phase is Phase.GENERATOR:
            for group in optimizer.param_groups:
                for parameter in group['params']:
                    parameter.grad = None
