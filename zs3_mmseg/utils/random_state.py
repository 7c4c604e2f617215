"""The states of all random generators of a process, as plain values."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def get_random_state() -> dict[str, Any]:
    """Return the states of Python, NumPy, torch's CPU and the current CUDA device.

    Plain numbers and byte tensors only, so that a checkpoint with it in can be read
    with ``weights_only=True``. ``cuda`` is None without such a device.
    """
    kind, words, *rest = np.random.get_state()  # noqa: NPY002
    return {
        'python': random.getstate(),
        'numpy': (kind, np.asarray(words).tolist(), *rest),
        'torch': torch.get_rng_state(),
        'cuda': torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> bool:
    """Put back what :func:`get_random_state` returned.

    Returns:
        False if the state of CUDA was left out, because it was there when the state
        was taken and is not here, or the other way round.
    """
    random.setstate(state['python'])
    kind, words, *rest = state['numpy']
    np.random.set_state((kind, np.array(words, np.uint32), *rest))  # noqa: NPY002
    # Loading with map_location moves these to an accelerator; the setters want bytes
    # in main memory.
    torch.set_rng_state(state['torch'].cpu())
    if (state['cuda'] is not None) != torch.cuda.is_available():
        return False
    if state['cuda'] is not None:
        torch.cuda.set_rng_state(state['cuda'].cpu())
    return True
