"""A head that goes down a tree of names, from groups of classes to classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.registry import MODELS

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.names import choose

from .text_heads import TextPixelHead, cosine_maps


def tree_levels(paths: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Find the tree in the rows along the paths to its leaves.

    Two paths share a node if all their rows down to it are the same, but for rounding.

    Args:
        paths: ``(Q, P, D)``, from the top down; a last row that repeats is one node.

    Returns:
        for each of the ``P`` levels the rows of its nodes ``(M, D)``, the parent of
        each among the nodes of the level above ``(M,)``, and the node of each path
        ``(Q,)``.
    """
    above = torch.zeros(len(paths), dtype=torch.long, device=paths.device)
    scale = paths.norm(dim=2).max()
    levels = []
    for rows in paths.unbind(1):
        distances = torch.cdist(
            rows.double(), rows.double(), compute_mode='donot_use_mm_for_euclid_dist'
        )
        same = (distances <= 1e-5 * scale) & (above[:, None] == above)
        first = same.int().argmax(dim=1)  # the first path through the same node
        owners, node = first.unique(return_inverse=True)
        levels.append((rows[owners], above[owners], node))
        above = node
    return levels


@MODELS.register_module()
class HierarchicalTextHead(TextPixelHead):
    """Cosines with names along a tree: ``log p(leaf)`` summed over its path.

    With ``z_n = scale * cos(P(f), t_n)`` for every name ``n`` of the tree::

        log p(k) = sum over nodes n on the path to k of
                   z_n - log sum over siblings m of n (itself among them) of exp(z_m)

    So no early mistake is final, unlike a descent to the best child: a class may win by
    its name although its group does not. The ``p(k)`` of all classes sum to 1, and with
    one level they are the softmax of :class:`TextPixelHead`. Siblings are those above
    classes of the current vocabulary; rows along paths come from
    ``class_embeddings.hierarchy``. With ``projection='none'`` and
    ``learn_scale=False`` nothing is trained.

    Args:
        in_channels: channels of the features.
        embed_dim: width of the class embeddings; ``in_channels`` if None.
        inner: what a name above classes is compared by: ``'text'``, its own row, or
            ``'mean'``, the mean of the rows, scaled to length 1, of the current classes
            below it, for text towers that do not know such words.
        **kwargs: see :class:`TextPixelHead`.

    Raises:
        ValueError: for an unknown ``inner``.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        *,
        embed_dim: int | None = None,
        inner: Literal['text', 'mean'] = 'text',
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, embed_dim=embed_dim, **kwargs)
        self.inner = choose('HierarchicalTextHead.inner', inner, ('text', 'mean'))

    def query_logits(
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
    ) -> Tensor:
        """Return ``log p`` of each query, ``(N, Q, h, w)``.

        Raises:
            ConfigError: for rows of images, which have no paths.
        """
        if queries.embeddings.ndim != 2:
            raise ConfigError(
                'HierarchicalTextHead compares all names of a tree with an image: set '
                "model.type='ZeroShotEncoderDecoder'"
            )
        features = self.projection(self._transform_inputs(inputs))
        paths = queries.embeddings.unflatten(0, (-1, queries.prompts_per_row))
        leaves = F.normalize(paths[:, -1], dim=1)
        found: Tensor | None = None
        for rows, parents, node in tree_levels(paths):
            if self.inner == 'mean':
                sums = torch.zeros_like(rows).index_add(0, node, leaves)
                rows = sums / node.bincount()[:, None]
            logits = self.scale() * cosine_maps(features, rows)  # (N, M, h, w)
            logs = torch.empty_like(logits)
            for parent in range(int(parents.max()) + 1):
                siblings = (parents == parent).nonzero().flatten()
                logs[:, siblings] = logits[:, siblings].log_softmax(dim=1)
            # (N, Q, h, w): what the level adds to each path
            found = logs[:, node] if found is None else found + logs[:, node]
        assert found is not None  # a path has at least one name
        return found
