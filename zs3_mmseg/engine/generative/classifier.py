"""The 1 x 1 classifier of a decode head while it is retrained."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmseg.models.losses import CrossEntropyLoss

from .plan import ClassRoles, reset_generator

RESETS = ('unseen', 'all', 'official', 'keep')


@torch.no_grad()
def reset_classifier(conv: nn.Conv2d, how: str, roles: ClassRoles, seed: int) -> None:
    """Start the classifier, or a part of it, anew, in place.

    Args:
        how: ``'unseen'``: the rows of unseen classes from N(0, 0.01), bias 0, as mmseg
            starts a classifier; ``'all'``: every row; ``'official'``: every weight and
            bias from U[0, 1), as ZS3Net's code does; ``'keep'``: nothing.
    """
    if how == 'keep':
        return
    generator = reset_generator(seed)
    weight, bias = torch.empty(conv.weight.shape), torch.zeros(conv.out_channels)
    if how == 'official':
        weight.uniform_(generator=generator)
        bias.uniform_(generator=generator)
    else:
        weight.normal_(std=0.01, generator=generator)
    rows = roles.unseen_mask if how == 'unseen' else torch.ones_like(roles.unseen_mask)
    for parameter, values in ((conv.weight, weight), (conv.bias, bias)):
        if parameter is not None:
            parameter[rows.to(parameter.device)] = values[rows].to(parameter)


def freeze_all_but(model: nn.Module, kept: nn.Module) -> Callable[[], None]:
    """Let gradients reach the parameters of one module only."""
    learning = set(map(id, kept.parameters()))
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(id(parameter) in learning)

    def undo() -> None:
        for parameter, required in before:
            parameter.requires_grad_(required)

    return undo


class ClassWeights:
    """Makes mmseg's cross entropy weigh unseen classes more."""

    def __init__(
        self, criterion: CrossEntropyLoss, roles: ClassRoles, unseen_weight: float
    ) -> None:
        self.criterion = criterion
        self.roles = roles
        self._before = criterion.class_weight
        weights = torch.ones(len(roles.names))
        weights[roles.unseen_mask] = unseen_weight
        if self._before is not None:
            weights *= torch.as_tensor(self._before)
        self.weights = weights

    def apply(self) -> None:
        """Put the weights into the criterion."""
        self.criterion.class_weight = self.weights.tolist()

    def remove(self) -> None:
        """Put back the criterion's own."""
        self.criterion.class_weight = self._before

    def total(self, labels: Tensor) -> Tensor:
        """Return the sum of the weights of all labels that count, a scalar."""
        valid = labels[labels != self.roles.ignore_index]
        return self.weights.to(labels.device)[valid].sum()
