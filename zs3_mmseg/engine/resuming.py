"""What a config says otherwise than the run that it goes on with."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from torch.optim import Optimizer

from zs3_mmseg.utils.config_check import READ_KEYS, ConfigError
from zs3_mmseg.utils.names import as_list

# Optimisers and schedules load these with their state; mmengine takes over the seed.
_KEPT = ('optim_wrapper.optimizer.', 'optim_wrapper.paramwise_cfg', 'param_scheduler')
_SEED = 'randomness.seed'
# Where a run is and what it shows of itself: nothing is trained by that.
_OUTSIDE = {
    *('work_dir', 'experiment_name', 'resume', 'load_from', 'launcher', 'cfg'),
    *('log_level', 'log_processor', 'visualizer', 'env_cfg', 'default_scope'),
    *('custom_imports', 'test_dataloader', 'test_evaluator', 'test_cfg'),
    *('tta_model', 'tta_pipeline', 'allow_missing'),
}
_ABSENT = 'nothing'
_SHOWN = 6


def told_differences(text: object, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence on what a resumed run keeps, and one on what changes.

    ``text`` is the config in a checkpoint, as mmengine writes it. Only plain values are
    read of it; nothing in it is run.
    """
    before = _read(text)
    kept: list[str] = []
    changed: list[str] = []
    for key in sorted((READ_KEYS - _OUTSIDE) & before.keys()):
        for place, old, new in _differences(before[key], config.get(key), key):
            shown = f'{place} ({_short(old)}, here {_short(new)})'
            keeps = place.startswith(_KEPT) or place == _SEED
            is_type = place == 'optim_wrapper.optimizer.type'
            (kept if keeps and not is_type else changed).append(shown)
    if kept:
        yield (
            'this run goes on with the values of the checkpoint, not with those of '
            f'the config: {as_list(kept, _SHOWN, str)}. To train with these, start a '
            'new run from its weights: --cfg-options load_from=FILE'
        )
    if changed:
        listed = as_list(changed, _SHOWN, str)
        yield f'from here on this config says otherwise: {listed}'


def require_same_kind(optimizer: Optimizer, filename: str) -> None:
    """Check that an optimiser has loaded the state of one that works like it.

    Raises:
        ConfigError: its options are not those that were saved.
    """
    groups = optimizer.param_groups
    lacking = {key for group in groups for key in optimizer.defaults.keys() - group}
    if lacking:
        raise ConfigError(
            f'optim_wrapper.optimizer.type: {filename} holds the state of an optimiser '
            f'without {", ".join(sorted(lacking))}, so it is no '
            f'{type(optimizer).__name__}. Name the type of before, or start a new run '
            'from its weights: --cfg-options load_from=FILE'
        )


def _read(text: object) -> dict[str, Any]:
    if not isinstance(text, str):
        return {}
    try:
        lines = ast.parse(text).body
    except (MemoryError, RecursionError, SyntaxError, ValueError):
        return {}
    found = {}
    for line in lines:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            try:
                found[line.targets[0].id] = _value(line.value)
            except (RecursionError, TypeError, ValueError):
                continue
    return found


def _value(node: ast.AST) -> Any:
    """Return a literal, in which ``dict(...)`` may stand for a dict."""
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id != 'dict':
            raise ValueError('only dict() may be called')
        given = {k: v for part in node.args for k, v in dict(_value(part)).items()}
        return given | {str(word.arg): _value(word.value) for word in node.keywords}
    if isinstance(node, ast.Dict):
        keys = [_value(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_value, node.values), strict=True))
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(part) for part in node.elts]
    return ast.literal_eval(node)


def _differences(old: Any, new: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in {**old, **new}:
            values = old.get(name, _ABSENT), new.get(name, _ABSENT)
            yield from _differences(*values, f'{key}.{name}')
    elif _is_list(old) and _is_list(new) and len(old) == len(new):
        for number, values in enumerate(zip(old, new, strict=True)):
            yield from _differences(*values, f'{key}.{number}')
    elif _plain(old) != _plain(new):
        yield key, old, new


def _is_list(node: Any) -> bool:
    return isinstance(node, (list, tuple))


def _plain(node: Any) -> Any:
    """Return a value as it can be compared: tuples are lists, classes have names."""
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items()}
    if _is_list(node):
        return [_plain(value) for value in node]
    return node if isinstance(node, (int, float, str, type(None))) else str(node)


def _short(value: Any, longest: int = 40) -> str:
    text = repr(value) if value != _ABSENT else _ABSENT
    return text if len(text) <= longest else f'{text[:longest]}...'
