"""Which images and classes are asked for, by the rules of the few-shot codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

PARTS = ('rest', 'held_out')


class HeldOut(NamedTuple):
    """Every so many images of a data set, or all the others.

    Attributes:
        every: distance of the images held out, at least 2.
        part: ``'held_out'`` for these images, ``'rest'`` for the others.
    """

    every: int
    part: str

    @classmethod
    def from_cfg(cls, config: Mapping[str, Any] | None) -> HeldOut | None:
        """Read ``dict(every=n, part=...)``; None stays None.

        Raises:
            ValueError: if it says anything else.
        """
        if config is None:
            return None
        every = config.get('every')
        fits = isinstance(every, int) and every >= 2 and config.get('part') in PARTS
        if not fits or set(config) != {'every', 'part'}:
            raise ValueError(
                'held_out must be dict(every=n, part=...) with n >= 2 and part one of '
                f'{PARTS}, got {dict(config)}'
            )
        return cls(**config)

    def mask(self, count: int) -> np.ndarray:
        """Tell which of ``count`` images are taken, (count,), bool."""
        out = np.arange(count) % self.every == 0
        return out if self.part == 'held_out' else ~out


def kept_images(
    counts: np.ndarray,
    prompted: Sequence[int],
    *,
    min_pixels: int,
    without: Sequence[int] = (),
    allowed: np.ndarray | None = None,
) -> np.ndarray:
    """Return the indices of the images that stay, ascending.

    Args:
        counts: pixels of each class in each image, (N, K).
        prompted: classes that may be asked for; one of them must be there.
        min_pixels: and must have so many pixels.
        without: classes that must not be there at all.
        allowed: which images may be used, (N,), bool; None: all.
    """
    kept = (counts[:, prompted] >= max(min_pixels, 1)).any(axis=1)
    kept &= ~counts[:, without].any(axis=1)
    if allowed is not None:
        kept &= allowed
    return np.flatnonzero(kept)


def exhaustive_pairs(
    images: np.ndarray, counts: np.ndarray, prompted: Sequence[int]
) -> np.ndarray:
    """Return every (image, class) with the class in the image, (M, 2)."""
    rows, columns = np.nonzero(counts[images][:, prompted])
    return np.stack([images[rows], np.array(prompted)[columns]], axis=1)


def episode_pairs(
    images: np.ndarray,
    counts: np.ndarray,
    prompted: Sequence[int],
    *,
    num_episodes: int,
    seed: int,
) -> np.ndarray:
    """Return pairs as the official test draws them, (num_episodes, 2).

    The list of images is cycled in its order; the class is uniform over those in the
    image that may be asked for, and follows from (seed, episode, image).
    """
    classes = np.array(prompted)
    pairs = []
    for episode in range(num_episodes):
        image = int(images[episode % len(images)])
        rng = np.random.default_rng((seed, episode, image))
        present = classes[counts[image, classes] > 0]
        pairs.append((image, int(rng.choice(present))))
    return np.array(pairs)
