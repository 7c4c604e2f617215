"""The 1 x 1 classifier of a decode head while it is retrained."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mmengine.dist import all_reduce, get_world_size
from mmseg.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.structures import SegDataSample

from zs3_mmseg.datasets.splits import ZeroShotSplit
from zs3_mmseg.models.losses.divisors import Divisor, stock_divisors
from zs3_mmseg.models.segmentors.encoder_decoder import with_labels

from .plan import reset_generator

# Heads of mmseg whose classifier is not the only one, and what they are known as.
_REFUSED_HEADS = {
    'IterativeDecodeHead': 'K-Net turns the classifier into kernels that it updates',
    'DAHead': 'DANet has two classifiers more',
    'EncHead': 'EncNet has a second classifier, of whole images',
    'PIDHead': 'PIDNet has classifiers of its other branches',
    'DDRHead': 'DDRNet has a second classifier',
}
_HINT = (
    'GenerativeRetrainingHook retrains heads that end in one conv_seg with one '
    'CrossEntropyLoss, e.g. FCNHead, ASPPHead, UPerHead or SegformerHead'
)


class UnsupportedError(ValueError):
    """A part of the config that retraining with generated features cannot work with."""


def find_head(segmentor: nn.Module) -> BaseDecodeHead:
    """Return the decode head to retrain: the last one of a cascade."""
    head = getattr(segmentor, 'decode_head', None)
    if isinstance(head, nn.ModuleList):
        head = head[-1]
    name = type(head).__name__
    for kind in type(head).__mro__:
        if kind.__name__ in _REFUSED_HEADS:
            reason = _REFUSED_HEADS[kind.__name__]
            raise UnsupportedError(f'model.decode_head {name}: {reason}. {_HINT}')
    conv = getattr(head, 'conv_seg', None)
    if not isinstance(head, BaseDecodeHead) or not isinstance(conv, nn.Conv2d):
        raise UnsupportedError(f'model.decode_head {name} has no conv_seg. {_HINT}')
    if conv.kernel_size != (1, 1) or conv.groups != 1:
        raise UnsupportedError(
            f'model.decode_head {name}: conv_seg is no 1 x 1 convolution: {conv}'
        )
    own_loss = type(head).loss_by_feat is not BaseDecodeHead.loss_by_feat
    ways = (BaseDecodeHead.loss, BaseCascadeDecodeHead.loss)
    if own_loss or type(head).loss not in ways:
        raise UnsupportedError(
            f'model.decode_head {name} computes a loss of its own. {_HINT}'
        )
    return head


def require_classes(head: BaseDecodeHead, names: tuple[str, ...]) -> None:
    """The head must have one output for each class of the data set."""
    outputs = head.conv_seg.out_channels
    if outputs != len(names):
        raise UnsupportedError(
            f'model.decode_head has {outputs} outputs, but the training data set has '
            f'{len(names)} classes, seen and unseen; set num_classes={len(names)}. '
            'A checkpoint of the seen classes alone is expanded on loading'
        )


def find_criterion(head: BaseDecodeHead) -> CrossEntropyLoss:
    """Return the head's cross entropy, which must take weights of classes."""
    if head.sampler is not None:
        raise UnsupportedError(
            f'model.decode_head.sampler {type(head.sampler).__name__}: OHEM would '
            f'choose among generated pixels. Remove it. {_HINT}'
        )
    losses = head.loss_decode
    several = list(losses) if isinstance(losses, nn.ModuleList) else [losses]
    for criterion in several:
        name = type(criterion).__name__
        if not isinstance(criterion, CrossEntropyLoss):
            raise UnsupportedError(
                f'model.decode_head.loss_decode {name} takes no weights of classes as '
                f'a cross entropy does. {_HINT}'
            )
        if criterion.use_sigmoid or criterion.use_mask:
            raise UnsupportedError(
                f'model.decode_head.loss_decode {name} must be the softmax one, '
                'without use_sigmoid and use_mask'
            )
        if criterion.avg_non_ignore:
            raise UnsupportedError(
                'model.decode_head.loss_decode.avg_non_ignore=True fails with weights '
                'of classes as soon as pixels are ignored (an IndexError in mmseg); '
                'set it to False: with weights, ignored pixels do not count anyway'
            )
        if criterion.reduction != 'mean':
            raise UnsupportedError(
                "model.decode_head.loss_decode.reduction must be 'mean', not "
                f'{criterion.reduction!r}'
            )
    if len(several) > 1:
        raise UnsupportedError('model.decode_head.loss_decode must be one loss')
    return several[0]


