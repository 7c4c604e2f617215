"""Two-stage segmentation: a proposer finds masks, a region classifier names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmseg.registry import MODELS
from mmseg.utils import ConfigType, SampleList

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.proposers import Proposer
from zs3_mmseg.models.region_classifiers import RegionClassifier, Regions

from .mask_scores import MaskScores
from .zero_shot_head import ScoreKind, ZeroShotHead


@MODELS.register_module()
class ProposalHead(ZeroShotHead):
    r"""Any proposer with any region classifier; nothing is trained here.

    With the masks :math:`m_{ip}` of the proposer and the scores :math:`c_{ik}` that the
    classifier gives them, pixel :math:`p` scores :math:`\sum_i c_{ik} m_{ip}` for class
    :math:`k`, or with ``output='log_mean'`` the logarithm of the mean over the masks
    that lie on it, see :class:`MaskScores`. The proposer sees the whole picture once;
    windows and flipped views get its masks cut and mirrored.

    Args:
        in_channels: channels of the feature map(s) that the classifier reads.
        proposer: config of a :class:`~zs3_mmseg.models.proposers.Proposer`, or one.
        region_classifier: config of a
            :class:`~zs3_mmseg.models.region_classifiers.RegionClassifier`, or one.
        output: ``'sum'`` or ``'log_mean'``.
        **kwargs: see :class:`ZeroShotHead`.
    """

    score_kind: ScoreKind = 'mask_sum'

    def __init__(
        self,
        in_channels: int,
        *,
        proposer: ConfigType | Proposer,
        region_classifier: ConfigType | RegionClassifier,
        output: Any = 'sum',
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, **kwargs)
        self.proposer: Proposer = _built(proposer)
        self.region_classifier: RegionClassifier = _built(region_classifier)
        self.output = output

    def predict(  # type: ignore[override]  # it cannot do without the image
        self,
        inputs: Sequence[Tensor],
        batch_img_metas: list[dict],
        test_cfg: ConfigType | None,
        *,
        queries: ClassQueries,
        image: Any,
        global_token: Tensor | None = None,
    ) -> MaskScores:
        """Find masks and name them.

        Args:
            inputs: feature maps ``(N, C, h, w)``.
            batch_img_metas: their ``img_shape`` is the size that the maps stand for.
            test_cfg: not read.
            queries: rows of ``K`` classes.
            image: the pictures, see ``InputImage`` of the segmentors.
            global_token: ``(N, E)`` of the pictures, if there is one.

        Returns:
            masks ``(N, M, H, W)`` and class scores ``(N, M, K)``.
        """
        found = image.proposals(self.proposer)
        # Pictures with fewer masks than others get empty ones.
        masks = pad_sequence(found, batch_first=True)  # (N, M, H, W)
        height, width = batch_img_metas[0]['img_shape'][:2]
        missing = (0, width - masks.shape[3], 0, height - masks.shape[2])
        masks = F.pad(masks, missing)
        regions = Regions(masks, image, tuple(inputs), global_token)
        scores = self.region_classifier(regions, queries)
        return MaskScores(masks, scores, mask_kind='prob', output=self.output)

    def query_logits(self, inputs: Sequence[Tensor], **given: Any) -> Tensor:
        """Refuse: there is one score per mask, not one map per row."""
        raise NotImplementedError('ProposalHead has predict in place of query_logits')

    def loss_by_feat(
        self, outputs: Any, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Refuse to train.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            'ProposalHead trains nothing: test it with tools/test.py, or train a head '
            'that returns MaskScores'
        )

    def training_outputs(self, inputs: Sequence[Tensor], **given: Any) -> None:
        """Return nothing, see :meth:`loss_by_feat`."""


def _built(part: Any) -> Any:
    return MODELS.build(dict(part)) if isinstance(part, Mapping) else part
