"""From the classifier of some classes to that of all: rows find their place by name."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence

import torch
from torch import Tensor

from zs3_mmseg.datasets.splits import find_name

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

    Args:
        state: the state dict of a checkpoint.
        model_state: the state dict of the model that it is for.
        known: class names of the checkpoint in the order of its rows; None if nobody
            knows them.
        wanted: class names of the model, in order.
        needed: those of them that the checkpoint must know.

    Returns:
        the keys that were changed.

    Raises:
        ValueError: if rows do not fit and nobody knows their names, or names or
            numbers of rows are not what they must be.
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