class TapUser(Protocol):
    """What looks at, and replaces, things on their way through a decode head."""

    def active(self) -> bool:
        """Tell whether the tap does anything in this call of ``head.loss``."""

    def relabel(self, labels: Tensor) -> Tensor:
        """Return the labels to train with, for those of the batch, ``(N, H, W)``."""

    def replace(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the input of the classifier, for the real one, ``(N, F, h, w)``."""

    def complete(self, losses: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Return the losses of the head, for those that it computed itself."""


class ClassifierTap:
    """Wraps ``head.loss`` and the input of ``head.conv_seg`` of a decode head.

    A loop that counts labels before it trains asks ``head.loss_divisors`` for each
    batch of a step first, and gets those of the labels that the losses will read.

    Only calls of ``head.loss`` are touched, so prediction never is. The head keeps its
    own loss, and the runner its own step: mixed precision, clipping, accumulation and
    logging work as ever.
    """

    def __init__(self, head: BaseDecodeHead, user: TapUser) -> None:
        self.head = head
        self.user = user
        self._handle: RemovableHandle | None = None
        self._labels: Tensor | None = None
        self._passes = 0
        #: Labels of batches that were counted and will be trained on, in that order.
        self._counted: deque[Tensor] = deque()

    def install(self) -> None:
        """Put the tap in."""
        self._loss = self.head.loss
        # On the instance: a class's own method stays what it is.
        self.head.loss = self._tapped_loss
        self.head.loss_divisors = self._tapped_divisors
        self._handle = self.head.conv_seg.register_forward_pre_hook(self._before)

    def remove(self) -> None:
        """Take the tap out; the head is then as it was."""
        if self._handle is None:
            return
        self._handle.remove()
        self._handle = None
        del self.head.loss, self.head.loss_divisors

    def _tapped_divisors(self, samples: list[SegDataSample]) -> dict[str, Divisor]:
        if self.user.active():
            self._counted.append(self.user.relabel(_stacked(samples)))
            samples = with_labels(samples, self._counted[-1])
        return stock_divisors(self.head, samples)

    def _tapped_loss(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        if not self.user.active():
            return self._loss(*args, **kwargs)
        samples = _find_samples(args, kwargs)
        batch = _stacked(samples)
        known = self._counted
        labels = known.popleft() if known else self.user.relabel(batch)
        if labels is not batch:
            changed = with_labels(samples, labels)
            args = tuple(changed if arg is samples else arg for arg in args)
            kwargs = {k: changed if v is samples else v for k, v in kwargs.items()}
        self._labels, self._passes = labels, 0
        try:
            losses = self._loss(*args, **kwargs)
        finally:
            self._labels = None
        if self._passes != 1:
            raise RuntimeError(
                f'{type(self.head).__name__} used conv_seg {self._passes} times to '
                'compute its loss; GenerativeRetrainingHook needs it to be used once'
            )
        return self.user.complete(losses, labels)

    def _before(self, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        if self._labels is None:
            return None
        self._passes += 1
        return (self.user.replace(inputs[0], self._labels),)


def _stacked(samples: Sequence[SegDataSample]) -> Tensor:
    """Return the labels of samples, ``(N, H, W)``."""
    return torch.stack([sample.gt_sem_seg.data[0] for sample in samples])


def _find_samples(args: Sequence[Any], kwargs: dict[str, Any]) -> list[SegDataSample]:
    for value in (*args, *kwargs.values()):
        if isinstance(value, list) and value and isinstance(value[0], SegDataSample):
            return value
    raise RuntimeError('the decode head was asked for its loss without data samples')


RESETS = ('unseen', 'all', 'official', 'keep')


@torch.no_grad()
def reset_classifier(
    conv: nn.Conv2d, how: str, split: ZeroShotSplit, seed: int
) -> None:
    """Start the classifier, or a part of it, anew, in place.

    ``'unseen'``: the rows of unseen classes from N(0, 0.01), bias 0, as mmseg starts a
    classifier; ``'all'``: every row; ``'official'``: every weight and bias from
    U[0, 1), as ZS3Net's code does; ``'keep'``: nothing.
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
    labels = split.unseen_indices if how == 'unseen' else range(conv.out_channels)
    rows = torch.tensor(labels)
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
    """Makes mmseg's cross entropy weigh unseen classes more; seen ones have 1.

    Weights that the criterion has already are multiplied.
    """

    def __init__(
        self,
        criterion: CrossEntropyLoss,
        split: ZeroShotSplit,
        unseen_weight: float,
        ignore_index: int,
    ) -> None:
        self.criterion = criterion
        self.ignore_index = ignore_index
        self._before = criterion.class_weight
        #: ``(K,)`` on the CPU.
        self.weights = torch.ones(len(split.classes))
        self.weights[list(split.unseen_indices)] = unseen_weight
        if self._before is not None:
            self.weights *= torch.as_tensor(self._before)

    def apply(self) -> None:
        """Put the weights into the criterion."""
        self.criterion.class_weight = self.weights.tolist()

    def remove(self) -> None:
        """Put back the criterion's own."""
        self.criterion.class_weight = self._before

    def total(self, labels: Tensor) -> Tensor:
        """Return the sum of the weights of all labels that count, a scalar."""
        valid = labels[labels != self.ignore_index]
        return self.weights.to(labels.device)[valid].sum()


def share_of_processes(weight: Tensor) -> Tensor | float:
    """Turn a mean over this process into its part of the mean over all processes.

    Each process divides by the weights of its own pixels, and DistributedDataParallel
    averages gradients, whatever those weights are.
    """
    if get_world_size() == 1:
        return 1.0
    total = weight.clone()
    all_reduce(total)
    return weight * get_world_size() / total.clamp_min(torch.finfo(total.dtype).tiny)
