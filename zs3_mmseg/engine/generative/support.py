"""What a retrained model must and must not have, asked before training begins."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mmengine.model import is_model_wrapper
from mmseg.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss

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
    """Return the decode head to retrain: the last one of a cascade.

    Raises:
        UnsupportedError: if it does not end in one classifier of its own.
    """
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
    """Return the head's cross entropy.

    Raises:
        UnsupportedError: if its loss cannot be weighted by class.
    """
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


def require_plain_run(config: Any, model: nn.Module) -> None:
    """Training must neither compile the model nor checkpoint the head's activations.

    Args:
        config: the runner's config.
        model: the runner's model, wrapped or not.
    """
    if config.get('compile'):
        raise UnsupportedError(
            'compile is set: a compiled training step would leave out the tap at the '
            'classifier, or recompile in each iteration; remove it from the config'
        )
    modules = config.get('activation_checkpointing') or []
    modules = [modules] if isinstance(modules, str) else modules
    heads = [name for name in modules if name.split('.')[0] == 'decode_head']
    if heads:
        raise UnsupportedError(
            f'activation_checkpointing names {heads[0]!r}: the head would generate '
            'features twice, once more in the backward pass; leave the decode head out'
        )
    if not is_model_wrapper(model):
        return
    if not isinstance(model, nn.parallel.DistributedDataParallel):
        raise UnsupportedError(
            f'model_wrapper_cfg {type(model).__name__} is not supported; use '
            'MMDistributedDataParallel'
        )
    if not model.find_unused_parameters or getattr(model, 'static_graph', False):
        raise UnsupportedError(
            'while the classifier alone learns, all other parameters are unused, and '
            'DistributedDataParallel would wait for them: set '
            'find_unused_parameters=True at the top of the config (or in '
            'model_wrapper_cfg), without static_graph'
        )


def require_optimizer(wrapper: Any, conv: nn.Conv2d) -> torch.optim.Optimizer:
    """Return the optimiser of the segmentor, which must have the classifier in it."""
    optimizer = getattr(wrapper, 'optimizer', None)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UnsupportedError(
            f'optim_wrapper {type(wrapper).__name__} is not supported: there must be '
            'one optimiser for the segmentor'
        )
    known = {id(p) for group in optimizer.param_groups for p in group['params']}
    if any(id(parameter) not in known for parameter in conv.parameters()):
        raise UnsupportedError(
            'the optimiser does not have the parameters of decode_head.conv_seg: are '
            'they frozen, or left out by optim_wrapper.paramwise_cfg?'
        )
    return optimizer
