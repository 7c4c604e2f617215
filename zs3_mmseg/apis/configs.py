"""Finding configs: by path, or by name among those that ship with the package."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from zs3_mmseg.utils.config_check import read_config
from zs3_mmseg.utils.names import did_you_mean

#: What is used when nobody names a config.
DEFAULT_CONFIG = 'clip_dense/shapes_tiny_gate'

_PACKAGE = Path(__file__).resolve().parents[1]


def config_folder() -> Path:
    """Return the folder of the shipped configs.

    In an installed package that is ``zs3_mmseg/.mim/configs``, in a checkout that was
    not installed ``configs`` beside the package.

    Raises:
        FileNotFoundError: neither exists: the installation is incomplete.
    """
    places = (_PACKAGE / '.mim' / 'configs', _PACKAGE.parent / 'configs')
    for place in places:
        if (place / '_base_').is_dir():
            return place
    raise FileNotFoundError(
        'the configs that ship with zs3_mmseg are missing; expected them in '
        + ' or '.join(map(str, places))
    )


def shipped_configs() -> dict[str, Path]:
    """Return the shipped configs by name, such as ``clip_dense/shapes_tiny``."""
    folder = config_folder()
    return {
        path.relative_to(folder).with_suffix('').as_posix(): path
        for path in sorted(folder.rglob('*.py'))
        if '_base_' not in path.relative_to(folder).parts
    }


def find_config(name: str | os.PathLike) -> Path:
    """Return the file of a config.

    Args:
        name: the path of a file, or the name of a shipped config, from any working
            directory: ``clip_dense/shapes_tiny``, with or without ``configs/`` before
            and ``.py`` after it.

    Raises:
        FileNotFoundError: no such file and no such shipped config; the message lists
            close names.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_configs()
    wanted = path.as_posix().removesuffix('.py').removeprefix('configs/')
    if wanted in shipped:
        return shipped[wanted]
    raise FileNotFoundError(
        f'{str(name)!r} is neither a config file nor the name of a shipped config.'
        f'{did_you_mean(wanted, shipped)} Shipped are: {", ".join(shipped)}'
    )


def load_config(
    config: str | os.PathLike | Config, cfg_options: dict | None = None
) -> Config:
    """Return a config of one's own to change, with options merged into it.

    Args:
        config: a path, the name of a shipped config, or a config object, which is
            copied.
        cfg_options: dotted keys to values, as after ``--cfg-options``.

    Raises:
        FileNotFoundError: there is no such config.
        TypeError: ``config`` is something else.
    """
    if isinstance(config, Config):
        loaded = copy.deepcopy(config)
        loaded.merge_from_dict(dict(cfg_options or {}))
        return loaded
    if isinstance(config, str | os.PathLike):
        return read_config(find_config(config), cfg_options)
    raise TypeError(
        'expected the path or name of a config, or a Config, got '
        f'{type(config).__name__}'
    )


def tested_dataset(config: Config) -> Mapping[str, Any]:
    """Return the config of the data set that is tested on, without its wrappers.

    It is empty if the config tests on nothing.
    """
    dataset = (config.get('test_dataloader') or {}).get('dataset') or {}
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset
