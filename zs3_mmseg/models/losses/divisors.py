"""What each loss is divided by, so that a batch in pieces can be one batch.

A loss is a sum over pixels, masks or images, divided by how many of them the batch has.
Where an optimiser's step is made of several batches, of processes or accumulated, each
divides by its own number, and the mean of the quotients is not the quotient of the
whole: an image with few labelled pixels counts more, the fewer images stand beside it.

So heads say what they divide by. :func:`step_factors` makes of that, for all pieces of
a step, by what each loss has to be multiplied for the mean over the pieces to be the
loss of all images together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmengine.dist import all_reduce, get_world_size
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.models.segmentors import EncoderDecoder
from mmseg.utils import SampleList, add_prefix

from zs3_mmseg.utils.config_check import ConfigError

__all__ = [
    'Divisor',
    'head_divisors',
    'require_head_divisors',
    'require_segmentor_divisors',
    'segmentor_divisors',
    'step_factors',
    'stock_divisors',
]

#: The method of heads and segmentors that says what their losses are divided by.
METHOD = 'loss_divisors'


def at_least_one(count: Tensor) -> Tensor:
    """Return a count as the losses of this package divide by it."""
    return count.clamp(min=1)


def above_zero(count: Tensor) -> Tensor:
    """Return a count as the losses of mmseg divide by it."""
    return count + torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Divisor:
    """What a loss of one batch is divided by.

    Attributes:
        count: a scalar that adds up over batches, and follows from labels alone.
        of: makes of a count what the loss is divided by.
        over_ranks: whether the loss takes the mean count of all processes, not its own.
    """

    count: Tensor
    of: Callable[[Tensor], Tensor] = at_least_one
    over_ranks: bool = False


def step_factors(pieces: Sequence[Mapping[str, Divisor]]) -> list[dict[str, Tensor]]:
    r"""Return the factors of the losses of each piece of a step, by their names.

    With the divisor :math:`d_i` of a loss in piece :math:`i` of :math:`P`, in all
    processes, and that of all pieces together, :math:`D`, the factor is
    :math:`P d_i / D`: the mean over pieces, which is what accumulation and
    DistributedDataParallel take, is then the loss of all images divided by :math:`D`.
    Of a single piece it is 1.

    All processes call this at once; counts are added up in one operation.

    Args:
        pieces: the divisors of this process's pieces; all processes have as many.
    """
    names = [*pieces[0]]
    counts = torch.stack([piece[name].count for piece in pieces for name in names])
    own = counts.to(_exact(counts.device)).view(len(pieces), len(names))
    everywhere = own.clone()
    all_reduce(everywhere)
    ranks = get_world_size()
    factors = []
    for mine, all_ranks, piece in zip(own, everywhere, pieces, strict=True):
        found = {}
        for place, name in enumerate(names):
            divisor = piece[name]
            count = all_ranks[place] / ranks if divisor.over_ranks else mine[place]
            whole = divisor.of(everywhere[:, place].sum())
            found[name] = divisor.of(count) / (whole / (ranks * len(pieces)))
        factors.append(found)
    return factors


def _exact(device: torch.device) -> torch.dtype:
    """Return what counts are added up in: float32 ends at 16 million pixels."""
    return torch.float32 if device.type == 'mps' else torch.float64


def segmentor_divisors(
    segmentor: Any, inputs: Tensor, data_samples: SampleList
) -> dict[str, Divisor]:
    """Return what the losses of a segmentor are divided by, by their names.

    A segmentor with ``loss_divisors`` says it itself; for mmseg's, the heads do.
    """
    if hasattr(segmentor, METHOD):
        return segmentor.loss_divisors(inputs, data_samples)
    found: dict[str, Divisor] = {}
    for _, prefix, head in _heads(segmentor):
        found |= add_prefix(head_divisors(head, data_samples), prefix)
    return found


def head_divisors(head: Any, data_samples: SampleList) -> dict[str, Divisor]:
    """Return what the losses of a head are divided by, by their names.

    A head with ``loss_divisors`` says it itself; mmseg's have cross-entropies.
    """
    if hasattr(head, METHOD):
        return head.loss_divisors(data_samples)
    return stock_divisors(head, data_samples)


def stock_divisors(
    head: BaseDecodeHead, data_samples: SampleList
) -> dict[str, Divisor]:
    """Return what the cross-entropies of one of mmseg's heads are divided by."""
    labels = torch.stack([sample.gt_sem_seg.data for sample in data_samples])
    valid = labels != head.ignore_index
    found = {'acc_seg': Divisor(valid.sum(), above_zero)}
    for loss in _criteria(head):
        if loss.class_weight is not None:
            weights = torch.tensor(loss.class_weight, dtype=_exact(labels.device))
            count = weights.to(labels.device)[labels[valid]].sum()
        elif loss.avg_non_ignore:
            count = valid.sum()
        else:
            count = torch.tensor(labels.numel(), device=labels.device)
        found[loss.loss_name] = Divisor(count, above_zero)
    return found


