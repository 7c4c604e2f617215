"""One function that reads every weights file this package is given."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import struct
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch

from mmengine.logging import print_log

from zs3_mmseg.utils.names import did_you_mean

from .allowlist import safe_globals

#: Where tensors go, as in ``torch.load``.
MapLocation = str | torch.device | Callable

# What a damaged stream makes torch's restricted unpickler raise.
_DAMAGED = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    UnpicklingError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


class CheckpointError(ValueError):
    """A weights file that cannot be read or does not fit."""


class DamagedCheckpointError(CheckpointError):
    """A file that is cut short, corrupted, or no checkpoint at all."""


class UnsafeCheckpointError(CheckpointError):
    """A weights file that would have to run code of its own to be read."""


def safe_load(
    path: str | os.PathLike,
    map_location: MapLocation = 'cpu',
    trust: bool = False,
    *,
    known_sha256: Collection[str] = (),
) -> dict:
    """Read a checkpoint or a state dict; nothing in the file is ever executed.

    Reads ``.safetensors`` files and what ``torch.save`` writes, of any age and with the
    logs and NumPy scalars of mmengine and mmcv 1.x. TorchScript archives, in which
    OpenAI published CLIP, hold code by design: they are opened only if their SHA-256
    is known or the caller trusts them, and give their parameters and buffers.

    Args:
        path: a local file.
        map_location: where the tensors go.
        trust: open a TorchScript archive of unknown origin. Files of other kinds are
            never unpickled with code, trusted or not.
        known_sha256: hex digests of the TorchScript archives that may be opened.

    Returns:
        the dict in the file.

    Raises:
        FileNotFoundError: if there is no such file.
        UnsafeCheckpointError: if the file asks for code.
        DamagedCheckpointError: if the file is damaged or no checkpoint.
        CheckpointError: if it holds something else than a dict.
    """
    content = safe_load_object(path, map_location, trust, known_sha256=known_sha256)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f'{path} holds a {type(content).__name__}; expected a state dict or a '
            'checkpoint (a dict)'
        )
    return dict(content) if not isinstance(content, dict) else content


def safe_load_object(
    path: str | os.PathLike,
    map_location: MapLocation = 'cpu',
    trust: bool = False,
    *,
    known_sha256: Collection[str] = (),
) -> object:
    """Do as :func:`safe_load`, for files that may hold anything, e.g. one tensor."""
    file = _existing_file(path)
    if file.suffix == '.safetensors':
        return _read_safetensors(file, map_location)
    if _is_torchscript(file):
        _require_trust(file, trust, known_sha256)
        return torch.jit.load(file, map_location=map_location).state_dict()
    return _read_pickle(file, map_location)


def _existing_file(path: str | os.PathLike) -> Path:
    file = Path(path).expanduser()
    if file.is_file():
        return file
    if file.is_dir():
        raise FileNotFoundError(f'expected a weights file, but {file} is a folder')
    beside = file.parent.iterdir() if file.parent.is_dir() else ()
    hint = did_you_mean(file.name, [entry.name for entry in beside])
    raise FileNotFoundError(f'weights file {file} does not exist.{hint}')


def _read_safetensors(file: Path, map_location: MapLocation) -> dict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        # A function maps the storages of pickles; there are none here.
        device = 'cpu' if callable(map_location) else str(map_location)
        return load_file(file, device=device)
    except SafetensorError as error:
        raise DamagedCheckpointError(
            f'{file} is no intact safetensors file: {error}'
        ) from error


def _read_pickle(file: Path, map_location: MapLocation) -> object:
    try:
        with safe_globals():
            return torch.load(file, map_location=map_location, weights_only=True)
    except _DAMAGED as error:
        refused = _refused_global(error)
        if refused:
            raise UnsafeCheckpointError(
                f'{file} is refused: reading it would call {refused!r}, and a '
                'checkpoint may hold only tensors, plain values, mmengine logs and '
                'NumPy numbers. Nothing was executed. If the file is your own, save '
                'its state_dict() alone.'
            ) from error
        raise DamagedCheckpointError(
            f'{file} is damaged or no PyTorch checkpoint '
            f'({file.stat().st_size} bytes): {type(error).__name__}: '
            f'{_first_line(error)}. Was its download cut off?'
        ) from error


def _refused_global(error: Exception) -> str | None:
    """Return what the file asked for, if it was refused for its content."""
    text = str(error)
    for pattern in (
        r'GLOBAL (\S+) (?:was not an allowed global|whose module)',
        r'call reduce for unrecognized function (.+)',
        r'classes allowlisted via `add_safe_globals` but got (.+)',
        r'types allowlisted via `add_safe_globals`, but got (.+)',
        r'a checkpoint may not look up (.+)',
    ):
        match = re.search(pattern, text)
        if match:
            return match.group(1).strip()
    return None


def _first_line(error: Exception) -> str:
    return (str(error) or 'no reason given').splitlines()[0]


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith('constants.pkl') for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _require_trust(file: Path, trust: bool, known_sha256: Collection[str]) -> None:
    with file.open('rb') as stream:
        digest = hashlib.file_digest(stream, 'sha256').hexdigest()
    if digest in {known.lower() for known in known_sha256}:
        return
    if not trust:
        raise UnsafeCheckpointError(
            f'{file} is a TorchScript archive, which holds code, and its SHA-256 '
            f'{digest} is not one of a known publisher. If you trust its origin, '
            'convert it once with tools/convert_checkpoint.py and --trust.'
        )
    print_log(
        f'Opening the TorchScript archive {file} (SHA-256 {digest}) on trust.',
        logger='current',
        level=logging.WARNING,
    )
