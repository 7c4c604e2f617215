"""From mask logits at patch resolution to calibrated class scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zs3_mmseg.models.calibrators import Calibrator
from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.decode_heads.query_reduction import reduce_queries

from .geometry import Size, resize_maps


@dataclass(frozen=True)
class ScoringRule:
    """What is the same for all crops of a run.

    Attributes:
        score_kind: ``'logit'``, ``'sigmoid'`` or ``'softmax'``.
        query_reduce: how queries of a class become one logit.
        calibrators: in their order.
        mask_size: size before the activation; None: the input's size.
        align_corners: of every resize.
        class_chunk: number of classes handled at a time.
    """

    score_kind: str
    query_reduce: str
    calibrators: Sequence[Calibrator]
    mask_size: Size | None
    align_corners: bool
    class_chunk: int


class CropScores:
    """Class scores of one crop of each image, made for any slice of the classes.

    In the official order: resize to the mask size, reduction over synonyms,
    calibration of logits, activation, calibration of scores, resize to the crop.
    A softmax takes its normaliser from a first pass over all classes, chunk by chunk,
    so that nothing of the size ``K x height x width`` is ever made.

    Args:
        logits: ``(N, Q, h, w)``, or ``(N, K, h, w)`` if a head reduced them.
        queries: the ``Q`` rows of ``K`` classes.
        global_token: ``(N, E)`` or None.
        crop: size of the crop in pixels.
        covered: size in pixels that the logits stand for, at least ``crop``; what is
            beyond the crop, at the bottom and right, is cut off.
        rule: how scores are made.

    Raises:
        ValueError: if the logits fit neither the queries nor the classes.
    """

    def __init__(
        self,
        logits: Tensor,
        queries: ClassQueries,
        global_token: Tensor | None,
        *,
        crop: Size,
        covered: Size,
        rule: ScoringRule,
    ) -> None:
        counts = queries.queries_per_class
        if logits.shape[1] == sum(counts):
            self._counts: tuple[int, ...] = counts
        elif logits.shape[1] == len(counts):
            self._counts = (1,) * len(counts)
        else:
            raise ValueError(
                f'the head returned {logits.shape[1]} maps for {sum(counts)} queries '
                f'of {len(counts)} classes'
            )
        self._logits = logits.float()
        self._queries = queries
        self._global_token = global_token
        self._crop = crop
        self._covered = covered
        self._rule = rule
        self._normaliser = (
            self._log_partition() if rule.score_kind == 'softmax' else None
        )

    @property
    def num_classes(self) -> int:
        """The number of classes ``K``."""
        return len(self._counts)

    def __call__(self, classes: slice) -> Tensor:
        """Return calibrated scores of a slice of the classes, ``(N, K', H, W)``."""
        scores = self._calibrate(self._class_logits(classes)[1], 'logit', classes)
        if self._rule.score_kind == 'sigmoid':
            scores = scores.sigmoid()
        elif self._normaliser is not None:
            scores = (scores - self._normaliser).exp_()
        scores = self._calibrate(scores, 'score', classes)
        if self._rule.mask_size is None:
            return scores
        return self._cut(resize_maps(scores, self._covered, self._rule.align_corners))

    def _class_logits(self, classes: slice) -> tuple[Tensor, Tensor]:
        """Return resized logits per query and per class of a slice of the classes."""
        first = sum(self._counts[: classes.start])
        counts = self._counts[classes]
        logits = resize_maps(
            self._logits[:, first : first + sum(counts)],
            self._rule.mask_size or self._covered,
            self._rule.align_corners,
        )
        if self._rule.mask_size is None:
            logits = self._cut(logits)
        return logits, reduce_queries(logits, counts, self._rule.query_reduce)

    def _cut(self, maps: Tensor) -> Tensor:
        return maps[..., : self._crop[0], : self._crop[1]]

    def _calibrate(self, scores: Tensor, space: str, classes: slice) -> Tensor:
        for calibrator in self._rule.calibrators:
            if calibrator.space == space:
                scores = calibrator(scores, self._queries, self._global_token, classes)
        return scores

    def _log_partition(self) -> Tensor:
        """Return the log of the softmax's denominator, ``(N, 1, mask height, width)``.

        Every query counts in it. What calibrators did to a class is done to each of
        its queries.
        """
        total: Tensor | None = None
        for classes in class_chunks(self.num_classes, self._rule.class_chunk):
            per_query, per_class = self._class_logits(classes)
            calibrated = self._calibrate(per_class, 'logit', classes)
            if per_query.shape == per_class.shape or self._rule.query_reduce == 'sum':
                part = calibrated.logsumexp(dim=1, keepdim=True)
            else:
                counts = torch.tensor(self._counts[classes], device=per_query.device)
                change = (calibrated - per_class).repeat_interleave(counts, dim=1)
                part = (per_query + change).logsumexp(dim=1, keepdim=True)
            total = part if total is None else torch.logaddexp(total, part)
        assert total is not None  # there is at least one class
        return total


def class_chunks(num_classes: int, size: int) -> Iterator[slice]:
    """Yield slices of at most ``size`` classes that cover them all, in order."""
    for start in range(0, num_classes, size):
        yield slice(start, min(start + size, num_classes))


def average_windows(
    crops: Sequence[tuple[tuple[slice, slice], CropScores]],
    counts: Tensor,
    classes: slice,
) -> Tensor:
    """Average the scores of overlapping crops.

    Args:
        crops: the place of each crop in the image, and its scores.
        counts: ``(H, W)``, how many crops cover each pixel.
        classes: which classes.

    Returns:
        ``(N, K', H, W)``.
    """
    total: Tensor | None = None
    for (rows, columns), crop in crops:
        scores = crop(classes)
        if total is None:
            total = scores.new_zeros((*scores.shape[:2], *counts.shape))
        total[..., rows, columns] += scores
    assert total is not None  # there is at least one crop
    return total / counts
