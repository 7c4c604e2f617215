"""A generator and the optimiser that it brings along."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmengine.dist import all_reduce, broadcast, get_world_size
from mmseg.registry import OPTIMIZERS

from zs3_mmseg.models.generators import GMMNGenerator, GraphContextGenerator


class GeneratorTrainer:
    """Steps of a generator, which is no part of the segmentor.

    Under several processes the gradients are summed over all of them, which then take
    the same step. How many losses a process has depends on its images, so there is one
    step in each iteration then.

    Args:
        generator: the module to train.
        optimizer: config of its optimiser.
        each_loss: step after each loss, as the official code does, instead of once in
            each iteration with the mean of all losses. In a single process only.

    Raises:
        ValueError: if ``each_loss`` is asked for under several processes.
    """

    def __init__(
        self,
        generator: GMMNGenerator | GraphContextGenerator,
        optimizer: dict,
        *,
        each_loss: bool = False,
    ) -> None:
        if each_loss and get_world_size() > 1:
            raise ValueError(
                "generator_step='class' takes a number of steps that depends on the "
                "images of a process; use generator_step='iteration' with several"
            )
        self.generator = generator.train()
        self.parameters = list(generator.parameters())
        self.optimizer = OPTIMIZERS.build({**optimizer, 'params': self.parameters})
        self.each_loss = each_loss
        self._losses: list[Tensor] = []
        for parameter in self.parameters:
            broadcast(parameter.data)

    def add(self, loss: Tensor) -> None:
        """Take the gradients of a loss, and a step if each loss has one."""
        loss.backward()
        self._losses.append(loss.detach())
        if self.each_loss:
            self._step()

    def finish(self) -> Tensor | None:
        """End an iteration; every process calls this once.

        Returns:
            the mean of the losses of all processes, None if there was no loss.
        """
        losses = torch.stack(self._losses) if self._losses else torch.zeros(0)
        device = self.parameters[0].device
        sums = torch.tensor([float(len(losses)), float(losses.sum())], device=device)
        all_reduce(sums)
        self._losses = []
        count, total = sums
        if not count:
            return None
        if not self.each_loss:
            self._average(count)
            self._step()
        return total / count

    def _average(self, count: Tensor) -> None:
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            all_reduce(parameter.grad)
            parameter.grad /= count

    def _step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the weights and the optimiser's state."""
        return {
            'weights': self.generator.state_dict(),
            'optimizer': self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` returned."""
        self.generator.load_state_dict(state['weights'])
        self.optimizer.load_state_dict(state['optimizer'])
