"""Cross-entropy on the prior maps of an image tower (ESDA's auxiliary losses)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: What a prior near 1 stands for: ``'official'``, as the released code has it, for
#: background; ``'foreground'`` for the named class, as the word prior suggests.
PRIOR_TARGETS = ('official', 'foreground')


def check_prior_target(target: str) -> str:
    """Return a ``prior_target`` if it is known, else raise ``ValueError``."""
    if target not in PRIOR_TARGETS:
        raise ValueError(f'prior_target must be one of {PRIOR_TARGETS}, not {target!r}')
    return target


def prior_losses(
    priors: Tensor,
    labels: Tensor,
    *,
    target: str,
    ignore_index: int,
    align_corners: bool,
) -> tuple[Tensor, Tensor]:
    """Score prior maps as if ``p`` and ``1 - p`` were logits.

    Args:
        priors: ``(N, P, h, w)``, values in 0..1.
        labels: ``(N, H, W)`` long: 0 background, 1 the named class, or
            ``ignore_index``.
        target: one of :data:`PRIOR_TARGETS`. The official order of the two channels
            scores ``p`` against background, which pushes the similarity of the named
            class down.
        ignore_index: label of pixels that don't count.
        align_corners: of the bilinear resize to the labels.

    Returns:
        the loss of the last map, and the mean loss of the others, 0 if there are none.
    """
    # The softmax of two values is the sigmoid of their difference, and a resize is
    # linear: one map stands for both channels.
    odds = 1 - 2 * priors.float() if target == 'official' else 2 * priors.float() - 1
    counts = labels != ignore_index
    foreground = (labels == 1).float()
    losses = []
    for prior_odds in odds.split(1, dim=1):
        full = F.interpolate(
            prior_odds,
            size=labels.shape[1:],
            mode='bilinear',
            align_corners=align_corners,
        ).squeeze(1)
        pixels = F.binary_cross_entropy_with_logits(full, foreground, counts.float())
        losses.append(pixels * labels.numel() / counts.sum().clamp(min=1))
    *others, last = losses
    rest = torch.stack(others).mean() if others else last.new_zeros(())
    return last, rest
