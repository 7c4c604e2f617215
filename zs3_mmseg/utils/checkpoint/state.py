"""Putting a state dict into a model, and saying what did not fit."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper

from .reading import CheckpointError

_LISTED = 12
# What torch calls the state of a module that is no tensor, here a segmentor's classes.
_EXTRA_STATE = '_extra_state'


@dataclass(frozen=True)
class LoadReport:
    """How a state dict and a model fit.

    Attributes:
        loaded: keys that were copied into the model.
        missing: keys of the model that the state dict lacks.
        unexpected: keys of the state dict that the model lacks.
        mismatched: ``key: shape in the file, shape in the model``; not copied.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether every key on both sides found its partner."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [f'{len(self.loaded)} entries loaded']
        for title, keys in (
            ('missing in the file', self.missing),
            ('unknown to the model', self.unexpected),
            ('of another shape', self.mismatched),
        ):
            if keys:
                more = len(keys) - _LISTED
                listed = ', '.join(keys[:_LISTED]) + (f', and {more} more' * (more > 0))
                lines.append(f'{len(keys)} {title}: {listed}')
        return '\n  '.join(lines)


def state_dict_of(checkpoint: Mapping, what: str = 'the checkpoint') -> OrderedDict:
    """Return the state dict of a checkpoint, without the prefix of parallel wrappers.

    Args:
        checkpoint: a dict with ``state_dict`` in it, or a state dict itself.
        what: how messages call it, e.g. the file.

    Raises:
        CheckpointError: if there is no state dict in it.
    """
    state = checkpoint.get('state_dict', checkpoint)
    if not isinstance(state, Mapping) or not any(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise CheckpointError(
            f'{what} holds no weights: expected a state dict, or one under '
            f"'state_dict', and found the keys {list(checkpoint)[:_LISTED]}"
        )
    return rename_keys(state, r'^module\.', '')


def rename_keys(state: Mapping, pattern: str, replacement: str) -> OrderedDict:
    """Return a state dict with ``re.sub(pattern, replacement, key)`` as keys."""
    renamed = OrderedDict(
        (re.sub(pattern, replacement, key), value) for key, value in state.items()
    )
    _copy_metadata(state, renamed)
    return renamed


def _copy_metadata(source: Mapping, target: OrderedDict) -> None:
    """Keep the version numbers that load_state_dict hands to the modules."""
    metadata = getattr(source, '_metadata', None)
    if metadata is not None:
        target._metadata = metadata  # type: ignore[attr-defined]


def load_into(
    model: nn.Module,
    state: Mapping,
    *,
    allow_missing: bool = False,
    what: str = 'the checkpoint',
) -> LoadReport:
    """Copy a state dict into a model; keys that do not fit are an error.

    Args:
        model: the model; wrappers for parallel training and test-time augmentation
            are looked through.
        state: a state dict, or a checkpoint with one under ``state_dict``.
        allow_missing: only log what is missing, unexpected or of another shape.
        what: how messages call the state dict, e.g. its file.

    Returns:
        the report, which has been logged as well.

    Raises:
        CheckpointError: if anything does not fit and ``allow_missing`` is False.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.get_submodule('module')
    weights = state_dict_of(state, what)
    try:
        report = _copy(model, weights)
    except ValueError as error:  # of a module's own, about other state than tensors
        raise CheckpointError(f'{what} -> {type(model).__name__}: {error}') from error
    message = f'{what} -> {type(model).__name__}: {report}'
    if not report.clean and not allow_missing:
        if _EXTRA_STATE in report.missing:
            message += (
                f'\n{_EXTRA_STATE} holds the class embeddings; without it they are '
                'made as model.class_embeddings says.'
            )
        raise CheckpointError(
            f'{message}\nThe file does not fit the model of this config. '
            '--allow-missing (allow_missing=True) loads what fits.'
        )
    level = logging.INFO if report.clean else logging.WARNING
    print_log(message, logger='current', level=level)
    return report


def _copy(model: nn.Module, state: OrderedDict) -> LoadReport:
    mismatched: dict[str, str] = {}
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        # torch copies all that fits before it complains, but then keeps the missing
        # keys to itself: load again without the entries that it named.
        mismatched = _mismatches(error)
        rest = OrderedDict((k, v) for k, v in state.items() if k not in mismatched)
        _copy_metadata(state, rest)
        missing, unexpected = model.load_state_dict(rest, strict=False)
    absent = [
        key
        for key in missing
        # Batch norm of mmcv 0.x times lacks this counter, and nothing reads it.
        if key not in mismatched and not key.endswith('num_batches_tracked')
    ]
    lost = {*unexpected, *mismatched}
    return LoadReport(
        loaded=tuple(key for key in state if key not in lost),
        missing=tuple(absent),
        unexpected=tuple(unexpected),
        mismatched=tuple(f'{key}: {shapes}' for key, shapes in mismatched.items()),
    )


def _mismatches(error: RuntimeError) -> dict[str, str]:
    """Return key -> shapes from the message of ``nn.Module.load_state_dict``.

    Raises:
        RuntimeError: ``error`` itself, if it is about anything else than shapes.
    """
    lines = str(error).splitlines()[1:]
    pattern = re.compile(
        r'\s*size mismatch for (\S+): copying a param with shape torch\.Size\((.*)\) '
        r'from checkpoint, the shape in current model is torch\.Size\((.*)\)\.'
    )
    matches = [pattern.fullmatch(line) for line in lines]
    found = {m[1]: f'{m[2]} in the file, {m[3]} in the model' for m in matches if m}
    if len(found) != len(lines) or not found:
        raise error
    return found
