"""What a run starts from: weights of a segmentor, and generators of other runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmengine.logging import MMLogger

from zs3_mmseg.datasets.splits import find_name
from zs3_mmseg.utils.checkpoint import CheckpointError, load_into, safe_load

from .plan import ClassRoles
from .retraining import KEY, Retraining, RetrainingOptions

_CLASSIFIERS = ('conv_seg.weight', 'conv_seg.bias')


def expand_classifiers(
    state: MutableMapping[str, Tensor],
    model_state: Mapping[str, Tensor],
    known: Sequence[str] | None,
    wanted: Sequence[str],
    needed: Sequence[str],
) -> list[str]:
    """Move the rows of classifiers to where the model has their classes, in place.

    Rows of classes that the checkpoint does not know are those of the model, as it was
    initialised.
    """
    keys = [
        key
        for key, value in state.items()
        if key.endswith(_CLASSIFIERS)
        and key in model_state
        and len(model_state[key]) == len(wanted)
        and value.shape[1:] == model_state[key].shape[1:]
    ]
    misfits = [key for key in keys if len(state[key]) != len(wanted)]
    if known is None:
        if misfits:
            raise ValueError(
                f'{misfits[0]} of the checkpoint has {len(state[misfits[0]])} rows, '
                f'the model {len(wanted)} classes, and the checkpoint does not tell '
                'the names of its classes: give them, in order, as '
                'GenerativeRetrainingHook.checkpoint_classes'
            )
        return []
    if tuple(known) == tuple(wanted) or not keys:
        return []
    places = _places(known, wanted, needed)
    for key in keys:
        if len(state[key]) != len(known):
            raise ValueError(
                f'{key} of the checkpoint has {len(state[key])} rows, but there are '
                f'{len(known)} names for them: {", ".join(known)}'
            )
        rows = model_state[key].detach().to(state[key]).clone()
        rows[torch.tensor(places)] = state[key]
        state[key] = rows
    return keys


def _places(
    known: Sequence[str], wanted: Sequence[str], needed: Sequence[str]
) -> list[int]:
    """Return the position in the model of each class of the checkpoint."""
    positions = [find_name(name, wanted) for name in known]
    lost = [name for name, place in zip(known, positions, strict=True) if place is None]
    if lost:
        raise ValueError(
            f'the checkpoint has classes that the training data set lacks: '
            f'{", ".join(lost)}; their rows would be lost'
        )
    missing = [name for name in needed if find_name(name, known) is None]
    if missing:
        raise ValueError(
            f'the checkpoint has no classifier rows for the seen classes '
            f'{", ".join(missing)}; it knows {", ".join(known)}'
        )
    return [place for place in positions if place is not None]


#: State dicts of a checkpoint, and what stands before the keys of the model in them.
_PARTS = {'state_dict': '', 'ema_state_dict': 'module.'}


def expand_checkpoint(
    checkpoint: Mapping[str, Any],
    model_state: Mapping[str, Tensor],
    roles: ClassRoles,
    known: Sequence[str] | None = None,
) -> list[str]:
    """Move the rows of a checkpoint's classifiers to their classes, in place."""
    meta = checkpoint.get('meta') or {}
    known = known or (meta.get('dataset_meta') or {}).get('classes')
    seen = [roles.names[label] for label in roles.seen]
    changed: list[str] = []
    for part, prefix in _PARTS.items():
        if part in checkpoint:
            wanted = {f'{prefix}{key}': value for key, value in model_state.items()}
            changed += expand_classifiers(
                checkpoint[part], wanted, known, roles.names, seen
            )
    return changed


def require_classifier(
    checkpoint: Mapping[str, Any], segmentor: nn.Module, conv: nn.Conv2d
) -> None:
    """The seen classes' rows of a classifier must come from the checkpoint."""
    names = {id(module): name for name, module in segmentor.named_modules()}
    key = f'{names[id(conv)]}.weight'
    found = checkpoint.get('state_dict', {}).get(key)
    if found is None or found.shape[1:] != conv.weight.shape[1:]:
        what = 'not there' if found is None else f'of shape {tuple(found.shape)}'
        raise ValueError(
            'GenerativeRetrainingHook: with segmentor_iters=0 and reset_classifier='
            "'unseen' or 'keep' the seen classes' rows of the classifier come from the "
            f'checkpoint, but its {key} is {what}, and the model has '
            f"{tuple(conv.weight.shape)}. Set reset_classifier='all' to learn them "
            'anew, or train the segmentor first (segmentor_iters)'
        )


def load_generators(retraining: Retraining, options: RetrainingOptions) -> None:
    """Let generators start from the files that ``generator_from`` names."""
    graph = retraining.graph
    if options.generator_from is not None:
        _load(retraining.pixels.trainer.generator, options.generator_from, 'generator')
    if graph is not None and options.graph_from is not None:
        _load(graph.trainer.generator, options.graph_from, 'graph')


def _load(generator: nn.Module, path: str, entry: str) -> None:
    """Read weights from a file of their own, or from a checkpoint of a run."""
    where = 'generator_from' if entry == 'generator' else 'graph.generator_from'
    content = safe_load(path)
    if KEY in content:
        state = content[KEY][entry]
        if state is None:
            raise CheckpointError(
                f'GenerativeRetrainingHook.{where}: {path} is of a run without graph '
                'context'
            )
        content = state['weights']
    report = load_into(generator, content, allow_missing=True, what=path)
    if not report.clean:
        raise CheckpointError(
            f'GenerativeRetrainingHook.{where}: {path} does not hold a '
            f'{type(generator).__name__} of this config, whose sizes follow from class '
            f'vectors, conv_seg and the {entry} options: {report}'
        )
    MMLogger.get_current_instance().log(
        logging.INFO, f'GenerativeRetrainingHook: {where}: {path}.'
    )
