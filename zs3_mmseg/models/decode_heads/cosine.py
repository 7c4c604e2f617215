"""Cosine similarity of every patch with every class row."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_maps(features: Tensor, rows: Tensor) -> Tensor:
    """Return the cosine of each position's feature with each row.

    Computed in float32 under autocast as well: bfloat16 resolves cosines of a typical
    0.2 only to 0.001, which a logit scale of 40 or 100 turns into visible noise.

    Args:
        features: ``(N, D, h, w)``.
        rows: ``(Q, D)``.

    Returns:
        ``(N, Q, h, w)``, values in -1..1.

    Raises:
        ValueError: if features and rows have different widths.
    """
    if features.shape[1] != rows.shape[1]:
        raise ValueError(
            f'feature maps have {features.shape[1]} channels and class embeddings '
            f'{rows.shape[1]}: they must come from the same embedding space (same '
            'arch and pretrained of backbone and class_embeddings), or a head with a '
            'trained projection has to stand between them'
        )
    with torch.autocast(features.device.type, enabled=False):
        patches = F.normalize(features.flatten(2).float(), dim=1)  # (N, D, hw)
        maps = F.normalize(rows.float(), dim=1) @ patches  # (N, Q, hw)
    return maps.unflatten(2, features.shape[2:])
