"""One class name for each image inside an image tower, as in ESDA.

ESDA: Image and Vision Computing 2025, doi 10.1016/j.imavis.2025.105456.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .options import check_blocks
from .prior_maps import masked_prototype, patch_weights, prior_map
from .shared_tokens import SharedTokens


class ClassPrompt(nn.Module):
    """Puts a class name into some blocks and compares patches with it in some.

    Args:
        replace_cls: the blocks before which the class token becomes the projected text
            row of the name.
        priors: the blocks whose patches are compared with a prototype of the class:
            the mean of its patches, or in the last block the projected text.
        num_blocks: blocks of the tower.
        text_dim: length ``E`` of a text row.
        width: channels ``D`` of the tower's tokens.

    Raises:
        ValueError: for blocks that do not exist, or a last prior without any text.
    """

    proj: nn.Linear | None

    def __init__(
        self,
        *,
        replace_cls: Sequence[int],
        priors: Sequence[int],
        num_blocks: int,
        text_dim: int,
        width: int,
    ) -> None:
        super().__init__()
        self.replace_cls = check_blocks('replace_cls', replace_cls, num_blocks)
        self.priors = check_blocks('priors', priors, num_blocks)
        self.last_block = num_blocks - 1
        self.text_dim = text_dim
        if self.last_block in self.priors and not self.replace_cls:
            raise ValueError(
                f'priors={self.priors} holds the last block, whose prototype is the '
                f'projected text: set replace_cls, or leave {self.last_block} out'
            )
        self.proj = nn.Linear(text_dim, width) if self.replace_cls else None

    @torch.no_grad()
    def start_like_dense_logits(self, visual: Any) -> None:
        """Let a text row begin as the direction of patches that it is most like.

        CLIP scores a token ``x`` as ``proj(norm(x) * w) . s``, with the weights ``w``
        of the last norm and the text row ``s``: as ``norm(x) . (w * (proj^T s))``, of
        which the second factor is what a text row is projected to here.

        Args:
            visual: open_clip's image tower.
        """
        assert self.proj is not None  # there is something to project
        weight = visual.ln_post.weight[:, None] * visual.proj  # (D, E)
        # Rows keep their length on average.
        self.proj.weight.copy_(weight / weight.norm(dim=0).mean())
        self.proj.bias.zero_()

    def project(self, text_cls: Tensor | None, num_pairs: int) -> Tensor | None:
        """Return the class tokens that enter the blocks, or None if none does.

        Args:
            text_cls: ``(N, E)``.
            num_pairs: ``N``, for the check.

        Returns:
            ``(N, D)``.

        Raises:
            ValueError: if the text is missing, not needed, or of another shape.
        """
        if self.proj is None:
            if text_cls is None:
                return None
            raise ValueError('text_cls is read by no block: set backbone.replace_cls')
        if text_cls is None:
            raise ValueError(
                f'replace_cls={self.replace_cls} needs text_cls, the text row of one '
                'class name for each image: use a segmentor that prompts with names'
            )
        if text_cls.shape != (num_pairs, self.text_dim):
            raise ValueError(
                f'text_cls is {tuple(text_cls.shape)}, expected a row of '
                f'{self.text_dim} for each of {num_pairs} images'
            )
        return self.proj(text_cls)

    def enter(self, block: int, tokens: Tensor, text: Tensor | None) -> Tensor:
        """Return the tokens ``(N, L, D)`` that go into a block."""
        if text is None or block not in self.replace_cls:
            return tokens
        return torch.cat([text.to(tokens.dtype).unsqueeze(1), tokens[:, 1:]], dim=1)

    def needed_outputs(self, foreground: Tensor | None) -> set[int]:
        """Return the blocks whose patches :meth:`prior_maps` looks at."""
        if foreground is not None:
            return set(self.priors)
        return {self.last_block}.intersection(self.priors)

    def prior_maps(
        self, state: SharedTokens, text: Tensor | None, foreground: Tensor | None
    ) -> Tensor:
        """Compare the patches of blocks with their prototypes.

        Args:
            state: the tokens after the tower, with the outputs of the blocks.
            text: what :meth:`project` returned.
            foreground: ``(N, H, W)``, where the class is; None: all prototypes but the
                text are zeros, and so are their maps.

        Returns:
            ``(N, len(priors), h, w)``, values in 0..1.
        """
        weights = None
        if foreground is not None:
            weights = patch_weights(foreground, state.grid)
        maps = []
        for block in self.priors:
            if block == self.last_block and text is not None:
                maps.append(prior_map(state.patches(block), text, state.grid))
            elif weights is not None:
                patches = state.patches(block)
                prototype = masked_prototype(patches, weights)
                maps.append(prior_map(patches, prototype, state.grid))
            else:
                shape = (len(state.tokens), 1, *state.grid)
                maps.append(state.tokens.new_zeros(shape, dtype=torch.float32))
        return torch.cat(maps, dim=1)
