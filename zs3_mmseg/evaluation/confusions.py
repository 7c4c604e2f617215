"""What unseen classes are taken for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Confusions:
    """Where the pixels of one class went.

    Attributes:
        label: index of the class.
        pixels: how many pixels it has in the truth.
        right: share of them that were predicted as it, in [0, 1].
        as_seen: share predicted as any seen class.
        wrong: the most frequent wrong predictions and their shares, largest first.
    """

    label: int
    pixels: int
    right: float
    as_seen: float
    wrong: tuple[tuple[int, float], ...]


def top_confusions(
    confusion: np.ndarray, seen: Sequence[int], unseen: Sequence[int], top: int = 5
) -> list[Confusions]:
    """Return what the pixels of each unseen class were predicted as.

    Args:
        confusion: pixel counts, rows = truth, (K, K).
        seen: indices of the seen classes.
        unseen: indices of the unseen classes.
        top: at most how many wrong predictions of each.

    Returns:
        One entry for each unseen class that is in the truth.
    """
    found = []
    for label in unseen:
        row = confusion[label].astype(np.float64)
        pixels = int(row.sum())
        if not pixels:
            continue
        shares = row / pixels
        order = [k for k in np.argsort(-shares, kind='stable') if k != label]
        wrong = tuple((int(k), float(shares[k])) for k in order[:top] if shares[k] > 0)
        as_seen = float(shares[list(seen)].sum())
        found.append(Confusions(label, pixels, float(shares[label]), as_seen, wrong))
    return found
