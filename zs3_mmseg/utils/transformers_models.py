"""Models of the package ``transformers``, which comes with the extra ``[masks]``."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

from .hub import cached_file, hub_address, require_hub

#: What breaks when it stands beside transformers 5.
_OTHER = 'mmpretrain'


def transformers_module(reader: str) -> Any:
    """Import ``transformers``, for which nothing but its readers waits.

    Args:
        reader: who needs it, for the message.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    try:
        return importlib.import_module('transformers')
    except ModuleNotFoundError as error:
        if error.name != 'transformers':
            raise
        raise ModuleNotFoundError(
            f'{reader} needs the package transformers: pip install "transformers>=5", '
            'or this package with [masks], in an environment without mmpretrain'
        ) from error


def load_pretrained(factory: str, weights: str | Path, key: str, **options: Any) -> Any:
    """Return what ``transformers.FACTORY.from_pretrained`` makes of weights.

    Args:
        factory: name of a class, such as ``'SamModel'``.
        weights: a local folder as ``save_pretrained`` writes it, or a repository of
            the hub.
        key: where that stands in a config; its first word is who needs it.

    Raises:
        ModuleNotFoundError: without ``transformers``.
        FileNotFoundError: if a folder does not exist.
        ConnectionError: within seconds, if the hub is asked and out of reach.
        ValueError: if there is no such model in there.
    """
    module = transformers_module(key.partition('.')[0])
    place = _found(str(weights), key)
    try:
        return getattr(module, factory).from_pretrained(place, **options)
    except (OSError, ValueError) as error:
        text = str(error).partition('\n')[0]
        raise ValueError(
            f'{key}={str(weights)!r} holds no {factory}: {text}'
        ) from error


def _found(weights: str, key: str) -> str:
    """Return the folder or repository, if it is there."""
    folder = Path(weights).expanduser()
    if folder.is_dir():
        return str(folder)
    # A repository is called OWNER/NAME.
    if weights.startswith(('.', '/', '~')) or weights.count('/') != 1:
        raise FileNotFoundError(
            f'{key}: the folder {weights} does not exist; expected one as '
            "transformers' save_pretrained writes it, or a repository of the hub"
        )
    if cached_file(weights, ('model.safetensors', 'pytorch_model.bin')) is None:
        try:
            require_hub()
        except OSError as error:
            raise ConnectionError(
                f'{key}: {weights} is not in the local cache and could not be '
                f'downloaded ({error}). Without a network, bring the files of '
                f'{hub_address(weights, "").removesuffix("/resolve/main/")} here and '
                f'set {key}=/path/to/folder'
            ) from error
    return weights


def require_no_transformers(reader: str) -> None:
    """Refuse parts of mmpretrain beside transformers 5.

    Raises:
        ImportError: in one line; mmpretrain's own import ends in a long traceback.
    """
    if importlib.util.find_spec(_OTHER) and importlib.util.find_spec('transformers'):
        version = importlib.metadata.version('transformers')
        if int(version.partition('.')[0]) >= 5:
            raise ImportError(
                f'{reader} is a part of mmpretrain, which cannot be imported beside '
                f'transformers {version}: use an environment with [pretrain] and '
                'without [masks] (pip uninstall transformers)'
            )
