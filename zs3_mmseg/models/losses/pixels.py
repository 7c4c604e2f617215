"""Losses over pixels, at the resolution of the labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmseg.registry import MODELS

from zs3_mmseg.models.precision import at_least_float32
from zs3_mmseg.models.resize import resize_by_products

#: Classes of an image at label resolution at a time: few enough for a cache, enough to
#: keep a device busy.
CLASS_CHUNK = 16


class ResizedMaps:
    """Logits of some classes of one image at label resolution.

    Attributes:
        logits: ``(k, X)``, at the ``X`` pixels of the labels.
        own: ``(1, X)``, whether the label of a pixel is one of the classes.
        row: ``(1, X)``, which one; 0 where it is none.
    """

    def __init__(
        self,
        logits: Tensor,
        labels: Tensor,
        classes: Sequence[int],
        align_corners: bool,
    ) -> None:
        """Take ``(K, h, w)`` logits, ``(H, W)`` labels (-1: none) and class numbers."""
        with torch.enable_grad():
            self._small = logits.detach()[classes][None].requires_grad_()
            self._full = resize_by_products(self._small, labels.shape, align_corners)
        self.logits = self._full.detach()[0].flatten(1)
        # The last place is that of -1.
        rows = labels.new_full((len(logits) + 1,), -1)
        rows[classes] = torch.arange(len(classes), device=labels.device)
        row = rows[labels.flatten()][None]
        self.own, self.row = row >= 0, row.clamp(min=0)

    def adjoint(self, slopes: Tensor) -> Tensor:
        """Turn slopes ``(k, X)`` of the full maps into those of the small."""
        slopes = slopes.view_as(self._full)
        return torch.autograd.grad(self._full, self._small, slopes)[0][0]


def refuse_second_derivatives() -> None:
    """Raise in a backward pass that is to be differentiated itself."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            'this loss makes its gradient with its value, and has no second '
            'derivative: drop create_graph=True, or take a penalty on gradients of '
            'something else'
        )


def pixel_mean(
    loss: Callable[[Tensor, Tensor], Tensor],
    maps: Tensor,
    labels: Tensor,
    *,
    ignore_index: int,
    align_corners: bool = False,
) -> Tensor:
    """Mean of a loss over the labelled pixels of a batch; 0 if no pixel is labelled.

    Maps are resized to the labels image by image, and resized once more in the backward
    pass instead of being kept: with 156 classes at 512x512, a batch of 16 would
    otherwise keep 2.6 GB twice.

    Args:
        loss: from maps ``(1, K, H, W)`` and labels ``(1, H, W)`` of an image to the sum
            over its labelled pixels.
        maps: ``(N, K, h, w)``.
        labels: ``(N, H, W)``.
        ignore_index: label of pixels that do not count.
        align_corners: of the resize.
    """

    def one_image(image_maps: Tensor, image_labels: Tensor) -> Tensor:
        size = image_labels.shape[-2:]
        return loss(resize_by_products(image_maps, size, align_corners), image_labels)

    losses = [
        checkpoint(
            one_image,
            image_maps,
            image_labels,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for image_maps, image_labels in zip(
            at_least_float32(maps).split(1), labels.split(1), strict=True
        )
    ]
    labelled = (labels != ignore_index).sum().clamp(min=1)
    return torch.stack(losses).sum() / labelled


def pixel_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    ignore_index: int,
    align_corners: bool = False,
    class_chunk: int = CLASS_CHUNK,
) -> Tensor:
    """Mean softmax cross-entropy over the labelled pixels ``V`` of a batch.

    ``L = 1/|V| sum_{x in V} (log sum_k exp(z_kx) - z_yx)`` of the logits ``z (N, K, h,
    w)``, resized to the labels ``y (N, H, W)``, which are in ``0..K-1`` or
    ``ignore_index``; 0 if no pixel is labelled.

    Logits are resized image by image and ``class_chunk`` classes at a time: once for
    the sum under the logarithm, and once more for the gradient, ``softmax(z)_k - [k =
    y]``, which is made at once and kept at the resolution of the logits. A second
    derivative is refused.
    """
    labelled = labels != ignore_index
    with torch.autocast(logits.device.type, enabled=False):
        total = _CrossEntropy.apply(
            at_least_float32(logits),
            torch.where(labelled, labels, -1),
            align_corners,
            class_chunk,
        )
    return total / labelled.sum().clamp(min=1)


class _CrossEntropy(torch.autograd.Function):
    """The cross-entropy of all labelled pixels, summed, and its gradient."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, align_corners: bool, class_chunk: int
    ) -> Tensor:
        value, slopes = logits.new_zeros(()), torch.zeros_like(logits)
        num_classes = logits.shape[1]
        chunks = [
            list(range(first, min(first + class_chunk, num_classes)))
            for first in range(0, num_classes, class_chunk)
        ]
        for image in range(len(logits)):
            labelled = (labels[image] >= 0).flatten()  # (X,)
            below: Tensor | None = None
            for chunk in chunks:
                maps = ResizedMaps(logits[image], labels[image], chunk, align_corners)
                part = maps.logits.logsumexp(0)
                below = part if below is None else torch.logaddexp(below, part)
                value -= (maps.logits.gather(0, maps.row) * maps.own).sum()
            assert below is not None  # there is at least one class
            value += (below * labelled).sum()
            for chunk in chunks if ctx.needs_input_grad[0] else ():
                if len(chunks) > 1:
                    maps = ResizedMaps(
                        logits[image], labels[image], chunk, align_corners
                    )
                slope = (maps.logits - below).exp_().mul_(labelled)
                slope.scatter_add_(0, maps.row, -maps.own.to(slope.dtype))
                slopes[image, chunk] = maps.adjoint(slope)
        ctx.save_for_backward(slopes)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives()
        (slopes,) = ctx.saved_tensors
        return gradient * slopes, None, None, None


@MODELS.register_module()
class QFSLLoss(nn.Module):
    """Unlabelled pixels belong to some unseen class (QFSL, arXiv 1803.11320, eq. 6).

    ``L = -w/|V| sum_{x in V} log sum_{u unseen} p_xu`` over the unlabelled pixels ``V``
    with the softmax ``p`` over all classes; 0 if there are none. It says that they are
    unseen, not which class they are of. Such pixels are known in the transductive
    setting alone.

    Args:
        loss_weight: ``w``, > 0.

    Raises:
        ValueError: for a weight that is not positive.
    """

    def __init__(self, loss_weight: float = 0.1) -> None:
        super().__init__()
        if not loss_weight > 0:
            raise ValueError(f'QFSLLoss.loss_weight must be > 0, not {loss_weight}')
        self.loss_weight = loss_weight

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        seen_mask: Tensor,
        unlabelled_index: int,
        align_corners: bool = False,
    ) -> Tensor:
        """Return the loss.

        Args:
            logits: ``(N, K, h, w)``, resized bilinearly to the labels.
            labels: ``(N, H, W)``.
            seen_mask: ``(K,)`` bool; at least one class is unseen.
            unlabelled_index: the label of the pixels that count.
            align_corners: of the resize.
        """

        def summed(full: Tensor, places: Tensor) -> Tensor:
            unseen = full[:, ~seen_mask].logsumexp(dim=1)
            return ((full.logsumexp(dim=1) - unseen) * (places == 0)).sum()

        places = torch.where(labels == unlabelled_index, 0, 1)
        mean = pixel_mean(
            summed, logits, places, ignore_index=1, align_corners=align_corners
        )
        return self.loss_weight * mean
