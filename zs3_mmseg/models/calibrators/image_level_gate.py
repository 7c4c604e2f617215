"""The image as a whole votes on which classes it holds."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.registry import MODELS

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.decode_heads.query_reduction import reduce_queries

from .base import Calibrator


@MODELS.register_module()
class ImageLevelGate(Calibrator):
    """Add the image-level logits of the global token to every pixel's scores.

    ``scores + weight * scale * cos(global token, class row)``; a class with synonyms
    counts with its best one. In sliding inference each window votes for itself. This
    is the training-free control of Shapes: choose ``weight`` on val images.

    Args:
        weight: factor on the image-level logits; 0 switches the gate off.
        space: ``'logit'`` or ``'score'``.
        scale: factor on the cosines; the one of ``DenseTextHead``, so that a weight
            of 1 counts image and pixel alike.
    """

    needs_global_token = True

    def __init__(
        self,
        weight: float,
        *,
        space: Literal['logit', 'score'] = 'logit',
        scale: float = 40.0,
    ) -> None:
        super().__init__(space)
        self.weight = weight
        self.scale = scale

    def forward(
        self,
        scores: Tensor,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        classes: slice = slice(None),
    ) -> Tensor:
        """Return gated scores.

        Raises:
            ValueError: if there is no global token, or it has another width than the
                class embeddings.
        """
        if global_token is None:
            raise ValueError(
                'ImageLevelGate needs the global token of the image: use a backbone '
                'that returns one, e.g. OpenCLIPViT(out_global=True)'
            )
        rows = queries.embeddings
        if global_token.shape[1] != rows.shape[1]:
            raise ValueError(
                f'the global token has {global_token.shape[1]} channels and class '
                f'embeddings {rows.shape[1]}: ImageLevelGate needs both from one CLIP'
            )
        with torch.autocast(scores.device.type, enabled=False):
            cosines = (
                F.normalize(global_token.float(), dim=1)
                @ F.normalize(rows.float(), dim=1).T
            )  # (N, Q)
            gate = reduce_queries(cosines, queries.queries_per_class, 'max')
            votes = self.weight * self.scale * gate[:, classes]  # (N, K')
        return scores + votes[:, :, None, None]
