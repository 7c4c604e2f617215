"""Both stages of transductive training in one run."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from zs3_mmseg.engine.protocol import ProtocolError

from .protocol_check_hook import unwrap


@HOOKS.register_module()
class SelfTrainingHook(Hook):
    """Train inductively up to an iteration, and with pseudo-labels from then on.

    ZegCLIP's recipe (arXiv 2212.03588, section 4) is two runs: an inductive one, and
    self-training that starts from its weights half-way with a new optimiser. This hook
    makes them one. Model and data set have ``setting='transductive'`` throughout:

    - before ``begin`` the model is trained with the seen rows alone, and unlabelled
      pixels are ignored like everything else that is not seen;
    - at ``begin`` the optimiser forgets its moments, and unlabelled pixels get
      pseudo-labels.

    The learning rate of both parts is for ``param_scheduler`` to say, with two
    schedules one after the other. Resuming works at any iteration.

    What differs from two runs: random numbers go on instead of starting over, and a
    ``RandomCrop`` with ``cat_max_ratio`` counts unlabelled pixels as one more class
    in the inductive part, too.

    Args:
        begin: the first iteration of self-training.

    Raises:
        ValueError: if ``begin`` is negative.
        ProtocolError: before training, if the model cannot be trained so, or ``begin``
            is not before its end.
    """

    # Before the hook of a teacher, which copies the model.
    priority = 'ABOVE_NORMAL'

    def __init__(self, begin: int) -> None:
        if begin < 0:
            raise ValueError(f'begin must be 0 or more, got {begin}')
        self.begin = begin

    def before_train(self, runner: Runner) -> None:
        """Check the model, and train by the rules of the present iteration."""
        segmentor = unwrap(runner.model)
        if not getattr(segmentor, 'understands_unlabelled', False):
            raise ProtocolError(
                "SelfTrainingHook needs model.setting='transductive' and a head that "
                f'fills unlabelled pixels, got {type(segmentor).__name__} with setting='
                f'{getattr(segmentor, "setting", None)!r}'
            )
        if self.begin >= runner.max_iters:
            raise ProtocolError(
                f'SelfTrainingHook.begin={self.begin} is not before the end of the '
                f'training, train_cfg.max_iters={runner.max_iters}'
            )
        inductive = runner.iter < self.begin
        segmentor.train_as('inductive' if inductive else 'transductive')

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Begin self-training when its time has come."""
        if runner.iter != self.begin or self.begin == 0:
            return
        unwrap(runner.model).train_as('transductive')
        wrapper = runner.optim_wrapper
        parts = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        for part in parts:
            part.optimizer.state.clear()
        runner.logger.info(
            'Self-training begins: pixels of unseen classes get pseudo-labels, and the '
            'optimiser starts over.'
        )
