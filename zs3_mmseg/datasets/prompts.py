"""From a label map of many classes to the mask of one named class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np


def binary_mask(labels: np.ndarray, prompt: int, ignore: int) -> np.ndarray:
    """Return 1 where ``labels`` is ``prompt``, ignored pixels as they are, else 0."""
    mask = (labels == prompt).astype(labels.dtype)
    mask[labels == ignore] = ignore
    return mask


class PromptStep:
    """The pipeline step that chooses a class and turns labels into its mask.

    It runs right after the labels have become those of the split, so that a crop can
    already look at the mask. Without an assigned class one is drawn, uniformly among
    those in the label map, whatever their size.

    Args:
        prompted: indices of the classes that may be chosen.
        ignore: the label of ignored pixels.
        negatives: how often a class is drawn that is not in the image, 0..1.

    Attributes:
        chosen: the class of the last sample.
    """

    def __init__(self, prompted: Sequence[int], ignore: int, negatives: float) -> None:
        self._prompted = np.asarray(prompted)
        self._ignore = ignore
        self._negatives = negatives
        self._assigned: int | None = None
        self.chosen: int | None = None

    @contextmanager
    def asking(self, prompt: int | None) -> Iterator[None]:
        """Assign the class of the samples loaded inside; None: draw one for each."""
        self._assigned = self.chosen = prompt
        try:
            yield
        finally:
            self._assigned = None

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``gt_seg_map``, (H, W), by the mask of the chosen class."""
        labels = results['gt_seg_map']
        prompt = self._assigned
        if prompt is None:
            prompt = self.chosen = self._drawn(labels)
        results['gt_seg_map'] = binary_mask(labels, prompt, self._ignore)
        return results

    def _drawn(self, labels: np.ndarray) -> int:
        present = np.isin(self._prompted, np.unique(labels))
        # With the default no random number is used up, as in the official code.
        wants_absent = self._negatives > 0 and np.random.random() < self._negatives  # noqa: NPY002
        if present.all():
            wants_absent = False
        elif not present.any():
            wants_absent = True
        choices = self._prompted[~present if wants_absent else present]
        return int(np.random.choice(choices))  # noqa: NPY002
