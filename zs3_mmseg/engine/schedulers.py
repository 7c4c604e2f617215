"""Schedules of published methods that mmengine's schedulers do not express."""

from __future__ import annotations

from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF, _ParamScheduler
from mmseg.registry import PARAM_SCHEDULERS

from zs3_mmseg.utils.names import choose

__all__ = ['WarmupPolyLR']


@PARAM_SCHEDULERS.register_module()
class WarmupPolyLR(LRSchedulerMixin, _ParamScheduler):
    """Polynomial decay that a linear warm-up is multiplied onto.

    At step ``t`` after ``begin``, with ``T = total_steps`` and ``W = warmup_steps``::

        r(t) = (lr - eta_min) * (1 - t / T) ** power + eta_min
        lr(t) = r(t) * (1 - (1 - t / W) * (1 - warmup_ratio))   while t < W
        lr(t) = r(t)                                            from then on

    and ``eta_min`` after ``T``.

    This is the schedule of mmcv 1.x (``policy='poly', warmup='linear'``), with which
    ZegCLIP and its descendants were trained. mmengine's ``PolyLR`` ends one step
    earlier, and a ``LinearLR`` beside it is chained, not multiplied: each step starts
    from the last value, which gives other numbers. With ``update_interval`` the decay
    moves only every so many steps, as in CaGNet.

    A schedule that is a part of a run (``begin``, ``end``) starts over from the initial
    learning rate, so several may follow each other.

    Args:
        optimizer: optimiser or its wrapper.
        power: exponent of the decay.
        eta_min: the value the decay ends at.
        total_steps: length ``T`` of the decay; None: ``end - begin``.
        warmup_steps: length ``W`` of the warm-up; 0 for none.
        warmup_ratio: factor of the first step, 0..1.
        update_interval: steps between two changes of the decay.
        steps_ahead: added to ``t`` in the decay; 1 for code that counts its iterations
            from 1, as ESDA does, so that the last step has ``eta_min``.
        begin: first step of the schedule.
        end: first step after it; mmengine's runner fills in the length of the run.
        **kwargs: ``last_step``, ``by_epoch`` and ``verbose`` of mmengine's schedulers.

    Raises:
        ValueError: if the lengths make no schedule.
    """

    def __init__(
        self,
        optimizer: Any,
        *,
        power: float = 0.9,
        eta_min: float = 0.0,
        total_steps: int | None = None,
        warmup_steps: int = 0,
        warmup_ratio: float = 0.0,
        update_interval: int = 1,
        steps_ahead: int = 0,
        begin: int = 0,
        end: int = INF,
        **kwargs: Any,
    ) -> None:
        if total_steps is None:
            if end == INF:
                raise ValueError('WarmupPolyLR needs end or total_steps')
            total_steps = end - begin
        if end != INF and total_steps < end - begin:
            raise ValueError(
                f'total_steps={total_steps} ends before end={end}: expected at least '
                f'end - begin = {end - begin}'
            )
        if update_interval < 1 or warmup_steps < 0:
            raise ValueError(
                f'expected update_interval >= 1 and warmup_steps >= 0, got '
                f'{update_interval} and {warmup_steps}'
            )
        choose('steps_ahead', steps_ahead, (0, 1))
        if not 0 <= warmup_ratio <= 1:
            raise ValueError(f'warmup_ratio must be in 0..1, got {warmup_ratio}')
        self.power = power
        self.eta_min = eta_min
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.warmup_ratio = warmup_ratio
        self.update_interval = update_interval
        self.steps_ahead = steps_ahead
        super().__init__(optimizer, begin=begin, end=end, **kwargs)

    def _get_value(self) -> list[float]:
        step = self.last_step
        held = step - step % self.update_interval + self.steps_ahead
        decay = max(1 - held / self.total_steps, 0.0) ** self.power
        warmup = 1.0
        if step < self.warmup_steps:
            warmup = 1 - (1 - step / self.warmup_steps) * (1 - self.warmup_ratio)
        return [
            ((base - self.eta_min) * decay + self.eta_min) * warmup
            for base in self.base_values
        ]
