"""Random draws keyed by sample, and the states of all generators as plain values."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class Draw(int):
    """A sample index that remembers which draw of the run it is.

    It is an ordinary ``int`` for every data set. Shifting or wrapping it with plain
    integers, as mmengine's ``ConcatDataset`` and ``RepeatDataset`` do, keeps the draw,
    and so does the way to a worker process.

    Args:
        index: the sample index.
        draw: position of this draw in the sequence of all draws over all ranks, >= 0.
        seed: seed of the run, >= 0.

    Raises:
        ValueError: if ``draw`` or ``seed`` is negative.
    """

    draw: int
    seed: int

    def __new__(cls, index: int, *, draw: int, seed: int) -> Draw:
        if draw < 0 or seed < 0:
            raise ValueError(
                f'a draw needs draw >= 0 and seed >= 0, got {draw=} and {seed=}'
            )
        self = super().__new__(cls, index)
        self.draw = draw
        self.seed = seed
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[int], dict[str, int]]:
        return (int(self),), {'draw': self.draw, 'seed': self.seed}

    def _moved_to(self, index: int) -> Draw:
        # Results of other operand types are NotImplemented or no index any more.
        if not isinstance(index, int):
            return index
        return Draw(index, draw=self.draw, seed=self.seed)

    def __add__(self, other: int) -> Draw:
        return self._moved_to(super().__add__(other))

    def __radd__(self, other: int) -> Draw:
        return self._moved_to(super().__radd__(other))

    def __sub__(self, other: int) -> Draw:
        return self._moved_to(super().__sub__(other))

    def __mod__(self, other: int) -> Draw:
        return self._moved_to(super().__mod__(other))

    def __repr__(self) -> str:
        return f'Draw({int(self)}, draw={self.draw}, seed={self.seed})'


@contextmanager
def draw_rng(index: int) -> Iterator[None]:
    """Give the body random numbers that follow from the draw alone.

    Python's, NumPy's and torch's CPU generators are seeded by (seed, draw number,
    sample index) and put back afterwards, so that loading in the training process
    itself (no workers) does not touch the randomness of the model. A plain ``int``,
    as in testing, changes nothing.

    Args:
        index: the index given to ``Dataset.__getitem__``, a :class:`Draw` or not.
    """
    if not isinstance(index, Draw):
        yield
        return
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    # SeedSequence mixes well: neighbouring draws have unrelated streams.
    words = np.random.SeedSequence((index.seed, index.draw, int(index))).generate_state(
        6
    )
    random.seed(int(words[0]) << 32 | int(words[1]))
    np.random.seed(words[2:4])  # noqa: NPY002
    # torch.manual_seed would re-seed the accelerators as well.
    torch.default_generator.manual_seed(int(words[4]) << 31 | int(words[5]) >> 1)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)


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
