"""A training loop in which an iteration is a step of the optimiser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.data import DataLoader

from mmengine.dist import all_reduce, get_world_size
from mmengine.model import detect_anomalous_params
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner
from mmseg.registry import LOOPS

from zs3_mmseg.models.losses.divisors import (
    require_segmentor_divisors,
    segmentor_divisors,
    step_factors,
)
from zs3_mmseg.utils.checkpoint import unwrap
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.names import as_list, choose

__all__ = ['StepTrainLoop']

# Layers that are named where they keep a step from being the same in pieces.
_SHOWN = 3


@LOOPS.register_module()
class StepTrainLoop(IterBasedTrainLoop):
    """Trains as ``IterBasedTrainLoop`` does, by steps of the optimiser.

    A step is made of the ``optim_wrapper.accumulative_counts`` batches that an
    iteration reads, in each process. So ``max_iters``, intervals, schedules, averaged
    weights and checkpoints count steps, however these are cut, and a run is saved and
    resumed between them; in mmengine's own loop they count batches.

    With ``normalise_by='step'`` losses are those of all images of a step together: what
    each is divided by is counted in all its batches, and added up over processes,
    before the first of them runs (``models/losses/divisors.py``). The weights then
    depend on how a step is cut only by rounding. Without accumulation, in one process,
    nothing changes. Outside of that are batch norm in training mode and dropout, which
    are named at the start, pipelines whose draws do not follow from the image
    (``DrawSampler``), and images that are padded to the largest of their batch.

    Values to log are means over the batches of a step and over processes.

    Args:
        runner: the runner.
        dataloader: config of a data loader, or one.
        max_iters: how many steps.
        normalise_by: ``'step'``; or ``'batch'``: the loss of a step is the mean of the
            losses of its batches, as in mmengine and in the official codes.
        options: see ``IterBasedTrainLoop``.

    Raises:
        ConfigError: with ``'step'``, if a head or loss does not say what it is divided
            by, or that depends on what is predicted.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        max_iters: int,
        *,
        normalise_by: Literal['step', 'batch'] = 'step',
        **options: Any,
    ) -> None:
        choose('train_cfg.normalise_by', normalise_by, ('step', 'batch'))
        if runner.cfg.get('compile'):
            raise ConfigError(
                'compile is for the step of a model, and StepTrainLoop takes it apart: '
                "leave it out, or set train_cfg.type='IterBasedTrainLoop'"
            )
        #: How many batches a step has in each process.
        self.batches = _taken_over(runner)
        #: Whether labels are counted before a step. Of one batch there is no need.
        self.counts = normalise_by == 'step' and self.batches * get_world_size() > 1
        if self.counts:
            require_segmentor_divisors(unwrap(runner.model))
        super().__init__(runner, dataloader, max_iters, **options)
        self.dataloader_iterator: Any = _Groups(self.dataloader_iterator, self.batches)

    def run(self) -> nn.Module:
        """Train.

        Raises:
            ConfigError: if parts of the model have optimisers of their own.
        """
        if isinstance(self.runner.optim_wrapper, OptimWrapperDict):
            raise ConfigError(
                'optim_wrapper: StepTrainLoop takes a step with one optimiser: set '
                "train_cfg.type='IterBasedTrainLoop'"
            )
        if self.counts:
            self._tell_what_differs()
        return super().run()

    def run_iter(self, data_batch: Sequence[Any]) -> None:
        """Take a step with several batches."""
        shown = _joined(data_batch)
        self.runner.call_hook(
            'before_train_iter', batch_idx=self._iter, data_batch=shown
        )
        outputs = self._step(data_batch)
        self.runner.call_hook(
            'after_train_iter', batch_idx=self._iter, data_batch=shown, outputs=outputs
        )
        self._iter += 1

    def _step(self, batches: Sequence[Any]) -> dict[str, Tensor]:
        """Take a step; return what is logged of it."""
        model, wrapper = self.runner.model, self.runner.optim_wrapper
        module = unwrap(model)
        ready = [module.data_preprocessor(batch, True) for batch in batches]
        factors: Sequence[Mapping[str, Tensor]] = [{}] * len(ready)
        if self.counts:
            factors = step_factors(
                [segmentor_divisors(module, **batch) for batch in ready]
            )
        logs: list[dict[str, Tensor]] = []
        for number, (batch, own) in enumerate(zip(ready, factors, strict=True), 1):
            last = number == len(ready)
            # Processes exchange gradients once.
            alone = not last and hasattr(model, 'no_sync')
            with model.no_sync() if alone else nullcontext():
                with wrapper.optim_context(model):
                    losses = model(**batch, mode='loss')
                if self.counts:
                    losses = _multiplied(losses, own)
                loss, values = module.parse_losses(losses)
                wrapper.backward(wrapper.scale_loss(loss) / len(ready))
                if getattr(model, 'detect_anomalous_params', False):
                    detect_anomalous_params(loss, model=model)
            logs.append({name: value.detach() for name, value in values.items()})
        wrapper.step()
        wrapper.zero_grad()
        return _means(logs)

    def _tell_what_differs(self) -> None:
        self.runner.model.train()
        found = [
            f'{name} ({type(layer).__name__})'
            for name, layer in unwrap(self.runner.model).named_modules()
            if layer.training and _looks_around(layer)
        ]
        if found:
            self.runner.logger.warning(
                "train_cfg.normalise_by='step': the result still depends on how a step "
                f'is cut into batches by {as_list(found, _SHOWN, str)}.'
            )


