"""What a backbone returns: maps, and what it knows of the image beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TowerOutput:
    """Outputs of a backbone, by name.

    A backbone may return it in place of mmseg's tuple of maps. Heads get the tokens as
    keywords of the same names if they declare them.

    Attributes:
        maps: one ``(N, C, h, w)`` per ``out_indices``.
        global_token: ``(N, E)``, the token of the whole image.
        cls_tokens: ``(N, T, E)``, class tokens of ``T`` taps or stages.
        group_tokens: ``(N, G, E)``, tokens that gather parts of the image.
    """

    maps: tuple[Tensor, ...]
    global_token: Tensor | None = None
    cls_tokens: Tensor | None = None
    group_tokens: Tensor | None = None

    @classmethod
    def of(cls, outputs: Tensor | Sequence[Tensor] | TowerOutput) -> TowerOutput:
        """Name the outputs of any backbone.

        Args:
            outputs: a map, a sequence of maps, which may end in the global token
                ``(N, E)``, or a ``TowerOutput``.
        """
        if isinstance(outputs, TowerOutput):
            return outputs
        maps = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
        if maps[-1].ndim == 2:
            return cls(maps[:-1], maps[-1])
        return cls(maps)
