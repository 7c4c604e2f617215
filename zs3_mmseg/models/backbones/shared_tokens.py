"""Where a forward pass stands before class names come in."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class SharedTokens:
    """Tokens between two blocks, and what earlier blocks left behind.

    Attributes:
        tokens: ``(B, L, D)``; the last ``h * w`` are patches.
        pooled: the tokens that the global token would come from.
        grid: ``(h, w)``.
        outputs: block -> its output ``(B, L, D)``, where that is needed later.
    """

    tokens: Tensor
    pooled: Tensor
    grid: tuple[int, int]
    outputs: Mapping[int, Tensor] = field(default_factory=dict)

    def patches(self, block: int) -> Tensor:
        """Return the patches after a block: ``(B, hw, D)``."""
        return self.outputs[block][:, -self.grid[0] * self.grid[1] :]

    def pairs(self, image_index: Tensor, needed: Container[int]) -> SharedTokens:
        """Return the state of ``N`` pairs, each with one of the ``B`` images.

        Args:
            image_index: ``(N,)``, the image of each pair.
            needed: blocks whose outputs are still needed.
        """
        tokens = self.tokens[image_index]
        alone = self.pooled is not self.tokens
        return SharedTokens(
            tokens,
            self.pooled[image_index] if alone else tokens,
            self.grid,
            {b: out[image_index] for b, out in self.outputs.items() if b in needed},
        )
