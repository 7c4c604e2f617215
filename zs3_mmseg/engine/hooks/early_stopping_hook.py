"""Early stopping that leaves testing alone."""

from __future__ import annotations

from mmengine.hooks import EarlyStoppingHook
from mmengine.runner import Runner
from mmseg.registry import HOOKS


@HOOKS.register_module()
class TrainingEarlyStoppingHook(EarlyStoppingHook):
    """``EarlyStoppingHook`` that looks at the training loop in training only.

    mmengine's own asks for that loop before testing as well, and asking builds it: a
    model could not be tested where the training data are not.
    """

    def before_run(self, runner: Runner) -> None:
        """Do nothing yet: this may be a test."""

    def before_train(self, runner: Runner) -> None:
        """Check that the training loop can be stopped."""
        super().before_run(runner)
