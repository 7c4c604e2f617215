"""Sizes at which drawn pictures can be read and files stay small."""

from __future__ import annotations

import cv2
import numpy as np

READABLE_SIDE = 256
LARGEST_SIDE = 2048


def enlargement(height: int, width: int) -> int:
    """Return the whole factor at which names can be read in a small picture."""
    wanted = -(-READABLE_SIDE // min(height, width))
    return max(1, min(wanted, LARGEST_SIDE // max(height, width)))


def enlarge(array: np.ndarray, factor: int) -> np.ndarray:
    """Repeat each pixel of ``(H, W, ...)`` ``factor`` times in both directions."""
    return np.repeat(np.repeat(array, factor, axis=0), factor, axis=1)


def for_display(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring a picture and its labels to a size that is good to look at.

    Small ones are enlarged by a whole factor, those with a side of more than
    ``LARGEST_SIDE`` pixels shrunk to it.

    Args:
        image: ``(H, W, 3)`` uint8.
        labels: ``(H, W)`` integers.

    Returns:
        both, at the same new size; labels as int32.
    """
    height, width = labels.shape
    labels = labels.astype(np.int32)
    factor = enlargement(height, width)
    if factor > 1:
        return enlarge(image, factor), enlarge(labels, factor)
    longest = max(height, width)
    if longest <= LARGEST_SIDE:
        return image, labels
    scale = LARGEST_SIDE / longest
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return (
        cv2.resize(image, size, interpolation=cv2.INTER_AREA),
        cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST),
    )
