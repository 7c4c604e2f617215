"""What users, their configs and their checkpoints rely on stays as it was recorded.

``record.py`` wrote the data; a wanted change goes into a table here and into the
CHANGELOG.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import record
import torch
from safetensors.torch import load_file

from zs3_mmseg.utils.checkpoint import safe_load

CHANGELOG = record.ROOT / 'CHANGELOG.md'

#: Old dotted name of a public name or package -> its new one; None: it is gone. Each
#: row stands in the CHANGELOG.
MOVED: dict[str, str | None] = {
    'zs3_mmseg.engine.pretraining': None,
    'zs3_mmseg.engine.converters.Rule': 'zs3_mmseg.engine.converters.KeyRule',
}
#: ``REGISTRY.Type`` -> new ``REGISTRY.Type``; None: it is gone.
RENAMED: dict[str, str | None] = {}
#: ``REGISTRY.Type.option`` -> what the CHANGELOG says of an option that changed.
CHANGED_OPTIONS: dict[str, str] = {
    f'MODELS.{segmentor}.{option}': 'has a default, so that the message names the key'
    for segmentor in ('ZeroShotEncoderDecoder', 'ClassPromptedSegmentor')
    for option in ('class_embeddings', 'split', 'setting')
} | {'MODELS.NonExclusiveLoss.class_chunk': 'is 16 by default'}
#: Name of a shipped config -> what the CHANGELOG says of its change.
CHANGED_CONFIGS: dict[str, str] = {
    'clip_dense/own_folder': 'a tta_pipeline; pictures keep their shape in training',
    'baselines/own_folder_linear': 'the same',
}
#: Beginnings of paths in configs -> their new ones; METHOD is the folder of the config.
MOVED_PATHS: dict[str, str] = {'work_dirs/': 'work_dirs/METHOD/'}
#: The loop of our own configs that are trained by iterations, in place of mmengine's.
NEW_LOOP = 'StepTrainLoop'
#: Scores that metrics do not report any more.
GONE_SCORES = ('fwIoU_seen', 'fwIoU_unseen', 'hfwIoU')

# ------------------------------------------------------------- names, types, options


def _public(dotted: str) -> object:
    """Return what a dotted name stands for, a module or something in one."""
    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError:
        module, _, name = dotted.rpartition('.')
        return getattr(importlib.import_module(module), name)


def _now(dotted: str) -> str | None:
    """Return today's name of what was recorded as ``package.name``."""
    if dotted in MOVED:
        return MOVED[dotted]
    package, _, name = dotted.rpartition('.')
    moved = MOVED.get(package, package)
    return None if moved is None else f'{moved}.{name}'


@pytest.mark.parametrize('package', record.read_json('names.json'))
def test_public_names_are_where_they_were(package: str) -> None:
    if MOVED.get(package, package) is not None:
        importlib.import_module(MOVED.get(package) or package)
    for name in record.read_json('names.json')[package]:
        dotted = _now(f'{package}.{name}')
        if dotted is not None:
            _public(dotted)
            home, _, name_now = dotted.rpartition('.')
            listed = getattr(_public(home), '__all__', None)
            assert listed is None or name_now in listed


RECORDED_TYPES = record.read_json('types.json')


@pytest.mark.parametrize('name', RECORDED_TYPES)
def test_types_are_registered_with_their_options(name: str) -> None:
    new = RENAMED.get(name, name)
    if new is None:
        return
    options = record.registered_types()[new]
    takes_any = 'VAR_KEYWORD' in options.values()
    for option, default in RECORDED_TYPES[name].items():
        if default == 'VAR_KEYWORD' or f'{name}.{option}' in CHANGED_OPTIONS:
            continue
        if option in options or not takes_any:
            assert options[option] == default, option
    required = {key for key, value in options.items() if value == 'required'}
    assert required <= RECORDED_TYPES[name].keys(), 'old configs lack these'


# --------------------------------------------------------------------------- configs


def first_difference(old: Any, new: Any, place: str = '') -> str | None:
    """Return where two configs differ first, None if nowhere."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        keys = [*range(len(old))]
    else:
        return None if old == new else f'{place}: {old!r} is now {new!r}'
    for key in keys:
        where = f'{place}.{key}'.lstrip('.')
        if isinstance(old, dict) and (key not in old or key not in new):
            return f'{where}: only {"before" if key in old else "now"}'
        found = first_difference(old[key], new[key], where)
        if found is not None:
            return found
    return None


def as_read(node: Any) -> Any:
    """Return a config with each pipeline at the data set that reads the files."""
    if isinstance(node, list):
        return [as_read(part) for part in node]
    if not isinstance(node, dict):
        return node
    node = {key: as_read(value) for key, value in node.items()}
    wraps = node.get('type') in ('ZeroShotDataset', 'ClassPromptDataset')
    if wraps and node.get('pipeline') is not None:
        pipeline = node.pop('pipeline')
        node['dataset'] = {**node['dataset'], 'pipeline': pipeline}
    return node


def with_moved_paths(old: Any, method: str) -> Any:
    """Return a config with today's paths in the places of those that moved."""
    if isinstance(old, dict):
        return {key: with_moved_paths(value, method) for key, value in old.items()}
    if isinstance(old, list):
        return [with_moved_paths(value, method) for value in old]
    for before, now in MOVED_PATHS.items():
        if isinstance(old, str) and old.startswith(before):
            return now.replace('METHOD', method) + old.removeprefix(before)
    return old


