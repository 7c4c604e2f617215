"""Which check belongs to which golden file.

A golden file is ``NAME.json``, mostly with the tensors in ``NAME.safetensors``
beside it. The longest known prefix of its name tells the check: a module
``checks_*.py`` in this folder that registers one is all a new piece needs::

    @check('zegclip_text_tower')
    def text_tower(golden: GoldenFile) -> None:
        ...
        assert_close(actual, golden.tensors()['features'])

The checks read every dimension from the JSON and assume no sizes: other
recordings of the same piece carry a suffix (``zegclip_text_tower_2``).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

#: Relative tolerances of fp32 on CPU: outputs and losses, gradients.
TOLERANCE = {'output': 1e-5, 'gradient': 1e-4}


class MissingPieceError(NotImplementedError):
    """A golden file records a piece that has not been built yet."""


@dataclass(frozen=True)
class GoldenFile:
    """One recording: ``NAME.json`` and, if the JSON names it, its tensors.

    Attributes:
        path: where the JSON is (or would be, if only the tensors are there).
    """

    path: Path

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    @property
    def tensor_path(self) -> Path:
        """Where the tensors are, if the recording has any."""
        return self.path.with_suffix('.safetensors')

    @cached_property
    def json(self) -> dict[str, Any]:
        """The configuration and plain values of the recording."""
        return json.loads(self.path.read_text())

    def tensors(self) -> dict[str, torch.Tensor]:
        """Read the tensors; weights have keys that begin with ``state.``."""
        return load_file(self.tensor_path)

    def state(self, prefix: str = 'state.') -> dict[str, torch.Tensor]:
        """Return the weights under ``prefix``, with the official key names."""
        return {
            key.removeprefix(prefix): value
            for key, value in self.tensors().items()
            if key.startswith(prefix)
        }

    def require_complete(self) -> None:
        """Raise an error naming the file if a part is unreadable or missing."""
        if not self.path.is_file():
            raise FileNotFoundError(f'{self.tensor_path.name} has no {self.path.name}')
        try:
            content = self.json
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(
                f'{self.path.name} is no readable JSON: {error}'
            ) from error
        has_tensors = isinstance(content, dict) and (
            'file' in content or 'tensors' in content
        )
        if has_tensors and not self.tensor_path.is_file():
            raise FileNotFoundError(
                f'{self.path.name} describes tensors, but {self.tensor_path.name} '
                'is not beside it'
            )


Check = Callable[[GoldenFile], None]
CHECKS: dict[str, Check] = {}


def check(*prefixes: str) -> Callable[[Check], Check]:
    """Register a function as the check of the files with these prefixes."""

    def register(function: Check) -> Check:
        for prefix in prefixes:
            if prefix in CHECKS:
                raise ValueError(f'two checks are registered for {prefix!r}')
            CHECKS[prefix] = function
        return function

    return register


def load_checks() -> dict[str, Exception | None]:
    """Import every ``checks_*.py`` beside this file.

    Returns:
        Each module's name with the error its import raised, if any: one broken
        module then fails by its name and leaves the others alone.
    """
    outcome: dict[str, Exception | None] = {}
    for path in sorted(Path(__file__).parent.glob('checks_*.py')):
        try:
            importlib.import_module(path.stem)
        except Exception as error:  # noqa: BLE001 - handed to a test of its own
            outcome[path.stem] = error
        else:
            outcome[path.stem] = None
    return outcome


def longest_prefix(name: str, prefixes: Iterable[str]) -> str | None:
    """Return the longest prefix that ``name`` is or continues after a ``_``."""
    fitting = [p for p in prefixes if name == p or name.startswith(f'{p}_')]
    return max(fitting, key=len, default=None)


def assert_close(
    actual: Any,
    reference: Any,
    kind: str = 'output',
    tolerance: float | None = None,
    what: str = 'result',
    undefined: bool = False,
) -> None:
    """Assert that max \\|actual - reference\\| <= tolerance * max \\|reference\\|.

    Args:
        actual: our values; anything ``torch.as_tensor`` takes.
        reference: the recorded values, of the same shape.
        kind: ``'output'`` (also losses; 1e-5) or ``'gradient'`` (1e-4).
        tolerance: replaces the tolerance of ``kind``.
        what: the name of the value, for the message.
        undefined: whether the JSON says that the reference is NaN in places; there, and
            nowhere else, ours is not compared, and has to be finite.
    """
    ours = np.asarray(torch.as_tensor(actual).detach().cpu(), dtype=np.float64)
    theirs = np.asarray(torch.as_tensor(reference).detach().cpu(), dtype=np.float64)
    assert ours.shape == theirs.shape, f'{what}: {ours.shape} is not {theirs.shape}'
    if not ours.size:
        return
    if undefined:
        assert np.isfinite(ours).all(), f'{what}: not finite'
        known = ~np.isnan(theirs)
        assert not known.all(), f'{what}: said to be NaN, but no NaN is recorded'
        ours, theirs = ours[known], theirs[known]
        if not ours.size:
            return
    assert np.isfinite(ours).all() == np.isfinite(theirs).all(), f'{what}: not finite'
    limit = (TOLERANCE[kind] if tolerance is None else tolerance) * np.abs(theirs).max()
    difference = np.abs(ours - theirs).max()
    assert difference <= limit, (
        f'{what}: largest difference {difference:.3g} is over {limit:.3g}'
    )


def one_thread_or_two(compare: Callable[[], None]) -> None:
    """Compare with sums in the order of one thread, or else of two."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        compare()
    except AssertionError:
        torch.set_num_threads(2)
        compare()
    finally:
        torch.set_num_threads(threads)
