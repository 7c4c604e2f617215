"""The configs that ship with the package, and their names."""

from __future__ import annotations

import os
from pathlib import Path

from .names import did_you_mean

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


def shipped_config(name: str | os.PathLike) -> Path | None:
    """Return the file of a shipped config; None if none has this name.

    ``configs/`` before and ``.py`` after the name do not count.
    """
    return shipped_configs().get(_bare(name))


def _bare(name: str | os.PathLike) -> str:
    return Path(name).as_posix().removesuffix('.py').removeprefix('configs/')


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
    found = shipped_config(name)
    if found is not None:
        return found
    shipped = shipped_configs()
    raise FileNotFoundError(
        f'{str(name)!r} is neither a config file nor the name of a shipped config.'
        f'{did_you_mean(_bare(name), shipped)} Shipped are: {", ".join(shipped)}'
    )
