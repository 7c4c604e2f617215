"""Early stopping that leaves testing alone and survives an interruption."""

from __future__ import annotations

import math
from typing import Any

from mmengine.hooks import EarlyStoppingHook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

#: The entry of a checkpoint that belongs to this hook.
KEY = 'early_stopping'


@HOOKS.register_module()
class TrainingEarlyStoppingHook(EarlyStoppingHook):
    """``EarlyStoppingHook`` that looks at the training loop in training only.

    mmengine's own asks for that loop before testing as well, and asking builds it: a
    model could not be tested where the training data are not. It also forgets the best
    score when a run is resumed, and takes a score that is as good as the best one for
    an improvement, so that a model that always scores the same is trained to the end.
    """

    _loaded: dict[str, Any] | None = None

    def before_run(self, runner: Runner) -> None:
        """Do nothing yet: this may be a test."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what was counted, in case the run is being resumed."""
        self._loaded = checkpoint.get(KEY)

    def before_train(self, runner: Runner) -> None:
        """Check that the training loop can be stopped, and go on counting."""
        super().before_run(runner)
        loaded, self._loaded = self._loaded, None
        if loaded is not None and runner.iter:  # load_from takes weights only
            self.best_score = loaded['best_score']
            self.wait_count = loaded['wait_count']

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the best score and how long ago it was."""
        checkpoint[KEY] = dict(best_score=self.best_score, wait_count=self.wait_count)

    def _check_stop_condition(self, current_score: float) -> tuple[bool, str]:
        if current_score == self.best_score:
            worse = -math.inf if self.rule == 'greater' else math.inf
            current_score = math.nextafter(current_score, worse)
        return super()._check_stop_condition(current_score)
