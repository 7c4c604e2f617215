"""ZegFormer: queries find masks, text rows name them, and CLIP looks once more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS
from mmseg.utils import ConfigType, SampleList

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.losses import MaskClassificationLoss, MaskTargets
from zs3_mmseg.models.region_classifiers import LogitRegionClassifier, Regions
from zs3_mmseg.utils.config_check import ConfigError

from .mask_scores import MaskScores
from .query_masks import MLP, FPNPixelDecoder, QueryDecoder
from .zero_shot_head import ScoreKind, ZeroShotHead, reduce_queries, single_rows


@dataclass(frozen=True)
class QueryMasks:
    """What the queries of each decoder layer found.

    Attributes:
        class_logits: ``(L, N, M, K + 1)``, "no object" last.
        masks: ``(L, N, M, h, w)``, logits.
    """

    class_logits: Tensor
    masks: Tensor


@MODELS.register_module()
class ZegFormerHead(ZeroShotHead):
    r"""Mask queries with a classifier of text rows (ZegFormer, arXiv 2112.07910).

    A pixel decoder makes mask features :math:`F` of four maps, a query decoder makes
    :math:`q_i` of the coarsest. Each query is a mask, :math:`m_i = MLP(q_i) \cdot F`,
    and a direction in the space of the texts, :math:`g_i = W q_i / |W q_i|`, with

    .. math:: z_{ik} = s\, g_i \cdot t_k, \qquad z_{i\varnothing} = s\, g_i \cdot b

    for text rows :math:`t_k`, of length 1 as banks make them, and a learned :math:`b`
    of any length, "no object". It trains with the rows of seen classes; other rows take
    their place in the test, and nothing else changes. Pixel :math:`p` scores
    :math:`\sum_i c_{ik} \sigma(m_{ip})` for class :math:`k`, where :math:`c_i` is the
    softmax of :math:`z_i` without its last entry.

    **The second look** (section 3.4). ``region_classifier`` sees the picture through
    each mask (:math:`m_i > 0`, at input size). Its logits, with
    :math:`z_{i\varnothing}` behind them, become :math:`r_i` as above, and

    .. math:: c_{ik} \leftarrow c_{ik}^{1 - w_k}\, r_{ik}^{w_k}

    with the weight of the group of class :math:`k`; with ``pool_seen``, :math:`r_{ik}`
    of a seen class is the mean over all seen classes, so that there only the head tells
    them apart. Without a region classifier it is the paper's ZegFormer-seg.

    Transductive training fills unlabelled pixels by the scores above, without the
    second look.

    Args:
        in_channels: of the four maps, fine to coarse.
        channels: of the query decoder.
        embed_dim: length of a text row.
        pixel_channels: of the pixel decoder; ``channels`` if None.
        mask_channels: of the mask features; ``channels`` if None.
        num_queries: masks per image.
        num_layers: of the query decoder; each is supervised.
        num_heads: of its attentions; it divides ``channels``.
        feedforward_channels: inside its layers.
        dropout: in its layers.
        num_groups: of the pixel decoder's group norms; it divides its channels.
        scale: :math:`s`, a constant.
        loss_masks: options of :class:`MaskClassificationLoss`.
        region_classifier: config of a
            :class:`~zs3_mmseg.models.region_classifiers.LogitRegionClassifier`, such as
            ``CropClassifier``, or one; only used in the test.
        seen_weight: :math:`w_k` of seen classes, 0..1. The defaults are the published
            ones; 2/3 for both groups without ``pool_seen`` is the paper's ensemble of
            all classes, and 1 for both leaves the region classifier alone.
        unseen_weight: :math:`w_k` of unseen classes, 0..1.
        pool_seen: see above.
        in_index: which maps of the backbone are read, fine to coarse.
        **kwargs: see :class:`ZeroShotHead`.

    Raises:
        ValueError: for weights outside 0..1, and widths that heads or groups do not
            divide.
    """

    score_kind: ScoreKind = 'mask_sum'
    region_classifier: LogitRegionClassifier | None

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        *,
        embed_dim: int,
        pixel_channels: int | None = None,
        mask_channels: int | None = None,
        num_queries: int = 100,
        num_layers: int = 6,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        dropout: float = 0.1,
        num_groups: int = 32,
        scale: float = 100.0,
        loss_masks: ConfigType | None = None,
        region_classifier: ConfigType | LogitRegionClassifier | None = None,
        seen_weight: float = 1 / 3,
        unseen_weight: float = 2 / 3,
        pool_seen: bool = True,
        in_index: Sequence[int] = (0, 1, 2, 3),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels,
            channels,
            in_index=in_index,
            input_transform='multiple_select',
            **kwargs,
        )
        pixel_channels = pixel_channels or channels
        for name, value, whole in (
            ('num_heads', num_heads, channels),
            ('num_groups', num_groups, pixel_channels),
        ):
            if whole % value:
                raise ValueError(f'{name}={value} does not divide {whole} channels')
        # Rows and columns, sine and cosine.
        if channels % 4:
            raise ValueError(f'channels={channels} must be a multiple of 4')
        for name, weight in (('seen', seen_weight), ('unseen', unseen_weight)):
            if not 0 <= weight <= 1:
                raise ValueError(f'{name}_weight must be in 0..1, not {weight}')
        if not scale > 0:
            raise ValueError(f'scale must be > 0, not {scale}')
        self.embed_dim = embed_dim
        self.scale = scale
        self.seen_weight = seen_weight
        self.unseen_weight = unseen_weight
        self.pool_seen = pool_seen
        mask_channels = mask_channels or channels
        self.pixel_decoder = FPNPixelDecoder(
            in_channels, pixel_channels, mask_channels, num_groups=num_groups
        )
        self.query_decoder = QueryDecoder(
            in_channels[-1],
            channels,
            num_queries=num_queries,
            num_layers=num_layers,
            num_heads=num_heads,
            feedforward_channels=feedforward_channels,
            dropout=dropout,
        )
        self.mask_embed = MLP(channels, channels, channels, mask_channels)
        self.projection = nn.Linear(channels, embed_dim)
        self.no_object = nn.Parameter(torch.empty(1, embed_dim))
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
        self._draw()

    def _draw(self) -> None:
        """Draw weights as the official code does."""
        self.pixel_decoder.draw()
        self.query_decoder.draw()
        nn.init.kaiming_uniform_(self.no_object, a=math.sqrt(5))

    def init_weights(self) -> None:
        """Draw weights as published, unless ``init_cfg`` says otherwise."""
        super().init_weights()
        if self.init_cfg is None:
            self._draw()

    # -- what is found -------------------------------------------------------------

    def _queries_and_features(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return queries ``(L, N, M, C)`` and mask features ``(N, C', h, w)``."""
        maps = self._transform_inputs(inputs)
        return self.query_decoder(maps[-1]), self.pixel_decoder(maps)

    def _found(
        self, found: Tensor, features: Tensor, queries: ClassQueries
    ) -> QueryMasks:
        """Return classes and masks of query outputs ``(L, N, M, C)``."""
        rows = single_rows(queries, 'ZegFormerHead')
        directions = F.normalize(self.projection(found), dim=-1)
        logits = self.scale * directions @ torch.cat([rows, self.no_object]).T
        named = reduce_queries(
            logits[..., :-1].flatten(0, -2), queries.queries_per_class, 'max'
        ).unflatten(0, found.shape[:-1])
        masks = self.mask_embed(found) @ features.flatten(2)
        return QueryMasks(
            torch.cat([named, logits[..., -1:]], dim=-1),
            masks.unflatten(-1, features.shape[-2:]),
        )

    def training_outputs(  # type: ignore[override]
        self, inputs: Sequence[Tensor], *, queries: ClassQueries
    ) -> QueryMasks:
        """Return what the queries of every layer found."""
        return self._found(*self._queries_and_features(inputs), queries)

    def loss_by_feat(
        self, outputs: QueryMasks, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Return the losses of all layers, see :class:`MaskClassificationLoss`.

        Args:
            outputs: what :meth:`training_outputs` returned.
            batch_data_samples: samples with ``gt_sem_seg`` ``(1, H, W)``; each label
                but ``ignore_index`` is one target mask.
        """
        maps = self._stack_batch_gt(batch_data_samples).squeeze(1)
        targets = [MaskTargets.of(each, self.ignore_index) for each in maps]
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
        """Return scores ``(N, K, h, w)`` at mask resolution, without a second look."""
        return self.class_logits(self.training_outputs(inputs, queries=queries))

    def query_logits(self, inputs: Sequence[Tensor], **given: Any) -> Tensor:
        """Refuse: there is one score per mask, not one map per row."""
        raise NotImplementedError('ZegFormerHead has predict in place of query_logits')

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
            image: the pictures, see ``InputImage`` of the segmentors; only read for a
                second look.

        Returns:
            mask logits ``(N, M, h, w)`` and class scores ``(N, M, K)``.
        """
        queries = self._given_queries(queries)
        found, features = self._queries_and_features(inputs)
        outputs = self._found(found[-1:], features, queries)
        size = batch_img_metas[0]['img_shape'][:2]
        logits, masks = outputs.class_logits[0], outputs.masks[0]
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
        scores = class_logits.float().softmax(dim=-1)[..., :-1]
        if self.region_classifier is None:
            return MaskScores(masks, scores)
        if image is None:
            raise ConfigError(
                'decode_head.region_classifier looks at the image, which the segmentor '
                f'does not give: set model.type={self.segmentor!r}'
            )
        height, width = image.pixels.shape[-2:]
        covering = covered_pixels(masks, size)[..., :height, :width]
        regions = Regions(covering, image, tuple(maps), mask_logits=masks)
        seen = self.region_classifier.logits(regions, queries)
        with_none = torch.cat([seen, class_logits[..., -1:].to(seen)], dim=-1)
        looked = with_none.softmax(dim=-1)[..., :-1].to(scores)
        return MaskScores(masks, self._joined(scores, looked, queries.seen_mask))

    def _joined(self, scores: Tensor, looked: Tensor, seen: Tensor) -> Tensor:
        """Return the geometric mean of both scores ``(N, M, K)``, by group."""
        if self.pool_seen and seen.any():
            mean = looked[..., seen].mean(dim=-1, keepdim=True)
            looked = torch.where(seen, mean, looked)
        weights = torch.where(seen, self.seen_weight, self.unseen_weight).to(scores)
        return scores ** (1 - weights) * looked**weights


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
