"""What heads share whose queries find masks that text rows name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.registry import MODELS
from mmseg.utils import ConfigType, SampleList

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.losses import MaskClassificationLoss, mask_targets
from zs3_mmseg.models.region_classifiers import LogitRegionClassifier, Regions
from zs3_mmseg.utils.config_check import ConfigError

from .mask_scores import MaskScores
from .zero_shot_head import ScoreKind, ZeroShotHead, reduce_queries, single_rows


@dataclass(frozen=True)
class QueryMasks:
    """What the queries found, by decoder layer.

    Attributes:
        class_logits: ``(L, N, M, K + 1)``, "no object" last.
        masks: ``(L, N, M, h, w)``, logits.
    """

    class_logits: Tensor
    masks: Tensor


class QueryMaskHead(ZeroShotHead):
    """Base of heads whose queries find masks, which text rows name.

    A subclass finds masks and their class logits (:meth:`find`), and joins the latter
    with those of the region classifier, if there is one (:meth:`joined`). Pixel
    ``p`` scores for class ``k`` the sum over masks of class score times mask
    probability. Training: :class:`MaskClassificationLoss` of every layer. Transductive
    training fills unlabelled pixels by the same scores, without the region classifier.

    Args:
        in_channels: of the maps, fine to coarse.
        channels: inner width.
        embed_dim: length of a text row.
        loss_masks: options of :class:`MaskClassificationLoss`.
        region_classifier: config of a
            :class:`~zs3_mmseg.models.region_classifiers.LogitRegionClassifier`, or one;
            only used in the test.
        seen_weight: its say about seen classes, 0..1.
        unseen_weight: its say about unseen classes, 0..1.
        in_index: which maps of the backbone are read, fine to coarse.
        **kwargs: see :class:`ZeroShotHead`.

    Raises:
        ValueError: for weights outside 0..1, and a ``channels`` not divisible by 4.
        ConfigError: for a region classifier without logits.
    """

    score_kind: ScoreKind = 'mask_sum'
    region_classifier: LogitRegionClassifier | None

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        embed_dim: int,
        loss_masks: ConfigType | None,
        region_classifier: ConfigType | LogitRegionClassifier | None,
        seen_weight: float,
        unseen_weight: float,
        in_index: Sequence[int],
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels,
            channels,
            in_index=in_index,
            input_transform='multiple_select',
            **kwargs,
        )
        # Rows and columns, sine and cosine.
        if channels % 4:
            raise ValueError(f'channels={channels} must be a multiple of 4')
        for name, weight in (('seen', seen_weight), ('unseen', unseen_weight)):
            if not 0 <= weight <= 1:
                raise ValueError(f'{name}_weight must be in 0..1, not {weight}')
        self.embed_dim = embed_dim
        self.seen_weight = seen_weight
        self.unseen_weight = unseen_weight
        self.loss_masks = MaskClassificationLoss(**(loss_masks or {}))
        self.region_classifier = (
            MODELS.build(region_classifier)
            if isinstance(region_classifier, dict)
            else region_classifier
        )
        if not isinstance(self.region_classifier, LogitRegionClassifier | None):
            raise ConfigError(
                'decode_head.region_classifier must give logits, which '
                f'{type(self.region_classifier).__name__} does not: use CropClassifier '
                'or MaskPoolingClassifier'
            )

    @abstractmethod
    def _draw(self) -> None:
        """Draw weights as the official code does."""

    def init_weights(self) -> None:
        """Draw weights as published, unless ``init_cfg`` says otherwise."""
        super().init_weights()
        if self.init_cfg is None:
            self._draw()

    # -- what is found -------------------------------------------------------------

    @abstractmethod
    def find(
        self, inputs: Sequence[Tensor], queries: ClassQueries, every: bool
    ) -> QueryMasks:
        """Return what the queries of every layer, or of the last one, found."""

    def _text_logits(
        self, directions: Tensor, queries: ClassQueries, none: Tensor, scale: Any
    ) -> Tensor:
        """Return scaled products ``(..., K + 1)`` of directions of length 1.

        A class has the best of its rows; ``none`` ``(1, D)`` is the row of "no object".
        """
        rows = single_rows(queries, type(self).__name__)
        logits = scale * directions @ torch.cat([rows, none]).T
        named = reduce_queries(
            logits[..., :-1].flatten(0, -2), queries.queries_per_class, 'max'
        ).unflatten(0, directions.shape[:-1])
        return torch.cat([named, logits[..., -1:]], dim=-1)

    def training_outputs(  # type: ignore[override]
        self, inputs: Sequence[Tensor], *, queries: ClassQueries
    ) -> QueryMasks:
        """Return what the queries of every layer found."""
        return self.find(inputs, queries, every=True)

    def loss_by_feat(
        self, outputs: QueryMasks, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Return the losses of all layers, see :class:`MaskClassificationLoss`.

        Args:
            outputs: what :meth:`training_outputs` returned.
            batch_data_samples: samples with ``gt_sem_seg`` ``(1, H, W)``; each label
                but ``ignore_index`` is one target mask, or one in each of the segments
                of ``gt_segments`` ``(1, H, W)``, if there are any.
        """
        maps = self._stack_batch_gt(batch_data_samples).squeeze(1)
        targets = mask_targets(maps, batch_data_samples, self.ignore_index)
        return self.loss_masks(outputs.class_logits, outputs.masks, targets)

    def class_logits(self, outputs: QueryMasks) -> Tensor:
        """Return the scores ``(N, K, h, w)`` of the last layer, at mask resolution."""
        shares = outputs.class_logits[-1].softmax(dim=-1)[..., :-1]
        masks = outputs.masks[-1].sigmoid()
        sums = shares.transpose(1, 2) @ masks.flatten(2)
        return sums.unflatten(2, masks.shape[-2:])

    def forward(  # type: ignore[override]
        self, inputs: Sequence[Tensor], *, queries: ClassQueries
    ) -> Tensor:
        """Return scores ``(N, K, h, w)`` at mask resolution, of the head alone."""
        return self.class_logits(self.find(inputs, queries, every=False))

    def query_logits(self, inputs: Sequence[Tensor], **given: Any) -> Tensor:
        """Refuse: there is one score per mask, not one map per row."""
        raise NotImplementedError(
            f'{type(self).__name__} has predict in place of query_logits'
        )

    # -- test ----------------------------------------------------------------------

    def predict(  # type: ignore[override]
        self,
        inputs: Sequence[Tensor],
        batch_img_metas: list[dict],
        test_cfg: ConfigType | None,
        *,
        queries: ClassQueries | None = None,
        image: Any = None,
    ) -> MaskScores:
        """Find masks and name them.

        Args:
            inputs: feature maps ``(N, C, h, w)``.
            batch_img_metas: their ``img_shape`` is the size that the maps stand for.
            test_cfg: not read.
            queries: rows of ``K`` classes.
            image: the pictures, see ``InputImage`` of the segmentors; only read by some
                region classifiers.

        Returns:
            mask logits ``(N, M, h, w)`` and class scores ``(N, M, K)``.
        """
        queries = self._given_queries(queries)
        outputs = self.find(inputs, queries, every=False)
        size = batch_img_metas[0]['img_shape'][:2]
        logits, masks = outputs.class_logits[-1], outputs.masks[-1]
        return self.named(logits, masks, size, queries, image, inputs)

    def named(
        self,
        class_logits: Tensor,
        masks: Tensor,
        size: tuple[int, int],
        queries: ClassQueries,
        image: Any = None,
        maps: Sequence[Tensor] = (),
    ) -> MaskScores:
        """Make scores of logits ``(N, M, K + 1)`` and masks for images of a size."""
        class_logits = class_logits.float()
        if self.region_classifier is None:
            return MaskScores(masks, class_logits.softmax(dim=-1)[..., :-1])
        if self.region_classifier.needs_image:
            if image is None:
                raise ConfigError(
                    'decode_head.region_classifier looks at the image, which the '
                    f'segmentor does not give: set model.type={self.segmentor!r}'
                )
            height, width = image.pixels.shape[-2:]
            covering = covered_pixels(masks, size)[..., :height, :width]
        else:
            covering = masks > 0
        regions = Regions(covering, image, tuple(maps), mask_logits=masks)
        looked = self.region_classifier.logits(regions, queries)
        scores = self.joined(class_logits, looked, queries.seen_mask, regions)
        return MaskScores(masks, scores)

    @abstractmethod
    def joined(
        self, class_logits: Tensor, looked: Tensor, seen: Tensor, regions: Regions
    ) -> Tensor:
        """Join the head's logits with those of the region classifier.

        Args:
            class_logits: ``(N, M, K + 1)``, "no object" last.
            looked: ``(N, M, K)``.
            seen: ``(K,)`` bool.
            regions: what the region classifier saw.

        Returns:
            class scores ``(N, M, K)``.
        """

    def _weights(self, seen: Tensor) -> Tensor:
        """Return the say of the region classifier about each class, ``(K,)``."""
        return torch.where(seen, self.seen_weight, self.unseen_weight)


def covered_pixels(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Return ``(N, M, H, W)`` bool, where mask logits resized to a size are above 1/2.

    Mask by mask: only the bool masks are ever held at full resolution.
    """
    covered = torch.empty(
        *masks.shape[:2], *size, dtype=torch.bool, device=masks.device
    )
    for index, mask in enumerate(masks.float().split(1, dim=1)):
        full = F.interpolate(mask, size=size, mode='bilinear', align_corners=False)
        covered[:, index] = full[:, 0].sigmoid() > 0.5
    return covered


def require_divisible(**parts: tuple[int, int]) -> None:
    """Refuse options ``name=(value, whole)`` whose value does not divide the whole."""
    for name, (value, whole) in parts.items():
        if whole % value:
            raise ValueError(f'{name}={value} does not divide {whole} channels')
