"""Mistakes in a config that can be named before anything runs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .names import did_you_mean

_PACKAGE = 'zs3_mmseg'
_WEIGHTS = ('.bin', '.ckpt', '.json', '.npy', '.pt', '.pth', '.safetensors', '.vec')
# Packages behind an extra of ours that a config can ask for by a visualiser.
_EXTRAS = {'TensorboardVisBackend': ('tensorboard', 'tensorboard')}


def read_config(
    path: str | os.PathLike, options: Mapping[str, Any] | None = None
) -> Config:
    """Read a config file and merge ``--cfg-options`` into it.

    Raises:
        FileNotFoundError: if there is no such file, with the closest names there are.
    """
    file = Path(path)
    if not file.is_file():
        # The folder may be misspelt as well: then look at all configs beside it.
        parent = next((p for p in file.parents if p.is_dir()), Path())
        near = parent.glob('*.py' if parent == file.parent else '**/*.py')
        known = [str(entry) for entry in near if '_base_' not in entry.parts]
        raise FileNotFoundError(
            f'config {file} does not exist.{did_you_mean(str(file), known)}'
        )
    config = Config.fromfile(file)
    _drop_scope(config)
    if options:
        config.merge_from_dict(dict(options))
    return config


def _drop_scope(config: Config) -> None:
    """Take the scope away that a ``zs3_mmseg::`` base puts into every part.

    It would make mmengine look for a registry of that name, but our classes live in
    mmseg's, and mmseg's own parts of the config do, too.
    """
    for _, node in _walk(dict(config), ''):
        if isinstance(node, dict) and node.get('_scope_') == _PACKAGE:
            del node['_scope_']


def require_files(config: Config, loaders: Sequence[str]) -> None:
    """Check that the files and folders a config names are there.

    Looks at ``load_from``, at every value below ``model`` that ends like a weights
    file, and at ``data_root``, ``data_prefix`` and ``ann_file`` of the data sets. A
    data set that gives neither ``data_prefix`` nor ``ann_file`` may make its data on
    first use and is left alone, and so are URLs and other storage backends.

    Args:
        config: the whole config.
        loaders: the data loaders that will be used, e.g. ``['test_dataloader']``.

    Raises:
        FileNotFoundError: naming every missing file and the key to change.
    """
    missing = [*_missing_weights(config)]
    for loader in loaders:
        for key, node in _walk(config.get(loader), loader):
            if isinstance(node, Mapping):
                missing += _missing_data(key, node)
    if not missing:
        return
    listed = '\n'.join(f'  {key} = {path!r}' for key, path in missing)
    raise FileNotFoundError(
        f'the config {config.filename or ""} names what does not exist:\n{listed}\n'
        f'Change these keys in it, or with --cfg-options {missing[0][0]}=PATH. '
        f'Relative paths begin in the current folder, {Path.cwd()}.'
    )


def require_extras(config: Config) -> None:
    """Check that optional packages a config asks for are installed.

    Raises:
        ModuleNotFoundError: naming the command that installs the extra.
    """
    for key, value in _walk(config.get('visualizer'), 'visualizer'):
        if not isinstance(value, str) or value not in _EXTRAS:
            continue
        module, extra = _EXTRAS[value]
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(
                f'{key} = {value!r} needs the package {module}: '
                f'pip install {module}, or this package with [{extra}]'
            )


def _walk(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield every value below ``node`` with its dotted key, containers included."""
    yield key, node
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _walk(value, f'{key}.{name}')
    elif isinstance(node, (list, tuple)):
        for number, value in enumerate(node):
            yield from _walk(value, f'{key}.{number}')


def _is_local(path: str) -> bool:
    return '://' not in path and not path.startswith('hf-hub:')


def _missing_weights(config: Config) -> Iterator[tuple[str, str]]:
    load_from = config.get('load_from')
    if load_from and _is_local(load_from) and not _exists(load_from):
        yield 'load_from', load_from
    for key, value in _walk(config.get('model'), 'model'):
        named = isinstance(value, str) and value.endswith(_WEIGHTS)
        if named and _is_local(value) and not _exists(value):
            yield key, value


def _missing_data(key: str, dataset: Mapping) -> Iterator[tuple[str, str]]:
    places: dict[str, str] = {}
    if dataset.get('ann_file'):
        places[f'{key}.ann_file'] = dataset['ann_file']
    for name, value in (dataset.get('data_prefix') or {}).items():
        if value is not None:
            places[f'{key}.data_prefix.{name}'] = value
    root = dataset.get('data_root') or ''
    remote = dataset.get('backend_args') or not _is_local(root)
    if not places or remote:
        return
    if root and not _exists(root):
        yield f'{key}.data_root', root
        return
    for name, place in places.items():
        path = os.path.join(root, place)
        if _is_local(place) and not _exists(path):
            yield name, path


def _exists(path: str) -> bool:
    return Path(path).expanduser().exists()
