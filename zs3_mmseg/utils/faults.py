"""Faults of files that users wrote: the first is raised, unless all are collected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_COLLECTED: ContextVar[list[Exception] | None] = ContextVar('collected', default=None)


def fault(error: Exception) -> None:
    """Raise an error, or keep it for who collects them; the caller then goes on."""
    collected = _COLLECTED.get()
    if collected is None:
        raise error
    collected.append(error)


def collects_faults() -> bool:
    """Whether somebody collects faults, who will look at each file anyway."""
    return _COLLECTED.get() is not None


@contextmanager
def collected_faults() -> Iterator[list[Exception]]:
    """Collect what :func:`fault` is told in this block."""
    found: list[Exception] = []
    token = _COLLECTED.set(found)
    try:
        yield found
    finally:
        _COLLECTED.reset(token)
