"""Masks without order against masks with labels: matching, and losses of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from mmengine.dist import all_reduce
from mmseg.registry import MODELS

__all__ = ['MaskClassificationLoss', 'MaskTargets']

#: Label of a query that no loss counts.
UNCOUNTED = -1


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
    def of(cls, label_map: Tensor, ignore_index: int) -> MaskTargets:
        """Make one mask of each label in a map ``(H, W)`` but ``ignore_index``."""
        labels = label_map.unique()
        labels = labels[labels != ignore_index]
        masks = label_map == labels[:, None, None]
        return cls(labels.long(), masks, label_map == ignore_index)


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

    Raises:
        ValueError: for weights that are negative, or a share outside 0..1.
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
    ) -> None:
        super().__init__()
        if min(class_weight, mask_weight, dice_weight) < 0 or no_object_weight <= 0:
            raise ValueError(
                'MaskClassificationLoss needs weights >= 0 and no_object_weight > 0, '
                f'got {class_weight}, {mask_weight}, {dice_weight}, {no_object_weight}'
            )
        if ignored_share is not None and not 0 <= ignored_share < 1:
            raise ValueError(f'ignored_share must be in 0..1, not {ignored_share}')
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
            targets: one for each of ``N`` images, all masks of one size.

        Returns:
            ``loss_ce``, ``loss_mask`` and ``loss_dice`` of the last layer, and with
            ``_i`` behind the name those of layer ``i``.
        """
        count = class_logits.new_tensor(sum(len(t.labels) for t in targets)).float()
        all_reduce(count, 'mean')
        losses: dict[str, Tensor] = {}
        last = len(class_logits) - 1
        for index, layer in enumerate(zip(class_logits, masks, strict=True)):
            suffix = '' if index == last else f'_{index}'
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
        # Sums over nothing, if no image has a target.
        focal, dice = masks.sum() * 0, masks.sum() * 0
        for image, target in enumerate(targets):
            queries, own = self.match(class_logits[image], masks[image], target)
            if self.ignored_share is not None:
                spared = share_on_ignored(masks[image], target) > self.ignored_share
                labels[image, spared] = UNCOUNTED
            labels[image, queries] = target.labels[own]
            if not len(queries):
                continue
            full = F.interpolate(
                masks[image, queries][:, None],
                size=target.masks.shape[-2:],
                mode='bilinear',
                align_corners=False,
            ).flatten(1)
            truth = target.masks[own].flatten(1).to(full)
            inside, outside = self._focal(full)
            focal = focal + (inside * truth + outside * (1 - truth)).mean(dim=1).sum()
            shares = full.sigmoid()
            overlap = (shares * truth).sum(dim=1)
            size = shares.sum(dim=1) + truth.sum(dim=1)
            dice = dice + (1 - (2 * overlap + 1) / (size + 1)).sum()
        return dict(
            loss_ce=self.class_weight * self._cross_entropy(class_logits, labels),
            loss_mask=self.mask_weight * focal / count,
            loss_dice=self.dice_weight * dice / count,
        )

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
        logits = masks.flatten(1)
        if not len(target.labels):
            return logits.new_zeros(len(logits), 0)
        shown = target.masks[:, None].to(masks)
        shown = F.interpolate(shown, size=masks.shape[-2:], mode='nearest')
        truth = shown.flatten(1).T  # (hw, T)
        inside, outside = self._focal(logits)
        focal = (inside @ truth + outside @ (1 - truth)) / logits.shape[1]
        shares = logits.sigmoid()
        size = shares.sum(dim=1)[:, None] + truth.sum(dim=0)
        dice = 1 - (2 * shares @ truth + 1) / (size + 1)
        likely = class_logits.softmax(dim=-1)[:, target.labels]
        return (
            self.mask_weight * focal
            - self.class_weight * likely
            + self.dice_weight * dice
        )

    def _focal(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the focal loss of logits in a mask, and outside of it."""
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
