"""A picture whose scores are kept, so that settings change labels without the model."""

from __future__ import annotations

import io
import math
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from zs3_mmseg.apis.segmentation import Segmentation, void_label, write_segmentation
from zs3_mmseg.models.segmentors.inference import LabelRule
from zs3_mmseg.visualization.heat_maps import draw_heat_map, draw_scale
from zs3_mmseg.visualization.overlay import enlarge, enlargement, legend_font_size

#: The least number of positions of a slider.
_STEPS = 50


@dataclass(frozen=True)
class Span:
    """What a slider offers: ``low`` to ``high`` in steps, and where it starts.

    A slider without a choice has ``low == high``.
    """

    low: float
    high: float
    step: float
    start: float


def _span(low: float, high: float, start: float) -> Span:
    """Widen a range to steps of 1, 10, 0.1 and so on, the largest of which 50 fit."""
    if high <= low:
        return Span(low, low, 1.0, low)
    digits = -math.floor(math.log10((high - low) / _STEPS))
    step = round(10.0**-digits, digits)
    ends = math.floor(low / step) * step, math.ceil(high / step) * step
    return Span(round(ends[0], digits), round(ends[1], digits), step, start)


@dataclass(frozen=True, eq=False)
class ScoredPicture:
    """A segmentation with the scores it was made of, and what else they would give.

    Attributes:
        result: the segmentation as the model gives it, with scores.
        rule: of the model, by which scores become labels.
        model: how the model was offered.
    """

    result: Segmentation
    rule: LabelRule
    model: str = ''

    def __post_init__(self) -> None:
        if self.result.scores is None:
            raise ValueError('a segmentation with scores is needed')

    @property
    def scores(self) -> np.ndarray:
        """``(K, H, W)`` float32, as the model calibrates them."""
        assert self.result.scores is not None  # as __post_init__ says
        return self.result.scores

    @cached_property
    def seen(self) -> np.ndarray:
        """``(K,)`` bool: which classes had masks in training."""
        count = len(self.result.classes)
        return np.array([index not in self.result.unseen for index in range(count)])

    @cached_property
    def gamma_span(self) -> Span:
        """What the calibration may be; beyond it no pixel changes its group."""
        if self.seen.all() or not self.seen.any():
            return Span(0.0, 0.0, 1.0, 0.0)
        lead = self.scores[self.seen].max(0) - self.scores[~self.seen].max(0)
        most = float(np.abs(lead).max())
        return _span(-most, most, 0.0)

    @cached_property
    def threshold_span(self) -> Span:
        """What the threshold may be; at ``low`` it is none, but of a single class."""
        best = self.scores.max(0)
        low, high = float(best.min()), float(best.max())
        if len(self.scores) == 1:
            start = self.rule.score_thr
            return _span(min(low, start), max(high, start), start)
        span = _span(low, high, low)
        return replace(span, start=span.low)

    def relabelled(
        self, gamma: float = 0.0, threshold: float | None = None
    ) -> Segmentation:
        """Return the segmentation that other settings give, without its scores.

        A pixel gets the class ``argmax_k s_k - gamma [k is seen]`` (calibrated
        stacking, arXiv 1605.04253), on top of what the model's own calibrators did,
        and none if the largest of these is below ``threshold``. Of a single class the
        label map is the mask of what reaches the threshold.

        Args:
            gamma: what seen classes lose; negative values favour them.
            threshold: in units of the scores; None: the model's own.
        """
        scores = self.scores
        if gamma:
            scores = scores - np.float32(gamma) * self.seen[:, None, None]
        count, best = len(scores), scores.max(0)
        if count == 1:
            reached = best >= (self.rule.score_thr if threshold is None else threshold)
            return replace(self.result, labels=reached.astype(np.uint8), scores=None)
        # Without a change, post-processors of labels have their say.
        labels = self.result.positions
        if gamma:
            labels = scores.argmax(0)
            if self.rule.prob_thd is not None:
                labels[best < self.rule.prob_thd] = self.rule.bg_index
        if threshold is not None:
            labels = np.where(best < threshold, void_label(count), labels)
        kind = self.result.labels.dtype
        return replace(self.result, labels=labels.astype(kind), scores=None)

    def heat_map(self, position: int) -> np.ndarray:
        """Draw where a class was found, with the scale that all classes share.

        Args:
            position: of the class.

        Returns:
            ``(h, w, 3)`` uint8, RGB.
        """
        height, width = self.result.labels.shape
        factor = enlargement(height, width)
        picture = enlarge(self.result.image, factor)
        found = cv2.resize(self.scores[position], (width * factor, height * factor))
        low, high = float(self.scores.min()), float(self.scores.max())
        drawn = draw_heat_map(picture, found, low, high)
        font_size = legend_font_size(*drawn.shape[:2])
        return np.concatenate([drawn, draw_scale(low, high, drawn.shape[1], font_size)])


def archive(segmentation: Segmentation, settings: Mapping[str, object]) -> bytes:
    """Return what ``zs3 segment`` writes of a picture, in a ZIP file.

    Args:
        segmentation: whose ``source`` names the files.
        settings: what made it, for the JSON file.
    """
    stem = Path(segmentation.source or 'picture').stem
    stream = io.BytesIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(stream, 'w') as packed,
    ):
        for path in write_segmentation(
            segmentation, Path(folder), stem, model=settings
        ):
            packed.write(path, path.name)
    return stream.getvalue()
