"""What a checkpoint may hold besides tensors and plain Python values."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from mmengine.logging import HistoryBuffer

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
