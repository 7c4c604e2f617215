"""Regression of pixels to class vectors, after DeViSE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS
from mmseg.utils import SampleList

from zs3_mmseg.models.class_embeddings.queries import ClassQueries

from .cosine import cosine_maps
from .pixel_loss import pixel_accuracy
from .zero_shot_head import ZeroShotHead


@MODELS.register_module()
class CosineRegressionHead(ZeroShotHead):
    """One 1x1 convolution to the class vectors' space, trained by ``1 - cosine``.

    The baseline of ZS3Net (arXiv 1906.00817, section 4) after DeViSE: each pixel is
    drawn to the vector of its class and pushed away from none; the class with the
    largest cosine wins. No official code exists, so this is a reconstruction.

    Args:
        in_channels: channels of the features.
        embed_dim: length of a class vector.
        **kwargs: see :class:`ZeroShotHead`.
    """

    # Cosines are compared as they are.
    score_kind = 'logit'

    def __init__(self, in_channels: int, *, embed_dim: int, **kwargs: Any) -> None:
        super().__init__(in_channels, embed_dim, **kwargs)
        self.projection = nn.Conv2d(in_channels, embed_dim, 1)

    def query_logits(
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
    ) -> Tensor:
        """Return cosines of projected features and rows, ``(N, Q, h, w)``."""
        features = self.projection(self._transform_inputs(inputs))
        return cosine_maps(features, queries.embeddings)

    def loss_by_feat(
        self, outputs: Tensor, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Mean of ``1 - cosine`` to the true class over all labelled pixels.

        Args:
            outputs: cosines ``(N, K, h, w)``, resized bilinearly to the labels.
            batch_data_samples: samples with ``gt_sem_seg`` ``(1, H, W)``.
        """
        labels = self._stack_batch_gt(batch_data_samples)  # (N, 1, H, W)
        cosines = F.interpolate(
            outputs,
            size=labels.shape[-2:],
            mode='bilinear',
            align_corners=self.align_corners,
        )
        valid = labels != self.ignore_index
        chosen = cosines.gather(1, labels.where(valid, 0))
        loss = ((1 - chosen) * valid).sum() / valid.sum().clamp(min=1)
        accuracy = pixel_accuracy(
            outputs,
            labels.squeeze(1),
            ignore_index=self.ignore_index,
            align_corners=self.align_corners,
        )
        return {'loss_cosine': loss, 'acc_seg': accuracy}
