"""Both stages of transductive training in one run."""

from __future__ import annotations

import copy
import logging
from typing import Any

from torch import nn

from mmengine.hooks import Hook
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from zs3_mmseg.engine.protocol import ProtocolError
from zs3_mmseg.utils.checkpoint import unwrap

#: The entry of a checkpoint that belongs to this hook.
KEY = 'ema_teacher'


@HOOKS.register_module()
class EMATeacherHook(Hook):
    """Let a moving average of the model give the pseudo-labels (mean teacher).

    ZegCLIP's self-training believes the model in training, dropout included. Here an
    average of its past weights, in evaluation mode, is asked instead
    (arXiv 1703.01780). Only parameters that learn are averaged and saved; a frozen
    tower is shared with the model.

    This is not mmengine's ``EMAHook``: what is tested and saved as the model stays the
    model in training.

    Args:
        momentum: share of the new weights in each step, 0..1.
        begin: the iteration at which the average starts from the weights of then;
            that of :class:`SelfTrainingHook` if both are used.

    Raises:
        ValueError: if ``begin`` is negative or ``momentum`` is out of range.
        ProtocolError: before training, if the model has no use for a teacher.
    """

    #: It keeps a copy of the model.
    needs_whole_model = True

    def __init__(self, momentum: float = 0.001, begin: int = 0) -> None:
        if begin < 0:
            raise ValueError(f'begin must be 0 or more, got {begin}')
        if not 0 < momentum < 1:
            raise ValueError(f'momentum must be between 0 and 1, got {momentum}')
        self.momentum = momentum
        self.begin = begin
        self.average: ExponentialMovingAverage | None = None
        self._loaded: dict[str, Any] | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the average, in case the run is being resumed."""
        self._loaded = checkpoint.get(KEY)

    def before_train(self, runner: Runner) -> None:
        """Check the model, and take up the average of a resumed run."""
        if not getattr(unwrap(runner.model), 'understands_unlabelled', False):
            raise ProtocolError(
                'EMATeacherHook gives pseudo-labels, which only training with '
                "model.setting='transductive' uses: leave it out of custom_hooks"
            )
        loaded, self._loaded = self._loaded, None
        if runner.iter <= self.begin:  # load_from takes weights only
            return
        average = self._start(runner)
        if loaded is not None:
            average.load_state_dict(loaded)
            return
        runner.logger.log(
            logging.WARNING,
            'The checkpoint holds no teacher (written without EMATeacherHook?): its '
            'average starts from the present weights.',
        )

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Start the average at its iteration."""
        if runner.iter == self.begin:
            self._start(runner)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Move the average towards the new weights."""
        if self.average is not None:
            self.average.update_parameters(_learning(unwrap(runner.model)))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the average."""
        if self.average is not None:
            checkpoint[KEY] = self.average.state_dict()

    def _start(self, runner: Runner) -> ExponentialMovingAverage:
        segmentor = unwrap(runner.model)
        segmentor.set_teacher(None)
        learning = _learning(segmentor)
        self.average = ExponentialMovingAverage(learning, self.momentum)
        # The first update of mmengine's average only copies.
        self.average.update_parameters(learning)
        segmentor.set_teacher(_twin(segmentor, learning, self.average.module).eval())
        return self.average


def _learning(model: nn.Module) -> nn.ParameterList:
    return nn.ParameterList(p for p in model.parameters() if p.requires_grad)


def _twin(
    model: nn.Module, learning: nn.ParameterList, averages: nn.ParameterList
) -> nn.Module:
    """Copy a model so that it reads the averages and shares all else that is fixed."""
    shared = [p for p in model.parameters() if not p.requires_grad]
    memo: dict[int, Any] = {id(part): part for part in [*shared, *model.buffers()]}
    memo |= {
        id(part): average for part, average in zip(learning, averages, strict=True)
    }
    return copy.deepcopy(model, memo)


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