def with_old_loop(config: Any) -> Any:
    """Return today's config with the loop that it had before ``NEW_LOOP``.

    Of one batch a step, and one process, they do the same.
    """
    loop = config.get('train_cfg') or {}
    if loop.get('type') != NEW_LOOP:
        return config
    before = {**loop, 'type': 'IterBasedTrainLoop'}
    before.pop('normalise_by', None)
    return {**config, 'train_cfg': before}


def test_differences_of_configs_are_found() -> None:
    old = {'a': [1, {'b': 2}], 'c': None}
    assert first_difference(old, {'a': [1, {'b': 2}], 'c': None}) is None
    assert first_difference(old, {'a': [1, {'b': 3}], 'c': None}) == (
        'a.1.b: 2 is now 3'
    )
    assert first_difference(old, {'a': [1, {'b': 2}]}) == 'c: only before'
    assert first_difference(old, {**old, 'd': 1}) == 'd: only now'


def test_configs_say_what_they_said() -> None:
    now = as_read(record.resolved_configs())
    recorded = as_read(record.read_json('resolved_configs.json.gz'))
    differences = {
        name: first_difference(
            with_moved_paths(old, name.rpartition('/')[0]), with_old_loop(now[name])
        )
        if name in now
        else 'is gone'
        for name, old in recorded.items()
        if name not in CHANGED_CONFIGS
    }
    assert {k: v for k, v in differences.items() if v is not None} == {}


def test_changes_are_in_the_changelog() -> None:
    text = CHANGELOG.read_text()
    changes = [*MOVED, *RENAMED, *CHANGED_OPTIONS, *CHANGED_CONFIGS]
    changes += [*MOVED_PATHS.values(), NEW_LOOP, *GONE_SCORES]
    assert [name for name in changes if name not in text] == []


# ----------------------------------------------------------------------- checkpoints


def alike(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Whether tensors are equal but for what processors round in their own ways.

    The optimiser makes steps of full size out of gradients that are zero but for
    rounding, such as those of the biases of attention keys, and borders of label maps
    move.
    """
    if ours.shape != theirs.shape:
        return False
    if theirs.is_floating_point():
        return torch.allclose(ours, theirs, rtol=1e-4, atol=2e-3)
    return (ours != theirs).float().mean() <= 0.02


def differing(
    ours: Mapping[str, torch.Tensor], recorded: Mapping[str, torch.Tensor]
) -> list[str]:
    assert ours.keys() == recorded.keys()
    return [name for name in recorded if not alike(ours[name], recorded[name])]


@pytest.mark.parametrize('name', record.METHODS)
def test_checkpoints_give_the_same_predictions(name: str, tmp_path: Path) -> None:
    file = tmp_path / 'predicted.safetensors'
    folder = record.prepare(tmp_path / 'run')
    record.in_child(folder, record.save_predictions, name, file)
    recorded = load_file(record.DATA / f'{name}_predicted.safetensors')
    assert differing(load_file(file), recorded) == []


@pytest.mark.parametrize('name', record.TRAINED)
def test_runs_go_on_as_they_did(name: str, tmp_path: Path) -> None:
    work_dir = record.resume(name, tmp_path)
    checkpoint = safe_load(work_dir / f'iter_{record.END}.pth')
    tensors, others = record.contents(checkpoint)
    recorded = record.read_json(f'{name}.json')
    assert record.shapes_of(tensors) == recorded['tensors']
    assert others == recorded['others']
    before, _ = record.contents(safe_load(record.DATA / f'{name}.pth'))
    after = {key: value for key, value in before.items() if key in tensors}
    after |= load_file(record.DATA / f'{name}_continued.safetensors')
    assert differing(tensors, after) == []
    losses = record.losses_of(work_dir)
    assert len(losses) == len(recorded['losses'])
    for ours, theirs in zip(losses, recorded['losses'], strict=True):
        theirs = {key: theirs[key] for key in theirs if key not in GONE_SCORES}
        assert ours == pytest.approx(theirs, rel=1e-3, abs=0)


def test_states_without_training_are_named_as_before(tmp_path: Path) -> None:
    file = tmp_path / 'dense.pth'
    record.in_child(record.prepare(tmp_path / 'run'), record.save_dense, file)
    tensors, others = record.contents(safe_load(file))
    recorded = record.read_json('dense.json')
    assert record.shapes_of(tensors) == recorded['tensors']
    assert others == recorded['others']


# ------------------------------------------------------------------------------ demo


@pytest.mark.slow
@pytest.mark.parametrize('name', record.DEMO)
def test_figures_of_the_demo(name: str, tmp_path: Path) -> None:
    """In miniature: the demo's methods, a few iterations and a few scenes."""
    figures = record.demo_figures(name, tmp_path)
    recorded = record.read_json('demo.json')[name]
    recorded = {key: recorded[key] for key in recorded if key not in GONE_SCORES}
    # A few pixels on borders may change their class.
    assert figures == pytest.approx(recorded, abs=0.2)
