"""Say which file of a data set is missing, and which config key leads to it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from typing import Any

import mmcv.transforms
from mmengine.dataset import BaseDataset
from mmengine.fileio import exists, list_dir_or_file
from mmseg.registry import DATASETS

from zs3_mmseg.utils.origins import origin_of_data

_KEYS = 'change data_root, data_prefix or ann_file of this data set in the config'


def _advice(dataset: object, *more: str) -> str:
    """Return what to do about missing files of a data set or its class's name."""
    origin = origin_of_data(dataset)
    keys = ', or '.join([_KEYS, *more])
    return f'{keys}; or get it: {origin}' if origin else keys


def build_dataset(dataset: Mapping[str, Any] | Any) -> Any:
    """Build a data set from its config; explain what is missing if that fails.

    Args:
        dataset: a config, or a data set, which is returned as it is.

    Raises:
        FileNotFoundError: naming the path and the config key.
    """
    if not isinstance(dataset, Mapping):
        return dataset
    try:
        return DATASETS.build(dataset)
    except (AssertionError, OSError, ValueError, TypeError) as error:
        missing = missing_in_config(dataset)
        if missing is None:
            raise
        raise missing from error


def missing_in_config(config: Mapping[str, Any]) -> FileNotFoundError | None:
    """Find out whether a data set could not be built because files are missing.

    Args:
        config: config of the data set, or of a wrapper with data sets inside.

    Returns:
        The error to raise, or None if every path of the config exists.
    """
    for leaf in _leaf_configs(config):
        root = leaf.get('data_root') or ''
        name = leaf.get('type', 'data set')
        for key, path in _paths(leaf, root):
            if not exists(path, backend_args=leaf.get('backend_args')):
                return FileNotFoundError(
                    f'{name}: {path} ({key}) is missing; {_advice(name)}'
                )
        folder = os.path.join(root, (leaf.get('data_prefix') or {}).get('img_path', ''))
        suffix = leaf.get('img_suffix', _default_suffix(name))
        if not leaf.get('ann_file') and folder and not _holds(leaf, folder, suffix):
            return FileNotFoundError(_no_images(name, suffix, folder))
    return None


def _no_images(name: str, suffix: str, folder: str) -> str:
    advice = _advice(name, 'img_suffix')
    return f'{name}: no image *{suffix} found in {folder}; {advice}'


def _holds(leaf: Mapping[str, Any], folder: str, suffix: str) -> bool:
    files = list_dir_or_file(
        folder,
        list_dir=False,
        suffix=suffix,
        recursive=True,
        backend_args=leaf.get('backend_args'),
    )
    return any(True for _ in files)


def _default_suffix(name: str | type) -> str:
    owner = DATASETS.get(name) if isinstance(name, str) else name
    if owner is None:
        return ''
    return init_default(owner, 'img_suffix') or ''


def init_default(owner: type, name: str) -> Any:
    """Return the default of a constructor argument, also of an inherited one.

    A subclass that hands its keyword arguments on keeps the default of its base.
    """
    for ancestor in owner.__mro__:
        init = vars(ancestor).get('__init__')
        if init is None:
            continue
        parameter = inspect.signature(init).parameters.get(name)
        if parameter is not None:
            return parameter.default
    return None


def _leaf_configs(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    inside = [*config.get('datasets', ()), config.get('dataset')]
    parts = [part for part in inside if isinstance(part, Mapping)]
    if not parts:
        yield config
    for part in parts:
        yield from _leaf_configs(part)


def _paths(leaf: Mapping[str, Any], root: str) -> Iterator[tuple[str, str]]:
    if root:
        yield 'data_root', root
    if leaf.get('ann_file'):
        yield 'ann_file', os.path.join(root, leaf['ann_file'])
    for key, prefix in (leaf.get('data_prefix') or {}).items():
        if prefix:
            yield f'data_prefix.{key}', os.path.join(root, prefix)


def require_files(dataset: BaseDataset) -> None:
    """Raise an error if a built data set is empty or its first files are missing.

    Raises:
        FileNotFoundError: naming the path and the config keys.
    """
    name = type(dataset).__name__
    if not len(dataset):
        folder = dataset.data_prefix.get('img_path')
        suffix = getattr(dataset, 'img_suffix', '')
        raise FileNotFoundError(_no_images(name, suffix, folder))
    info = dataset.get_data_info(0)
    keys = ['img_path']
    transforms = dataset.pipeline.transforms
    if any(isinstance(t, mmcv.transforms.LoadAnnotations) for t in transforms):
        keys.append('seg_map_path')
    for key in keys:
        path = info.get(key)
        if isinstance(path, str) and not exists(
            path, backend_args=getattr(dataset, 'backend_args', None)
        ):
            raise FileNotFoundError(
                f'{name}: {path} ({key}) is missing; {_advice(name)}'
            )
