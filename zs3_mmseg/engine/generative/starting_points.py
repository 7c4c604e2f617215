"""Rows of a checkpoint's classifiers go to their classes by name."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zs3_mmseg.datasets.splits import NameFinder, ZeroShotSplit

_CLASSIFIERS = ('conv_seg.weight', 'conv_seg.bias')


def expand_classifiers(
    state: MutableMapping[str, Tensor],
    model_state: Mapping[str, Tensor],
    known: Sequence[str] | None,
    wanted: Sequence[str],
    needed: Sequence[str],
) -> list[str]:
    """Move the rows of classifiers to where the model has their classes, in place.

    ``known`` are the class names of the checkpoint in the order of its rows, None if
    nobody knows them; ``wanted`` those of the model, and ``needed`` those of them that
    the checkpoint must know. Rows of other classes are those of the model, as it was
    initialised. Returns the keys that were changed.
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
    finder = NameFinder(wanted)
    positions = [finder.find(name) for name in known]
    lost = [name for name, place in zip(known, positions, strict=True) if place is None]
    if lost:
        raise ValueError(
            f'the checkpoint has classes that the training data set lacks: '
            f'{", ".join(lost)}; their rows would be lost'
        )
    finder = NameFinder(known)
    missing = [name for name in needed if finder.find(name) is None]
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
    split: ZeroShotSplit,
    known: Sequence[str] | None = None,
) -> list[str]:
    """Move the rows of a checkpoint's classifiers to their classes, in place.

    ``split`` is that of the model; the checkpoint must know the seen classes. ``known``
    are the class names of the checkpoint, None for those that it has with it. Returns
    the keys that were changed.
    """
    meta = checkpoint.get('meta') or {}
    known = known or (meta.get('dataset_meta') or {}).get('classes')
    changed: list[str] = []
    for part, prefix in _PARTS.items():
        if part in checkpoint:
            wanted = {f'{prefix}{key}': value for key, value in model_state.items()}
            changed += expand_classifiers(
                checkpoint[part], wanted, known, split.classes, split.seen
            )
    return changed


def require_classifier(
    checkpoint: Mapping[str, Any], segmentor: nn.Module, conv: nn.Conv2d
) -> None:
    """The seen classes' rows of a classifier must come from the checkpoint.

    It is what a run without a phase for the segmentor starts from.
    """
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
