"""Gradients and weights that are no numbers end a training, with their names."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from zs3_mmseg.utils.checkpoint import unwrap
from zs3_mmseg.utils.names import as_list, choose

_SHOWN = 4


class NotFiniteError(ValueError):
    """A training has come to NaN or infinity; the message says where."""


@dataclass(eq=False)
class _Step:
    """An optimiser step: is its gradient finite, and what was it made of?

    ``largest`` is the largest magnitude in the gradient, or more, on the host once
    ``done``.
    """

    iteration: int
    images: list[str]
    largest: Tensor
    done: torch.Event | None = None
    losses: Mapping[str, Any] | None = None

    @property
    def is_known(self) -> bool:
        """Whether ``largest`` can be read without waiting for the device."""
        return self.done is None or self.done.query()


@HOOKS.register_module()
class FiniteGuardHook(Hook):
    """Stop a training whose gradients or weights become NaN or infinite.

    Without it, a training goes on to its end with ``loss: nan``, and saves. The message
    names parameters, losses, images and the iteration.

    The largest magnitude of each step's gradient is computed where it lies. On a CPU it
    is known at once, and a bad step is not taken. An accelerator is not waited for: the
    number arrives some iterations later, and before anything is saved. Steps that mixed
    precision skips are no fault, unless it takes none at all.

    ``SafeRunner.train`` adds this hook where a config has none.

    Args:
        policy: ``'stop'``; or ``'skip'``, which leaves bad steps out and tells of
            them. That must be known before the step, so on an accelerator each
            iteration waits for it.
        patience: so many iterations without a step stop the training, whether
            ``'skip'`` or mixed precision left them out.

    Raises:
        NotFiniteError: in training, see above.
    """

    def __init__(self, policy: str = 'stop', patience: int = 100) -> None:
        self.policy = choose('FiniteGuardHook.policy', policy, ('stop', 'skip'))
        if patience < 1:
            raise ValueError(f'FiniteGuardHook.patience must be > 0, got {patience}')
        self.patience = patience
        self._names: dict[int, str] = {}
        self._handles: list[Any] = []
        self._images: list[str] = []
        self._iteration = self._idle = 0
        self._pending: deque[_Step] = deque()
        self._left_out: tuple[_Step, str] | None = None

    def before_train(self, runner: Runner) -> None:
        """Watch the steps of all optimisers."""
        model = unwrap(runner.model)
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._handles = [
            part.optimizer.register_step_pre_hook(self._before_step)
            for part in _wrappers(runner)
        ]

    def after_train(self, runner: Runner) -> None:
        """Look at the last steps."""
        self._look(wait=True)
        for handle in self._handles:
            handle.remove()

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Note which images the next step is made of."""
        self._iteration = runner.iter + 1
        self._images += _image_ids(data_batch)
        self._idle += 1

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        # Fused optimisers are asked to step in any case, and told by this not to.
        if getattr(optimizer, 'found_inf', None) is not None:
            self._idle, self._images = 0, []
            return
        parameters = [p for g in optimizer.param_groups for p in g['params']]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return
        largest = _largest(gradients)
        step = _Step(self._iteration, self._images, largest)
        if largest.device.type != 'cpu' and self.policy == 'stop':
            step.largest = largest.to('cpu', non_blocking=True)
            step.done = torch.Event(largest.device)
            step.done.record()
            self._pending.append(step)
        elif not largest.isfinite():
            self._left_out = step, self._bad_gradients(parameters)
            for parameter in parameters:
                parameter.grad = None  # which optimisers pass over
            return
        self._idle, self._images = 0, []

    def _bad_gradients(self, parameters: list[nn.Parameter]) -> str:
        names = [
            self._names.get(id(p), 'a parameter outside of the model')
            for p in parameters
            if p.grad is not None and not p.grad.isfinite().all()
        ]
        return f'the gradient of {as_list(names, _SHOWN, str)}'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Tell of a step that was left out, and of those that are known by now."""
        if self._left_out is not None:
            (step, what), self._left_out = self._left_out, None
            step.losses = outputs
            self._images = []
            if self.policy == 'stop':
                raise NotFiniteError(_message(step, what))
            runner.logger.warning(f'{_message(step, what)} The step is left out.')
        elif self._pending and self._pending[-1].losses is None:
            self._pending[-1].losses = outputs
        self._look(wait=False)
        if self._idle >= self.patience and self._should_have_stepped(runner):
            raise NotFiniteError(
                f'No step of the last {self._idle} iterations could be taken: their '
                'gradients were NaN or infinite. A lower learning rate or '
                'optim_wrapper.clip_grad may help.'
            )

    def _should_have_stepped(self, runner: Runner) -> bool:
        scaled = any(isinstance(part, AmpOptimWrapper) for part in _wrappers(runner))
        counts = [getattr(p, '_accumulative_counts', 1) for p in _wrappers(runner)]
        return (scaled or self.policy == 'skip') and self._idle > max(counts)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Let no checkpoint hold what is not finite."""
        self._look(wait=True)
        state = checkpoint['state_dict']
        learnt = {n for n, p in unwrap(runner.model).named_parameters() if n in state}
        bad = [name for name in learnt if not state[name].isfinite().all()]
        if bad:
            raise NotFiniteError(
                f'Nothing is saved: after iteration {runner.iter} the weights '
                f'{as_list(sorted(bad), _SHOWN, str)} are NaN or infinite.'
            )

    def _look(self, *, wait: bool) -> None:
        while self._pending:
            step = self._pending[0]
            if not step.is_known:
                if not wait:
                    return
                assert step.done is not None  # else it would be known
                step.done.synchronize()
            self._pending.popleft()
            if not step.largest.isfinite():
                raise NotFiniteError(_message(step, 'a gradient'))


def _largest(gradients: list[Tensor]) -> Tensor:
    """Return the largest magnitude; of gradients that are cut, a bound above it."""
    if not any(isinstance(gradient, DTensor) for gradient in gradients):
        return get_total_norm(gradients, float('inf'))
    shares = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
    own = [share for share in shares if share.numel()]
    largest = get_total_norm(own, float('inf')) if own else shares[0].new_zeros(())
    all_reduce(largest)  # a sum, in which NaN stays: of maxima not every backend's does
    return largest


def _wrappers(runner: Runner) -> list[Any]:
    wrapper = runner.optim_wrapper
    return [*wrapper.values()] if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def _image_ids(data_batch: Any) -> list[str]:
    samples = data_batch.get('data_samples') if isinstance(data_batch, Mapping) else ()
    metas = [getattr(sample, 'metainfo', {}) for sample in samples or ()]
    return [str(m.get('img_path', m.get('sample_idx', '?'))) for m in metas]


def _message(step: _Step, what: str) -> str:
    text = f'Iteration {step.iteration}: {what} is NaN or infinite'
    losses = {
        name: float(value)
        for name, value in (step.losses or {}).items()
        if isinstance(value, (int, float, Tensor)) and torch.as_tensor(value).ndim == 0
    }
    shown = [f'{name} {value:.4g}' for name, value in losses.items() if 'loss' in name]
    if shown:
        text += f' (with {", ".join(shown)})'
    if step.images:
        text += f', for the images {as_list(step.images, _SHOWN, str)}'
    return (
        f'{text}. A lower learning rate or optim_wrapper.clip_grad may help; '
        "FiniteGuardHook(policy='skip') leaves single steps out."
    )
