"""Reading files of others without running anything that is hidden in them."""

from __future__ import annotations

import hashlib
import logging
import operator
import os
import pickletools
import re
import struct
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import nn

from mmengine.logging import HistoryBuffer, print_log
from mmengine.model import BaseTTAModel, is_model_wrapper

from .names import as_list, did_you_mean
from .packed_state import unpack_state

__all__ = [
    'CheckpointError',
    'DamagedCheckpointError',
    'LoadReport',
    'MapLocation',
    'UnsafeCheckpointError',
    'load_into',
    'rename_keys',
    'safe_load',
    'safe_load_object',
    'state_dict_of',
    'unwrap',
]


#: A global together with the dotted name under which a pickle asks for it.
Allowed = tuple[Callable, str]

# NumPy keeps the two behind names that changed with version 2; pickling tells them.
_RECONSTRUCT: Callable = operator.itemgetter(0)(np.zeros(0).__reduce__())
_SCALAR: Callable = operator.itemgetter(0)(np.float64(0).__reduce__())

# No object arrays (they could hold anything) and no records (free-form layouts).
_DTYPES = ('?', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8', 'U')
_STATISTICS = ('min', 'max', 'current', 'mean')
# torch keeps one process-wide set; the lock keeps a thread from clearing another's.
_LOCK = threading.RLock()


def _history_method(owner: object, name: str) -> Callable:
    """Stand in for ``getattr`` where a pickled ``HistoryBuffer`` asks for it.

    mmengine pickles the four statistics of a history as ``getattr(HistoryBuffer,
    'mean')`` and therefore puts ``getattr`` itself on its list of safe globals. The
    real one leads from any function to its module's globals, which a pickle can then
    overwrite, so only those four look-ups are answered.
    """
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise ValueError(f'a checkpoint may not look up {name!r} of {owner!r}')
    return getattr(HistoryBuffer, name)


def allowed_globals() -> list[Allowed]:
    """Return the globals that checkpoints of mmengine and mmcv 1.x need.

    These are mmengine's log history and NumPy's numbers, the latter under their names
    in NumPy 1 (``numpy.core``) and NumPy 2 (``numpy._core``).
    """
    allowed: list[Allowed] = [
        (HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (_history_method, 'builtins.getattr'),
        (np.ndarray, 'numpy.ndarray'),
        (np.dtype, 'numpy.dtype'),
    ]
    for package in ('numpy.core', 'numpy._core'):
        allowed.append((_RECONSTRUCT, f'{package}.multiarray._reconstruct'))
        allowed.append((_SCALAR, f'{package}.multiarray.scalar'))
    for code in _DTYPES:
        kind = type(np.dtype(code))
        allowed.append((kind, f'{kind.__module__}.{kind.__qualname__}'))
    return allowed


@contextmanager
def safe_globals() -> Iterator[None]:
    """Allow :func:`allowed_globals` to ``torch.load`` inside the ``with`` block only.

    What the process itself had allowed before stays allowed, inside and afterwards.
    """
    with _LOCK:
        before = set(torch.serialization.get_safe_globals())
        ours = [entry for entry in allowed_globals() if entry not in before]
        with torch.serialization.safe_globals([*ours]):
            yield


#: Where tensors go, as in ``torch.load``.
MapLocation = str | torch.device | Callable

# What a damaged stream makes torch's restricted unpickler raise.
_DAMAGED = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    UnpicklingError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


# What torch itself asks for, and the beginning of its advice.
_TORCH = ('torch.', 'collections.OrderedDict')
_ADVICE = 'Weights only load failed'


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
    from safetensors import SafetensorError, safe_open

    try:
        # A function maps the storages of pickles; there are none here.
        device = 'cpu' if callable(map_location) else str(map_location)
        with safe_open(file, framework='pt', device=device) as opened:
            names = opened.keys()
            tensors = {name: opened.get_tensor(name) for name in names}
            return unpack_state(tensors, opened.metadata())
    except (SafetensorError, *_DAMAGED) as error:
        raise DamagedCheckpointError(
            f'{file} is no intact safetensors file: {error}'
        ) from error


def _read_pickle(file: Path, map_location: MapLocation) -> object:
    _require_stored(file)
    try:
        with safe_globals():
            return torch.load(file, map_location=map_location, weights_only=True)
    except _DAMAGED as error:
        refused = _refused_global(error) or _foreign_global(file)
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
            f'{_reason(error)}. Was its download cut off?'
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


def _require_stored(file: Path) -> None:
    """Refuse an archive that unpacks to more than it is: torch only stores."""
    try:
        total = sum(entry.file_size for entry in _zip_entries(file))
    except _DAMAGED as error:
        raise DamagedCheckpointError(f'{file} is no whole archive: {error}') from error
    size = file.stat().st_size
    if total > size:
        raise DamagedCheckpointError(
            f'{file} is refused: {size:,} bytes that unpack to {total:,}, and PyTorch '
            'packs nothing'
        )


def _foreign_global(file: Path) -> str | None:
    """Return what a bare pickle that torch cannot read asks for, without running it."""
    known = {name for _, name in allowed_globals()}
    texts: list[str] = []
    try:
        with file.open('rb') as stream:
            for operation, argument, _ in pickletools.genops(stream):
                name = None
                if operation.name in ('GLOBAL', 'INST'):
                    name = str(argument).replace(' ', '.')
                elif operation.name == 'STACK_GLOBAL':
                    name = '.'.join(texts[-2:])
                elif isinstance(argument, str):
                    texts = [*texts[-1:], argument]
                if name and name not in known and not name.startswith(_TORCH):
                    return name
    except (ValueError, OSError, MemoryError, OverflowError, struct.error):
        pass
    return None


def _reason(error: Exception) -> str:
    """Return the first line of an error, without torch's advice to load unsafely."""
    text = str(error) or 'no reason given'
    if _ADVICE in text:
        text = text.partition('WeightsUnpickler error: ')[2] or 'no plain values'
    elif 'weights_only' in text:
        text = 'no archive, nor a pickle of tensors'
    return text.splitlines()[0].rstrip('.')


def _is_torchscript(file: Path) -> bool:
    try:
        names = [entry.filename for entry in _zip_entries(file)]
    except _DAMAGED:
        return False
    return any(name.endswith('constants.pkl') for name in names)


def _zip_entries(file: Path) -> list[zipfile.ZipInfo]:
    """Return what an archive holds, of other files nothing."""
    if not zipfile.is_zipfile(file):
        return []
    with zipfile.ZipFile(file) as archive:
        return archive.infolist()


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
        CheckpointError: if there is no state dict in it, or it names no weights.
    """
    state = checkpoint.get('state_dict', checkpoint)
    if not isinstance(state, Mapping) or not any(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise CheckpointError(
            f'{what} holds no weights: expected a state dict, or one under '
            f"'state_dict', and found the keys {list(checkpoint)[:_LISTED]}"
        )
    wrong = [repr(key) for key in state if not isinstance(key, str)]
    if wrong:
        raise CheckpointError(f'{what}: {as_list(wrong, _LISTED, str)} name no weights')
    hollow = [k for k, v in state.items() if isinstance(v, torch.Tensor) and v.is_meta]
    if hollow:
        raise CheckpointError(
            f'{what}: {as_list(hollow, _LISTED, str)} have a shape and no numbers '
            '(tensors on the device meta)'
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


def unwrap(model: nn.Module) -> Any:
    """Return the model inside wrappers for parallel training and augmented testing."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.get_submodule('module')
    return model


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
        CheckpointError: if anything does not fit and ``allow_missing`` is False, or
            weights are NaN.
    """
    model = unwrap(model)
    weights = state_dict_of(state, what)
    _require_numbers(weights, what)
    try:
        report = _copy(model, weights)
    except _DAMAGED as error:  # of a module's own, or values that are no tensors
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


def _require_numbers(state: Mapping, what: str) -> None:
    bad = [
        key
        for key, value in state.items()
        if isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.is_floating_point()
        and value.itemsize > 1  # torch compares no numbers of 8 bits
        and value.isnan().any()
    ]
    if bad:
        raise CheckpointError(
            f'{what}: {as_list(bad, _LISTED, str)} hold NaN, so whatever the model '
            'says would mean nothing. Did the training diverge (loss: nan)?'
        )


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
