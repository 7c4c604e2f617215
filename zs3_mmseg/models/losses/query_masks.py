"""Masks without order against masks with labels: matching, and losses of pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from mmengine.dist import all_reduce
from mmseg.registry import MODELS
from mmseg.utils import SampleList

from zs3_mmseg.utils.names import choose

__all__ = ['MaskClassificationLoss', 'MaskTargets', 'best_dice_loss', 'mask_targets']

#: Label of a query that no loss counts.
UNCOUNTED = -1
#: More than any label.
_LABELS = 2**16


@dataclass(frozen=True)
class MaskTargets:
    """The masks of one image.

    Attributes:
        labels: ``(T,)`` long, the class of each mask.
        masks: ``(T, H, W)`` bool.
        ignored: ``(H, W)`` bool, pixels without a label, which belong to no mask.
    """

    labels: Tensor
    masks: Tensor
    ignored: Tensor

    @classmethod
    def of(
        cls, label_map: Tensor, ignore_index: int, segments: Tensor | None = None
    ) -> MaskTargets:
        """Make one mask of each label but ``ignore_index`` in each segment.

        Args:
            label_map: ``(H, W)``, labels below 65536.
            ignore_index: label of pixels that belong to no mask.
            segments: ``(H, W)``, numbers of segments, such as those of single things;
                None: the image is one.
        """
        ignored = label_map == ignore_index
        pairs = label_map.long()
        if segments is not None:
            pairs = pairs + _LABELS * segments.long()
        shown = pairs[~ignored].unique()
        return cls(shown % _LABELS, pairs == shown[:, None, None], ignored)


def mask_targets(
    label_maps: Tensor, samples: SampleList, ignore_index: int
) -> list[MaskTargets]:
    """Return the targets of a batch of label maps ``(N, H, W)``.

    Samples with ``gt_segments`` ``(1, h, w)``, which ``PackPanopticInputs`` makes, have
    one target for each of their segments; where it ends, padding begins.
    """
    targets = []
    for label_map, sample in zip(label_maps, samples, strict=True):
        segments = None
        if 'gt_segments' in sample:
            known = sample.gt_segments.data[0]
            sides = zip(label_map.shape, known.shape, strict=True)
            down, right = (whole - part for whole, part in sides)
            segments = F.pad(known, (0, right, 0, down))
        targets.append(MaskTargets.of(label_map, ignore_index, segments))
    return targets


@MODELS.register_module()
class MaskClassificationLoss(nn.Module):
    r"""Loss of query masks: each target mask is given to one query (arXiv 2107.06278).

    Of each decoder layer, queries :math:`i` with class probabilities :math:`c_i` over
    the classes and "no object", and mask probabilities :math:`p_i`, are matched to the
    targets :math:`j` of class :math:`y_j` and mask :math:`t_j`, one to one, so that

    .. math:: -w_{class}\, c_{i y_j} + w_{mask}\, F(p_i, t_j) + w_{dice}\, D(p_i, t_j)

    has the least sum (Hungarian method). For the matching, targets are brought to the
    size of the masks by nearest neighbour. The loss of a layer is

    .. math::
        L = w_{class}\, CE + \frac{1}{T} \sum_{(i, j)}
        \bigl( w_{mask}\, F(p_i, t_j) + w_{dice}\, D(p_i, t_j) \bigr),

    with masks resized bilinearly to the targets, and :math:`T` the number of targets of
    the batch, matched or not (averaged over ranks, at least 1). :math:`F` is the focal
    loss, :math:`\alpha = 1/4` and :math:`\gamma = 2`, averaged over pixels, and
    :math:`D = 1 - (2 \sum p t + 1) / (\sum p + \sum t + 1)`. :math:`CE` is the weighted
    mean of the cross-entropy of all queries, where unmatched ones should be "no object"
    with weight ``no_object_weight``. Weights are those of ZegFormer (arXiv 2112.07910).
    With ``mask_loss='bce'``, :math:`F` is the binary cross-entropy, averaged alike.

    **Points** (arXiv 2112.01527, section 3.3). With ``num_points``, masks and targets
    are read bilinearly at so many places of the frame in place of all pixels: for the
    matching at places drawn anew for each image and layer; for the losses, of each
    matched mask, at those ``importance_share`` of them with the smallest
    :math:`|\mathrm{logit}|` of ``oversampling`` times as many, and at others drawn
    freely. Smaller images of a batch are background where they end.

    Pixels without a label belong to no mask: a query on them is taught "no object",
    even where an unseen object is. ``ignored_share`` spares such queries.

    Args:
        class_weight: :math:`w_{class}`.
        mask_weight: :math:`w_{mask}`.
        dice_weight: :math:`w_{dice}`.
        no_object_weight: weight of "no object" in the cross-entropy, above 0.
        ignored_share: unmatched queries with more than this share of their mask
            (:math:`p_i > 1/2`) on pixels without a label are not counted; None, as
            published: all are.
        alpha: of the focal loss, weight of pixels in the mask.
        gamma: of the focal loss.
        mask_loss: ``'focal'``, or ``'bce'`` as Mask2Former and FC-CLIP have it.
        num_points: places at which masks are read; None: all pixels.
        oversampling: places to choose from, as a multiple of ``num_points``, at least
            1.
        importance_share: 0..1, share of places chosen by their logits.

    Raises:
        ValueError: for weights that are negative, a share outside 0..1, an unknown
            ``mask_loss``, and fewer than one point.
    """

    def __init__(
        self,
        *,
        class_weight: float = 1.0,
        mask_weight: float = 20.0,
        dice_weight: float = 1.0,
        no_object_weight: float = 0.1,
        ignored_share: float | None = None,
        alpha: float = 0.25,
        gamma: float = 2.0,
        mask_loss: str = 'focal',
        num_points: int | None = None,
        oversampling: float = 3.0,
        importance_share: float = 0.75,
    ) -> None:
        super().__init__()
        if min(class_weight, mask_weight, dice_weight) < 0 or no_object_weight <= 0:
            raise ValueError(
                'MaskClassificationLoss needs weights >= 0 and no_object_weight > 0, '
                f'got {class_weight}, {mask_weight}, {dice_weight}, {no_object_weight}'
            )
        if ignored_share is not None and not 0 <= ignored_share < 1:
            raise ValueError(f'ignored_share must be in 0..1, not {ignored_share}')
        if num_points is not None and num_points < 1:
            raise ValueError(f'num_points must be >= 1 or None, not {num_points}')
        if oversampling < 1 or not 0 <= importance_share <= 1:
            raise ValueError(
                'oversampling must be >= 1 and importance_share in 0..1, not '
                f'{oversampling} and {importance_share}'
            )
        self.mask_loss = choose('mask_loss', mask_loss, ('focal', 'bce'))
        self.num_points = num_points
        self.oversampling = oversampling
        self.importance_share = importance_share
        self.class_weight = class_weight
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight
        self.no_object_weight = no_object_weight
        self.ignored_share = ignored_share
        self.alpha = alpha
        self.gamma = gamma

    def forward(
        self, class_logits: Tensor, masks: Tensor, targets: Sequence[MaskTargets]
    ) -> dict[str, Tensor]:
        """Return the weighted losses of all layers.

        Args:
            class_logits: ``(L, N, M, K + 1)``, "no object" last.
            masks: ``(L, N, M, h, w)``, logits.
            targets: one for each of ``N`` images; with all pixels, masks of one size.

        Returns:
            ``loss_ce``, ``loss_mask`` and ``loss_dice`` of the last layer, and with
            ``_i`` behind the name those of layer ``i``.
        """
        count = class_logits.new_tensor(sum(len(t.labels) for t in targets)).float()
        all_reduce(count, 'mean')
        losses: dict[str, Tensor] = {}
        last = len(class_logits) - 1
        # The order of the official code, which tells who gets which points.
        for index in (last, *range(last)):
            suffix = '' if index == last else f'_{index}'
            layer = class_logits[index], masks[index]
            with torch.autocast(masks.device.type, enabled=False):
                found = self._layer(*layer, targets, count.clamp(min=1))
            losses |= {f'{name}{suffix}': loss for name, loss in found.items()}
        return losses

    def _layer(
        self,
        class_logits: Tensor,
        masks: Tensor,
        targets: Sequence[MaskTargets],
        count: Tensor,
    ) -> dict[str, Tensor]:
        """Return the losses of one layer, ``(N, M, K + 1)`` and ``(N, M, h, w)``."""
        class_logits, masks = class_logits.float(), masks.float()
        labels = class_logits.new_full(
            class_logits.shape[:2], class_logits.shape[2] - 1, dtype=torch.long
        )
        pairs = []
        for image, target in enumerate(targets):
            queries, own = self.match(class_logits[image], masks[image], target)
            if self.ignored_share is not None:
                spared = share_on_ignored(masks[image], target) > self.ignored_share
                labels[image, spared] = UNCOUNTED
            labels[image, queries] = target.labels[own]
            pairs.append((masks[image, queries], target.masks[own]))
        # Sums over nothing, if no image has a target.
        mask_loss, dice = masks.sum() * 0, masks.sum() * 0
        for logits, truth in self._compared(pairs):
            inside, outside = self._pixel_losses(logits)
            each = (inside * truth + outside * (1 - truth)).mean(dim=1)
            mask_loss = mask_loss + each.sum()
            shares = logits.sigmoid()
            overlap = (shares * truth).sum(dim=1)
            size = shares.sum(dim=1) + truth.sum(dim=1)
            dice = dice + (1 - (2 * overlap + 1) / (size + 1)).sum()
        return dict(
            loss_ce=self.class_weight * self._cross_entropy(class_logits, labels),
            loss_mask=self.mask_weight * mask_loss / count,
            loss_dice=self.dice_weight * dice / count,
        )

    def _compared(
        self, pairs: Sequence[tuple[Tensor, Tensor]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield logits and targets ``(T, P)`` of the matched masks of each image.

        ``P`` is all pixels of the targets, or points, of the whole batch at once.
        """
        if self.num_points is None:
            for masks, truth in pairs:
                if len(masks):
                    full = F.interpolate(
                        masks[:, None],
                        size=truth.shape[-2:],
                        mode='bilinear',
                        align_corners=False,
                    ).flatten(1)
                    yield full, truth.flatten(1).to(full)
            return
        height, width = (max(t.shape[axis] for _, t in pairs) for axis in (1, 2))
        masks = torch.cat([m for m, _ in pairs])
        truth = torch.cat(
            [
                F.pad(t.to(masks), (0, width - t.shape[2], 0, height - t.shape[1]))
                for _, t in pairs
            ]
        )
        points = self._telling_points(masks)
        yield read_at(masks, points), read_at(truth, points)

    @torch.no_grad()
    def _telling_points(self, masks: Tensor) -> Tensor:
        """Return points ``(T, P, 2)`` for masks ``(T, h, w)``, most uncertain first."""
        assert self.num_points is not None
        count = len(masks)
        chosen = int(self.importance_share * self.num_points)
        candidates = self.draw(count, int(self.num_points * self.oversampling), masks)
        doubt = -read_at(masks, candidates).abs()
        best = doubt.topk(chosen, dim=1).indices
        points = candidates.gather(1, best[..., None].expand(-1, -1, 2))
        free = self.draw(count, self.num_points - chosen, masks)
        return torch.cat([points, free], dim=1)

    def draw(self, count: int, points: int, like: Tensor) -> Tensor:
        """Draw points ``(count, points, 2)``, x and y in 0..1, on a tensor's device."""
        return torch.rand(count, points, 2, device=like.device)

    @torch.no_grad()
    def match(
        self, class_logits: Tensor, masks: Tensor, target: MaskTargets
    ) -> tuple[Tensor, Tensor]:
        """Give targets to queries, as many as there are of both.

        Args:
            class_logits: ``(M, K + 1)``.
            masks: ``(M, h, w)``, logits.
            target: the ``T`` targets of the image.

        Returns:
            indices of queries, ascending, and of their targets, ``(min(M, T),)`` each.
        """
        cost = self.cost(class_logits, masks, target).cpu()
        # What diverged is matched by chance; the loss says it.
        pairs = linear_sum_assignment(cost.nan_to_num())
        queries, own = (torch.as_tensor(p, device=masks.device) for p in pairs)
        return queries, own

    def cost(self, class_logits: Tensor, masks: Tensor, target: MaskTargets) -> Tensor:
        """Return the cost ``(M, T)`` of giving each target to each query."""
        if self.num_points is None:
            if not len(target.labels):
                return masks.new_zeros(len(masks), 0)
            shown = target.masks[:, None].to(masks)
            shown = F.interpolate(shown, size=masks.shape[-2:], mode='nearest')
            logits, truth = masks.flatten(1), shown.flatten(1).T  # (hw, T)
        else:
            points = self.draw(1, self.num_points, masks)
            logits, targets = (
                read_at(maps, points.expand(len(maps), -1, -1))
                for maps in (masks, target.masks.to(masks))
            )
            truth = targets.T  # (P, T)
        inside, outside = self._pixel_losses(logits)
        pixels = (inside @ truth + outside @ (1 - truth)) / logits.shape[1]
        shares = logits.sigmoid()
        dice = dice_of_pairs(shares, truth.T)
        likely = class_logits.softmax(dim=-1)[:, target.labels]
        return (
            self.mask_weight * pixels
            - self.class_weight * likely
            + self.dice_weight * dice
        )

    def _pixel_losses(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss :math:`F` of logits in a mask, and outside of it."""
        if self.mask_loss == 'bce':
            return F.softplus(-logits), F.softplus(logits)
        p = logits.sigmoid()
        inside = self.alpha * (1 - p) ** self.gamma * F.softplus(-logits)
        outside = (1 - self.alpha) * p**self.gamma * F.softplus(logits)
        return inside, outside

    def _cross_entropy(self, class_logits: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted mean over the queries that count, 0 if none does."""
        weights = class_logits.new_ones(class_logits.shape[2])
        weights[-1] = self.no_object_weight
        counted = labels != UNCOUNTED
        weight = weights[labels[counted]]
        each = F.cross_entropy(class_logits[counted], labels[counted], reduction='none')
        return (weight * each).sum() / weight.sum().clamp(min=weights[-1])


def dice_of_pairs(shares: Tensor, truth: Tensor) -> Tensor:
    """Return :math:`D` of masks ``(M, P)`` and targets ``(T, P)``, ``(M, T)``."""
    size = shares.sum(dim=1)[:, None] + truth.sum(dim=1)
    return 1 - (2 * shares @ truth.T + 1) / (size + 1)


def best_dice_loss(masks: Tensor, targets: Sequence[MaskTargets]) -> Tensor:
    r"""Loss of masks that know no class (OpenSeg, arXiv 2112.12143, section 3.1).

    Each target :math:`t_j` counts with the mask that is closest to it,

    .. math:: L = \frac{1}{T} \sum_j \min_i D(p_i, t_j),

    with :math:`D` and :math:`T` as in :class:`MaskClassificationLoss`. Masks that are
    closest to no target are free. Which mask is closest is found at the size of the
    masks, with targets brought to it by nearest neighbour.

    Args:
        masks: ``(N, M, h, w)``, logits.
        targets: one for each of ``N`` images; their labels are not read.
    """
    count = masks.new_tensor(sum(len(t.labels) for t in targets)).float()
    all_reduce(count, 'mean')
    loss = masks.float().sum() * 0
    for logits, target in zip(masks.float(), targets, strict=True):
        if not len(target.labels):
            continue
        truth = target.masks[:, None].to(logits)
        small = F.interpolate(truth, size=logits.shape[-2:], mode='nearest')
        with torch.no_grad():
            distances = dice_of_pairs(logits.flatten(1).sigmoid(), small.flatten(1))
        best = logits[distances.argmin(dim=0)][:, None]
        full = F.interpolate(
            best, size=truth.shape[-2:], mode='bilinear', align_corners=False
        )
        shares, truth = full.sigmoid().flatten(1), truth.flatten(1)
        size = shares.sum(dim=1) + truth.sum(dim=1)
        loss = loss + (1 - (2 * (shares * truth).sum(dim=1) + 1) / (size + 1)).sum()
    return loss / count.clamp(min=1)


def read_at(masks: Tensor, points: Tensor) -> Tensor:
    """Read masks ``(T, h, w)`` bilinearly at points ``(T, P, 2)``, 0 outside.

    Points are x and y, 0..1 inside the frame; returned is ``(T, P)``.
    """
    if not masks.numel() or not points.numel():  # which torch does not sample
        return masks.new_zeros(points.shape[:2]) + masks.sum() * 0
    where = 2 * points[:, :, None] - 1
    read = F.grid_sample(masks[:, None], where, align_corners=False)
    return read[:, 0, :, 0]


@torch.no_grad()
def share_on_ignored(masks: Tensor, target: MaskTargets) -> Tensor:
    """Return how much of each mask lies on pixels without a label, ``(M,)``.

    ``masks`` ``(M, h, w)`` are logits; those that cover nothing have a share of 0.
    """
    ignored = F.interpolate(
        target.ignored[None, None].to(masks), size=masks.shape[-2:], mode='nearest'
    ).flatten()
    covered = (masks > 0).flatten(1).to(masks)
    return covered @ ignored / covered.sum(dim=1).clamp(min=1)
