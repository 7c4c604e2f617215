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
from zs3_mmseg.utils.config_check import ConfigError

from .mask_scores import MaskScores
from .zero_shot_head import ScoreKind, ZeroShotHead


@MODELS.register_module()
class ProposalHead(ZeroShotHead):
    r"""Any proposer with any region classifier; nothing is trained here.

    With the masks :math:`m_{ip}` of the proposer and the scores :math:`c_{ik}` that the
    classifier gives them, pixel :math:`p` scores :math:`\sum_i c_{ik} m_{ip}` for class
    :math:`k`, or with ``output='log_mean'``, see :class:`MaskScores`, the logarithm of
    the mean over the masks that lie on it, weighted by

    .. math:: w_i = s_i\, a_i^{-\gamma}

    with the score :math:`s_i` of the proposer and the area :math:`a_i`, so that with
    :math:`\gamma > 0` small masks lie on top of large ones. Where no mask lies,
    ``fallback`` scores: another head on the same features. The proposer sees the whole
    picture once; windows and flipped views get its masks cut and mirrored.

    Args:
        in_channels: channels of the feature map(s) that the classifier reads.
        proposer: config of a :class:`~zs3_mmseg.models.proposers.Proposer`, or one.
        region_classifier: config of a
            :class:`~zs3_mmseg.models.region_classifiers.RegionClassifier`, or one.
        output: ``'sum'`` or ``'log_mean'``.
        area_power: :math:`\gamma`, >= 0, of ``'log_mean'``.
        fallback: config of a head such as ``DenseTextHead``, or one, of
            ``'log_mean'``; the logarithm of its softmax scores where no mask lies.
            None: all classes score the least there.
        **kwargs: see :class:`ZeroShotHead`.

    Raises:
        ValueError: for a negative ``area_power``, or options without effect.
    """

    score_kind: ScoreKind = 'mask_sum'

    def __init__(
        self,
        in_channels: int,
        *,
        proposer: ConfigType | Proposer,
        region_classifier: ConfigType | RegionClassifier,
        output: Any = 'sum',
        area_power: float = 0.0,
        fallback: ConfigType | ZeroShotHead | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, **kwargs)
        if area_power < 0:
            raise ValueError(f'area_power must be >= 0, not {area_power}')
        if output == 'sum' and (area_power or fallback is not None):
            raise ValueError(
                "area_power and fallback are parts of output='log_mean', and have no "
                "effect on output='sum'"
            )
        self.proposer: Proposer = built_part(proposer)
        self.region_classifier: RegionClassifier = built_part(region_classifier)
        self.output = output
        self.area_power = area_power
        if isinstance(fallback, Mapping):
            fallback = built_part({'in_channels': in_channels, **fallback})
        self.fallback: ZeroShotHead | None = fallback
        if fallback is not None and fallback.score_kind != 'softmax':
            raise ConfigError(
                f'decode_head.fallback: {type(fallback).__name__} has no softmax over '
                "the classes: use a head with score_kind='softmax', as DenseTextHead"
            )

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
            bool masks ``(N, M, H, W)`` and class scores ``(N, M, K)``.
        """
        size = batch_img_metas[0]['img_shape']
        masks, sure, areas = proposed(self.proposer, image, size)
        regions = Regions(masks, image, tuple(inputs), global_token)
        scores = self.region_classifier(regions, queries)
        found = dict(mask_kind='prob', output=self.output)
        if self.output == 'log_mean':
            found['weights'] = sure * areas.clamp(min=1) ** -self.area_power
            if self.fallback is not None:
                logits = self.fallback(inputs, queries=queries)
                found['fallback'] = logits.float().log_softmax(dim=1)
        return MaskScores(masks, scores, **found)

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


def proposed(
    proposer: Proposer, image: Any, size: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a proposer finds in the pictures that a network gets.

    Args:
        proposer: shown each whole picture once.
        image: the pictures, see ``InputImage`` of the segmentors.
        size: height and width that masks are filled up to.

    Returns:
        masks ``(N, M, H, W)`` bool, those of pictures with fewer than others filled up
        with empty ones, and scores and areas in the whole picture ``(N, M)``.
    """
    metas, sure, areas = iter(image.metas), [], []

    def propose(picture: Tensor) -> Tensor:
        masks, scores = proposer.scored(picture, next(metas))
        sure.append(scores)
        # One by one: a sum of all at once makes them numbers of 64 bits first.
        areas.append(scores.new_tensor([float(mask.sum()) for mask in masks]))
        return masks

    found = image.proposals(propose)
    height, width = size[:2]
    missing = (0, width - found[0].shape[2], 0, height - found[0].shape[1])
    if any(missing):
        found = [F.pad(masks, missing) for masks in found]
    masks = pad_sequence(found, batch_first=True) if found[1:] else found[0][None]
    repeats = len(image.windows)
    return (
        masks,
        pad_sequence(sure * repeats, batch_first=True),
        pad_sequence(areas * repeats, batch_first=True),
    )


def built_part(part: Any) -> Any:
    return MODELS.build(dict(part)) if isinstance(part, Mapping) else part
