"""What a run starts from: weights of a segmentor, and generators of other runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mmengine.logging import MMLogger

from zs3_mmseg.utils.checkpoint import CheckpointError, load_into, safe_load

from .expansion import expand_classifiers
from .options import RetrainingOptions
from .retraining import Retraining
from .roles import ClassRoles
from .state import KEY

#: State dicts of a checkpoint, and what stands before the keys of the model in them.
_PARTS = {'state_dict': '', 'ema_state_dict': 'module.'}


def expand_checkpoint(
    checkpoint: Mapping[str, Any],
    model_state: Mapping[str, Tensor],
    roles: ClassRoles,
    known: Sequence[str] | None = None,
) -> list[str]:
    """Move the rows of a checkpoint's classifiers to their classes, in place.

    Args:
        checkpoint: as read from a file.
        model_state: state dict of the model that it goes into.
        roles: the classes of that model. The checkpoint must know the seen ones.
        known: class names of the checkpoint; None: those that it has with it.

    Returns:
        the keys that were changed.

    Raises:
        ValueError: if rows and names do not fit, see :func:`expand_classifiers`.
    """
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
    """The seen classes' rows of a classifier must come from the checkpoint.

    Args:
        checkpoint: what a run without a phase for the segmentor starts from.
        segmentor: the model that it goes into.
        conv: its classifier.

    Raises:
        ValueError: if the checkpoint has none, or one of other features.
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


def load_generators(retraining: Retraining, options: RetrainingOptions) -> None:
    """Let generators start from the files that ``generator_from`` names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a file holds no generator, or one of another kind or size.
    """
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
