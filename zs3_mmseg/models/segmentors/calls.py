"""Calling heads with what they declare."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def declared(function: Callable) -> frozenset[str]:
    """Return the names of the parameters of a function or class."""
    return frozenset(inspect.signature(function).parameters)


def call_with(function: Callable, *args: Any, **given: Any) -> Any:
    """Call a head's method with those of ``given`` that it declares by name."""
    names = declared(function)
    return function(*args, **{k: v for k, v in given.items() if k in names})


def reads_queries(head: Any) -> bool:
    """Tell whether a head, or a class of heads, reads class embeddings."""
    return any(
        'queries' in declared(method)
        for name in ('forward', 'predict', 'loss')
        if (method := getattr(head, name, None)) is not None
    )