def _taken_over(runner: Runner) -> int:
    """Take the number of batches of a step out of the config of the optimiser.

    To mmengine, and to hooks that ask whether there was a step, there is one in each
    iteration then.
    """
    given: Any = runner.optim_wrapper
    if isinstance(given, OptimWrapper):
        count, given._accumulative_counts = given._accumulative_counts, 1
        return count
    rest = dict(given)
    count = rest.pop('accumulative_counts', 1)
    if not isinstance(count, int) or count < 1:
        raise ConfigError(
            f'optim_wrapper.accumulative_counts must be at least 1, not {count!r}'
        )
    runner.optim_wrapper = rest
    return count


class _Groups(Iterator[list[Any]]):
    """Gives the batches of a data loader several at a time."""

    def __init__(self, batches: Any, size: int) -> None:
        self._batches = batches
        self._size = size

    def __next__(self) -> list[Any]:
        return [next(self._batches) for _ in range(self._size)]

    def skip_iter(self, count: int) -> None:
        """Pass over some groups."""
        self._batches.skip_iter(count * self._size)


def _joined(batches: Sequence[Any]) -> Any:
    """Return batches as one for hooks, with the samples themselves."""
    if len(batches) == 1 or not isinstance(batches[0], Mapping):
        return batches[0]
    return {
        key: [part for batch in batches for part in batch[key]] for key in batches[0]
    }


def _multiplied(
    losses: Mapping[str, Tensor], factors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    unknown = [name for name in losses if 'loss' in name and name not in factors]
    if unknown:
        raise ConfigError(
            f'{as_list(unknown, _SHOWN, str)}: it is not known what this loss is '
            "divided by (loss_divisors). Set train_cfg.normalise_by='batch'"
        )
    return {
        name: value * factors[name].to(value) if name in factors else value
        for name, value in losses.items()
    }


def _means(logs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return means of values over batches and processes.

    A value that only some batches have is a mean over these.
    """
    names = [*dict.fromkeys(name for values in logs for name in values)]
    means = torch.stack([_mean(v[n] for v in logs if n in v) for n in names])
    all_reduce(means, 'mean')
    return dict(zip(names, means, strict=True))


def _mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack([value.float() for value in values]).mean()


def _looks_around(layer: nn.Module) -> bool:
    """Tell whether what a layer makes of an image depends on others, or on chance."""
    if isinstance(layer, _BatchNorm):
        return True
    if isinstance(layer, _DropoutNd):
        return layer.p > 0
    # Attention, and the stochastic depth of timm and mmcv.
    return any(
        isinstance(rate := getattr(layer, name, 0), float) and rate > 0
        for name in ('dropout', 'drop_prob')
    )