def require_segmentor_divisors(segmentor: Any) -> None:
    """Check that it is known what all losses of a segmentor are divided by.

    Raises:
        ConfigError: naming the part of which it is not.
    """
    kind = type(segmentor)
    if hasattr(segmentor, METHOD) and _says(kind, 'loss', 'train_step'):
        segmentor.require_divisors()
        return
    if kind.loss is not EncoderDecoder.loss or (
        kind.train_step is not EncoderDecoder.train_step
    ):
        raise ConfigError(f'model.type: {kind.__name__} {_UNKNOWN}')
    for place, _, head in _heads(segmentor):
        require_head_divisors(place, head)


def require_head_divisors(place: str, head: Any) -> None:
    """Check one head, ``model.{place}``, see :func:`require_segmentor_divisors`."""
    kind = type(head)
    if _says(kind, 'loss', 'loss_by_feat'):
        return
    plain = all(
        getattr(kind, method, None) is getattr(BaseDecodeHead, method)
        for method in ('loss', 'loss_by_feat')
    )
    if not plain:
        raise ConfigError(f'model.{place}.type: {kind.__name__} {_UNKNOWN}')
    if head.sampler is not None:
        raise ConfigError(
            f'model.{place}.sampler: {type(head.sampler).__name__} chooses pixels by '
            f'what is predicted. {_INSTEAD}'
        )
    criteria = _criteria(head)
    for loss in criteria:
        name = type(loss).__name__
        softmax = isinstance(loss, CrossEntropyLoss) and not (
            loss.use_sigmoid or loss.use_mask
        )
        if not softmax or loss.reduction != 'mean':
            raise ConfigError(f'model.{place}.loss_decode: {name} {_UNKNOWN}')
    if len({loss.loss_name for loss in criteria}) < len(criteria):
        raise ConfigError(
            f'model.{place}.loss_decode: two losses are added up as '
            f'{criteria[0].loss_name!r}. Give each its own loss_name'
        )


_INSTEAD = "Set train_cfg.normalise_by='batch'"
_UNKNOWN = (
    'does not say what its losses are divided by (loss_divisors), so they cannot be '
    f'those of a whole step. {_INSTEAD}'
)


def _says(kind: type, *methods: str) -> bool:
    """Tell whether a class overrides none of the methods below its divisors."""
    for parent in kind.__mro__:
        if METHOD in vars(parent):
            return True
        if vars(parent).keys() & {*methods}:
            return False
    return False


def _heads(segmentor: EncoderDecoder) -> list[tuple[str, str, Any]]:
    """Return place, prefix of the losses and head of all heads of mmseg's segmentor."""
    found = [('decode_head', 'decode', segmentor.decode_head)]
    auxiliary = getattr(segmentor, 'auxiliary_head', None)
    if isinstance(auxiliary, nn.ModuleList):
        found += [
            (f'auxiliary_head[{index}]', f'aux_{index}', head)
            for index, head in enumerate(auxiliary)
        ]
    elif auxiliary is not None:
        found.append(('auxiliary_head', 'aux', auxiliary))
    return found


def _criteria(head: BaseDecodeHead) -> list[Any]:
    losses = head.loss_decode
    return [*losses] if isinstance(losses, nn.ModuleList) else [losses]
