"""What a backbone returns: maps, and sometimes the global token of the image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def split_token(
    outputs: Tensor | Sequence[Tensor],
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Tell maps ``(N, C, h, w)`` from a last output ``(N, E)``, the global token.

    Args:
        outputs: of a backbone.

    Returns:
        the maps, and the global token, None if there is none.
    """
    maps = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    if maps[-1].ndim == 2:
        return maps[:-1], maps[-1]
    return maps, None
