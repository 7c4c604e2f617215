"""A training that is asked to stop saves before it does."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mmengine.device import get_device
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmseg.registry import HOOKS

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Iterations after which several processes ask each other, as they stop together.
_ASK_EVERY = 10


@HOOKS.register_module()
class InterruptionHook(Hook):
    """Save a checkpoint after SIGTERM or Ctrl-C, say so in one line, and end.

    That happens when the iteration, or the validation, that is running is over;
    several processes stop after the same iteration, one of every ten. The exit status
    is 128 and the number of the signal. A second signal stops at once. What trains by
    epochs can only be resumed from the end of one, so nothing is saved inside of it.

    ``SafeRunner.train`` registers this hook and lets it listen.
    """

    # The checkpoint of the iteration may have been saved already.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._received = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note signals instead of ending, in the main thread of a process."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        owner = os.getpid()
        # None is a handler that Python has not set.
        before = {n: signal.getsignal(n) or signal.SIG_DFL for n in _SIGNALS}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def note(number: int, frame: Any) -> None:
            if os.getpid() == owner:
                self._received = number
                restore()
            elif number == signal.SIGTERM:
                # A worker of a data loader, which is told to end. To Ctrl-C, which
                # reaches all processes, it need not listen: the owner ends it.
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)

        for number in _SIGNALS:
            signal.signal(number, note)
        try:
            yield
        finally:
            restore()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Save and end, if a signal has come."""
        received = self._received
        if get_world_size() > 1:
            received = self._anyones(runner)
        # Gradients that are being accumulated are in no checkpoint.
        if received and _has_stepped(runner):
            name = signal.Signals(received).name
            runner.logger.warning(
                f'Stopped by {name} after iteration {runner.iter + 1}: {_save(runner)}'
            )
            raise SystemExit(128 + received)

    def _anyones(self, runner: Runner) -> int:
        """Return the signal that any process has got, where all processes ask."""
        if (runner.iter + 1) % _ASK_EVERY:
            return 0
        number = torch.tensor(self._received, device=get_device())
        all_reduce(number, 'max')
        return int(number)


def _has_stepped(runner: Runner) -> bool:
    wrapper = runner.optim_wrapper
    parts = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return all(part.should_update() for part in parts)


def _save(runner: Runner) -> str:
    """Save the present iteration, unless that is done; say from where to go on."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    for hook in hooks:
        if by_epoch or hook.by_epoch:
            continue
        name = hook.filename_tmpl.format(runner.iter + 1)
        if not str(hook.last_ckpt).endswith(name):
            hook._save_checkpoint(runner)
        return f'{hook.last_ckpt} is saved, and --resume goes on from it.'
    last = next((hook.last_ckpt for hook in hooks if hook.last_ckpt), None)
    if last is None:
        return 'nothing is saved to go on from.'
    return f'--resume goes on from {last}, the end of an epoch.'
