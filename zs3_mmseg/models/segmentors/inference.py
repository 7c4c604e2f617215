"""From what a head returns to scores and labels at the size of the image file.

A head runs once for all classes and leaves its maps at patch resolution. Everything at
full resolution is done for a few classes at a time: :class:`CropScores` makes the
scores of a slice of the classes for one crop, :func:`stream_scores` averages crops and
yields slice after slice, and :class:`ImageResult` keeps of them what is asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads.mask_scores import MaskScores
from zs3_mmseg.models.decode_heads.zero_shot_head import (
    GatedLogits,
    RunningArgmax,
    reduce_queries,
)
from zs3_mmseg.models.resize import Size, cut_maps, resize_by_products, resize_maps
from zs3_mmseg.utils.names import choose, did_you_mean

MODES = ('whole', 'slide')
#: Where masks of :class:`MaskScores` are summed.
SUM_SIZES = ('input', 'original')
#: The slice of all classes.
ALL = slice(None)
#: Value of ``return_scores`` that keeps the best class of each group.
GROUPS = 'groups'


@dataclass(frozen=True)
class InferenceOptions:
    """Options of ``test_cfg``.

    Attributes:
        mode: ``'whole'`` image at once, or ``'slide'`` a window over it.
        crop_size: height and width of the window.
        stride: vertical and horizontal step of the window.
        slide_batch_size: how many windows run through the network as one batch. None:
            16 on an accelerator and 1 on a CPU, where more take more memory and no less
            time.
        mask_size: height and width that mask logits are resized to before the
            activation; None: the input's size. Published configs of methods whose
            official code does so state its training size.
        class_chunk: how many classes are handled at full resolution at a time.
        return_scores: put all class scores into the results. If False only label maps
            are made, with memory that does not grow with the number of classes.
            ``'groups'`` does that too and keeps the best seen and the best unseen
            class of each pixel in ``group_best``, for metrics that look at the groups.
        score_thr: with a single class, pixels that score at least this are it.
        name_batch_size: how many pairs of an image and a name run as one batch; of
            ``ClassPromptedSegmentor``.
        mask_sums: where the masks of a head with ``score_kind='mask_sum'`` are summed:
            at ``'input'`` size, or, resized once more before their sigmoid, at the
            ``'original'`` size of the file, as FC-CLIP does where it makes panoptic
            masks as well.
    """

    mode: str = 'whole'
    crop_size: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    slide_batch_size: int | None = None
    mask_size: tuple[int, int] | None = None
    class_chunk: int = 8
    return_scores: bool | str = True
    score_thr: float = 0.5
    name_batch_size: int = 16
    mask_sums: str = 'input'

    @classmethod
    def from_cfg(cls, cfg: Mapping[str, Any] | None) -> InferenceOptions:
        """Read the options out of a ``test_cfg``.

        Keys of others are left alone, unless they look like a slip of the pen.

        Raises:
            ValueError: naming the key whose value is wrong or missing.
        """
        cfg = cfg or {}
        names = [field.name for field in fields(cls)]
        known = {name: cfg[name] for name in names if name in cfg}
        for key in cfg.keys() - known.keys():
            if hint := did_you_mean(str(key), names):
                raise ValueError(f'test_cfg.{key} is no option.{hint}')
        for name in ('crop_size', 'stride', 'mask_size'):
            if known.get(name) is not None:
                known[name] = _pair(name, known[name])
        options = cls(**known)
        if choose('test_cfg.mode', options.mode, MODES) == 'slide':
            options._check_window()
        at_original = choose('test_cfg.mask_sums', options.mask_sums, SUM_SIZES)
        if at_original == 'original' and (options.mode == 'slide' or options.mask_size):
            raise ValueError(
                "test_cfg.mask_sums='original' resizes the masks of whole images to "
                "the size of the file: set test_cfg.mode='whole' and leave mask_size "
                'out'
            )
        returned = options.return_scores
        if not isinstance(returned, bool) and returned != GROUPS:
            raise ValueError(
                f'test_cfg.return_scores must be True, False or {GROUPS!r}, not '
                f'{returned!r}'
            )
        for name in ('slide_batch_size', 'class_chunk', 'name_batch_size'):
            value = getattr(options, name)
            if value is None and name == 'slide_batch_size':
                continue
            if not isinstance(value, int) or value < 1:
                raise ValueError(f'test_cfg.{name} must be an int >= 1, not {value!r}')
        return options

    def _check_window(self) -> None:
        if self.crop_size is None or self.stride is None:
            raise ValueError(
                "test_cfg.mode='slide' needs test_cfg.crop_size and test_cfg.stride, "
                'two ints each'
            )
        if any(s > c for s, c in zip(self.stride, self.crop_size, strict=True)):
            raise ValueError(
                f'test_cfg.stride={self.stride} is larger than '
                f'test_cfg.crop_size={self.crop_size}: pixels would be left out'
            )


def _pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, int) and v > 0 for v in pair):
        raise ValueError(
            f'test_cfg.{name} must be a positive int or two of them, not {value!r}'
        )
    return pair


class Window(NamedTuple):
    """A crop: rows ``top..bottom`` and columns ``left..right`` of the image."""

    top: int
    bottom: int
    left: int
    right: int


def window_of(maps: Tensor, window: Window | None) -> Tensor:
    """Return the window of maps ``(..., H, W)``; None: all of them."""
    if window is None:
        return maps
    top, bottom, left, right = window
    return maps[..., top:bottom, left:right]


def slide_windows(image: Size, crop: Size, stride: Size) -> list[Window]:
    """Place windows of one size over an image, as mmseg's slide inference does.

    The last row and column of windows are moved back to end at the border. A crop
    larger than the image is cut down to it.
    """
    (height, width), (crop_h, crop_w), (stride_h, stride_w) = image, crop, stride
    tops = range(0, max(height - crop_h + stride_h - 1, 0) // stride_h + 1)
    lefts = range(0, max(width - crop_w + stride_w - 1, 0) // stride_w + 1)
    windows = []
    for row in tops:
        for column in lefts:
            bottom = min(row * stride_h + crop_h, height)
            right = min(column * stride_w + crop_w, width)
            windows.append(
                Window(max(bottom - crop_h, 0), bottom, max(right - crop_w, 0), right)
            )
    return windows


def covered_size(backbone: nn.Module, image: Size) -> Size:
    """Return the size in pixels that a backbone's maps stand for.

    A backbone with ``grid_mode='pad'`` fills the image up to whole patches at the
    bottom and right, and its maps cover what it filled up to. Maps of any other
    backbone are taken to cover the image, as mmseg does.
    """
    if getattr(backbone, 'grid_mode', None) != 'pad':
        return image
    patch = int(backbone.patch_size)  # type: ignore[arg-type]
    # Of positive numbers: the division of ONNX rounds others the other way.
    height, width = ((side + patch - 1) // patch * patch for side in image)
    return height, width


_FLIPPED = {'horizontal': (-1,), 'vertical': (-2,), 'diagonal': (-2, -1)}


def undo_flip(maps: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """Mirror maps ``(..., H, W)`` back if a test pipeline flipped their image."""
    if not meta.get('flip'):
        return maps
    direction = meta.get('flip_direction')
    if direction not in _FLIPPED:
        raise ValueError(
            f'flip_direction={direction!r} is unknown; known: {", ".join(_FLIPPED)}'
        )
    return maps.flip(dims=_FLIPPED[direction])


def to_original(maps: Tensor, meta: Mapping[str, Any], align_corners: bool) -> Tensor:
    """Bring ``(1, C, H, W)`` from input size to ``(1, C, H', W')`` of the image file.

    Padding (``img_padding_size`` or ``padding_size``: left, right, top, bottom) and
    flip of a test pipeline are undone. What the input stands for is the image itself,
    or a canvas with the image in its top left corner (``canvas_shape``, see
    :class:`~zs3_mmseg.datasets.transforms.LetterboxResize`), which is cut off.
    """
    padding = meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))
    left, right, top, bottom = padding
    height, width = maps.shape[-2:]
    maps = maps[..., top : height - bottom, left : width - right]
    if meta.get('flip'):
        maps = undo_flip(maps, meta)
    height, width = meta['ori_shape'][:2]
    canvas = tuple(meta.get('canvas_shape', meta['ori_shape'])[:2])
    return resize_maps(maps, canvas, align_corners)[..., :height, :width]


def _one_memory(maps: Tensor, before: Tensor) -> bool:
    """Tell whether maps are those before, as far as an exported graph knows."""
    return torch.compiler.is_exporting() or maps.data_ptr() == before.data_ptr()


# ------------------------------------------------------------------ scores of one crop


@dataclass(frozen=True)
class ScoringRule:
    """What is the same for all crops of a run.

    ``mask_size`` is the size before the activation, None: the input's size;
    ``align_corners`` holds for every resize.
    """

    score_kind: str
    query_reduce: str
    calibrators: Sequence[Any]
    mask_size: Size | None
    align_corners: bool
    class_chunk: int


@dataclass(eq=False)
class CropScores(ABC):
    """Class scores of one crop of each image, made for any slice of the classes.

    In the official order: resize to the mask size, reduction over synonyms,
    calibration of logits, activation, calibration of scores, resize to the crop, so
    that nothing of the size ``K x height x width`` is ever made. What has to know all
    classes takes first passes over them, chunk by chunk: a softmax for its normaliser,
    and each calibrator with ``needs_all_classes``, whose ``observe(observed, scores,
    queries, global_token, classes)`` returns what it has gathered (from None on) and
    whose call then gets the last of it as ``observed``.

    Those with ``needs_gate`` get ``gate`` ``(N, 1, H, W)`` of the head, in 0..1.

    ``found`` is what the head returned, ``global_token`` ``(N, E)`` or None, and
    ``crop`` the size of the crop. The head's maps stand for ``covered``, at least the
    crop; what is beyond the crop, at the bottom and right, is cut off.
    """

    found: Any
    queries: ClassQueries
    global_token: Tensor | None
    crop: Size
    covered: Size
    rule: ScoringRule
    normaliser: Tensor | None = None
    observed: dict[Any, Any] = field(default_factory=dict)
    gate: Tensor | None = None

    def __call__(self, classes: slice) -> Tensor:
        """Return calibrated scores of a slice of the classes, ``(N, K', H, W)``."""
        scores = self.before(None, classes)
        if self.rule.mask_size is None:
            return scores
        scores = resize_maps(scores, self.covered, self.rule.align_corners)
        return cut_maps(scores, self.crop)

    def before(self, calibrator: Any | None, classes: slice) -> Tensor:
        """Return what a calibrator gets; None: what the last one leaves."""
        scores = self._calibrate(self._raw(classes), 'logit', classes, calibrator)
        if calibrator is not None and calibrator.space == 'logit':
            return scores
        if self.rule.score_kind == 'sigmoid':
            # In place, unless a backward pass may need what is there.
            scores = scores.sigmoid() if scores.requires_grad else scores.sigmoid_()
        elif self.normaliser is not None:
            scores = (scores - self.normaliser).exp_()
        return self._calibrate(scores, 'score', classes, calibrator)

    def stream(self, calibrator: Any | None) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of the classes and what a calibrator gets of them."""
        for classes in self.chunks():
            yield classes, self.before(calibrator, classes)

    def chunks(self) -> Iterator[slice]:
        """Yield slices of the classes that cover them all, in order."""
        num_classes, size = len(self.queries.queries_per_class), self.rule.class_chunk
        if not num_classes:  # any number of them
            yield ALL
        for start in range(0, num_classes, size):
            yield slice(start, min(start + size, num_classes))

    @abstractmethod
    def _raw(self, classes: slice) -> Tensor:
        """Return what calibration starts from, for a slice of the classes.

        It is a new tensor, which may be written into.
        """

    def _sized(self, maps: Tensor) -> Tensor:
        """Bring maps to the size at which scores are made."""
        rule = self.rule
        size = rule.mask_size or self.covered
        if maps.is_cpu and not torch.compiler.is_exporting():
            with torch.autocast('cpu', enabled=False):
                maps = resize_by_products(maps, size, rule.align_corners)
        else:  # where the kernel waits for memory alone, and products may be inexact
            maps = resize_maps(maps, size, rule.align_corners)
        return cut_maps(maps, self.crop) if rule.mask_size is None else maps

    def _calibrate(
        self, scores: Tensor, space: str, classes: slice, until: Any | None = None
    ) -> Tensor:
        for calibrator in self.rule.calibrators:
            if calibrator.space != space:
                continue
            if calibrator is until:
                break
            more = {}
            if calibrator in self.observed:
                more['observed'] = self.observed[calibrator]
            if getattr(calibrator, 'needs_gate', False):
                more['gate'] = self.gate
            scores = calibrator(
                scores, self.queries, self.global_token, classes, **more
            )
        return scores

    def _observe(self, space: str) -> None:
        """Show all classes to the calibrators of a space that need them."""
        for calibrator in self.rule.calibrators:
            needs_all = getattr(calibrator, 'needs_all_classes', False)
            if not needs_all or calibrator.space != space:
                continue
            observed = None
            for classes, scores in self.stream(calibrator):
                observed = calibrator.observe(
                    observed, scores, self.queries, self.global_token, classes
                )
            self.observed[calibrator] = observed


@dataclass(eq=False)
class LogitScores(CropScores):
    """:class:`CropScores` of logits ``(N, Q, h, w)``, or ``(N, K, h, w)``."""

    def __post_init__(self) -> None:
        if isinstance(self.found, GatedLogits):
            self.gate = self._sized(self.found.gate.float()).sigmoid()
            self.found = self.found.logits
        counts, num_maps = self.queries.queries_per_class, self.found.shape[1]
        if counts and num_maps not in (sum(counts), len(counts)):
            raise ValueError(
                f'the head returned {num_maps} maps for {sum(counts)} queries '
                f'of {len(counts)} classes'
            )
        one_each = not counts or num_maps != sum(counts)
        self.counts = (1,) * len(counts) if one_each else counts
        self.found = self.found.float()
        self._observe('logit')
        if self.rule.score_kind == 'softmax':
            self.normaliser = self._log_partition()
        self._observe('score')

    def _raw(self, classes: slice, reduced: bool = True) -> Tensor:
        """Return resized logits per class, or per query, of a slice of the classes."""
        if not self.counts:
            return self._sized(self.found)
        first, counts = sum(self.counts[: classes.start]), self.counts[classes]
        part = self.found[:, first : first + sum(counts)]
        logits = self._sized(part)
        if _one_memory(logits, part):
            logits = logits.clone()
        if not reduced:
            return logits
        return reduce_queries(logits, counts, self.rule.query_reduce)

    def _log_partition(self) -> Tensor:
        """Return the log of the softmax's denominator, ``(N, 1, mask height, width)``.

        Every query counts in it. What calibrators did to a class is done to each of
        its queries.
        """
        total: Tensor | None = None
        for classes in self.chunks():
            per_query, counts = self._raw(classes, reduced=False), self.counts[classes]
            per_class = reduce_queries(per_query, counts, self.rule.query_reduce)
            calibrated = self._calibrate(per_class, 'logit', classes)
            if per_query.shape == per_class.shape or self.rule.query_reduce == 'sum':
                part = calibrated.logsumexp(dim=1, keepdim=True)
            else:
                repeats = torch.tensor(counts, device=per_query.device)
                change = (calibrated - per_class).repeat_interleave(repeats, dim=1)
                part = (per_query + change).logsumexp(dim=1, keepdim=True)
            total = part if total is None else torch.logaddexp(total, part)
        assert total is not None  # there is at least one class
        return total


#: Of the quotient in ``output='log_mean'``; less cover than this is no mask.
EPSILON = 1e-8
#: How many bool masks become numbers at once: at full resolution these are large.
SUMMED_AT_ONCE = 16


@dataclass(eq=False)
class MaskSums(CropScores):
    """:class:`CropScores` of :class:`MaskScores`: their masks, summed per class.

    All masks are held at full resolution, and the scores of a chunk of the classes.
    Bool masks of that size stay bool, a quarter of the memory, and are summed in
    blocks.
    """

    found: MaskScores

    def __post_init__(self) -> None:
        found = self.found
        num_classes = found.class_scores.shape[2]
        if num_classes != self.queries.num_classes:
            raise ValueError(
                f'the head returned MaskScores of {num_classes} classes, and there are '
                f'{self.queries.num_classes}'
            )
        self.masks = self._full(found.masks)
        if found.output == 'log_mean':
            weights = found.class_scores.new_ones(
                self.masks.shape[:2], dtype=torch.float32
            )
            self.weights = weights if found.weights is None else found.weights.float()
            self.cover = self._summed(self.weights[..., None])
        self._observe('score')

    def _full(self, masks: Tensor) -> Tensor:
        """Return masks in 0..1, or bool, at the size at which scores are made."""
        size = self.rule.mask_size or self.covered
        if masks.dtype == torch.bool and tuple(masks.shape[2:]) == tuple(size):
            return self._sized(masks)
        own, masks = masks, masks.float()
        if not masks.shape[1]:  # which torch does not resize
            masks = masks.new_zeros(len(masks), 0, *size)
        masks = self._sized(masks)
        if self.found.mask_kind == 'prob':
            return masks
        # In place: at full resolution they are large. Not the head's own, though.
        return masks.sigmoid() if _one_memory(masks, own) else masks.sigmoid_()

    def _raw(self, classes: slice) -> Tensor:
        scores = self.found.class_scores[..., classes].float()
        if self.found.output == 'sum':
            return self._summed(scores)
        mean = self._summed(self.weights[..., None] * scores) / (self.cover + EPSILON)
        logs = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
        if self.found.fallback is None:
            return logs
        fallback = self._sized(self.found.fallback[:, classes].float())
        return torch.where(self.cover > EPSILON, logs, fallback)

    def _summed(self, factors: Tensor) -> Tensor:
        """Return the sum of masks times factors ``(N, M, K')``, ``(N, K', H, W)``."""
        blocks = [self.masks]
        if self.masks.dtype == torch.bool:
            blocks = [*self.masks.split(SUMMED_AT_ONCE, dim=1)]
        of_blocks = factors.transpose(1, 2).split([b.shape[1] for b in blocks], dim=2)
        with torch.autocast(factors.device.type, enabled=False):
            sums = of_blocks[0] @ blocks[0].flatten(2).to(factors)
            for some, masks in zip(of_blocks[1:], blocks[1:], strict=True):
                sums += some @ masks.flatten(2).to(factors)
        return sums.unflatten(2, self.masks.shape[2:])


@dataclass(frozen=True)
class CalibrationData:
    """What a calibrator's ``fit`` gets; it may be gone through several times.

    Iterating yields, for each crop of each image, an iterator over slices of the
    classes and the scores ``(1, K', h, w)`` that the calibrator would get of them.
    ``queries`` are those of the ``K`` current classes.
    """

    calibrator: Any
    queries: ClassQueries
    crops: Callable[[], Iterator[CropScores]]

    def __iter__(self) -> Iterator[Iterator[tuple[slice, Tensor]]]:
        for crop in self.crops():
            yield crop.stream(self.calibrator)


# ------------------------------------------------------------------ scores of images


class Cell(NamedTuple):
    """A part of the image that the same windows cover, in ``owners`` by number."""

    place: Window
    owners: tuple[int, ...]


def cells_of(windows: Sequence[Window]) -> list[Cell]:
    """Cut what windows cover at all of their borders."""
    rows = sorted({side for window in windows for side in window[:2]})
    columns = sorted({side for window in windows for side in window[2:]})
    cells = []
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            owners = tuple(
                number
                for number, window in enumerate(windows)
                if window.top <= top < window.bottom
                and window.left <= left < window.right
            )
            if owners:
                cells.append(Cell(Window(top, bottom, left, right), owners))
    return cells


def stream_scores(
    crops: Sequence[tuple[Window | None, CropScores]], size: Size
) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of the classes and their scores ``(N, K', H, W)`` at input size.

    A single crop is the whole image. Where windows overlap, scores are averaged; the
    rest is written once. Each slice is written over by the next.
    """
    windows = [window for window, _ in crops if window is not None]
    cells = cells_of(windows) if len(crops) > 1 else []
    whole: Tensor | None = None
    for classes in crops[0][1].chunks():
        if not cells:
            yield classes, crops[0][1](classes)
            continue
        for number, window in enumerate(windows):
            scores = crops[number][1](classes)
            if whole is None:
                whole = scores.new_empty((*scores.shape[:2], *size))
            total = whole[:, : scores.shape[1]]
            for place, owners in cells:
                if number in owners:
                    own = window_of(scores, _within(place, window))
                    target = window_of(total, place)
                    target.copy_(own) if number == owners[0] else target.add_(own)
        for place, owners in cells:
            if len(owners) > 1:
                window_of(total, place).div_(len(owners))
        yield classes, total


def _within(place: Window, window: Window) -> Window:
    """Return a place of the image in rows and columns of a window around it."""
    top, bottom, left, right = place
    return Window(
        top - window.top, bottom - window.top, left - window.left, right - window.left
    )


@dataclass(frozen=True)
class LabelRule:
    """How the best class of a pixel becomes its label.

    With a single class, pixels that score at least ``score_thr`` are 1, the others 0:
    a mask. With more classes, pixels whose best score is below ``prob_thd``, unless it
    is None, get ``bg_index``.
    """

    score_thr: float
    prob_thd: float | None = None
    bg_index: int = 0


class GroupArgmax:
    """The best seen and the best unseen class of each pixel, from slices of classes.

    That is all a metric needs to let one group compete alone, or to shift the scores
    of seen classes by any constant; ``seen_mask`` is ``(K,)`` bool.
    """

    def __init__(self, seen_mask: Tensor) -> None:
        self._members = (seen_mask, ~seen_mask)
        self._running = (RunningArgmax(), RunningArgmax())

    def update(self, scores: Tensor, classes: slice) -> None:
        """Take in the scores ``(K', H, W)`` of a slice of the classes."""
        for members, running in zip(self._members, self._running, strict=True):
            inside = members[classes].to(scores.device).nonzero().flatten()
            if len(inside):
                running.update(scores[inside], inside + classes.start)

    def best(self) -> tuple[Tensor, Tensor]:
        """Return the best scores ``(2, H, W)`` and their classes ``(2, H, W)`` long.

        Seen first, then unseen; a group without classes has score -inf and class -1.
        """
        found = [running.best() for running in self._running]
        scores, classes = next(pair for pair in found if pair is not None)
        nothing = (torch.full_like(scores, -torch.inf), torch.full_like(classes, -1))
        pairs = [nothing if pair is None else pair for pair in found]
        return torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])


class ImageResult:
    """What is kept of the scores of one image, class chunk by class chunk.

    The best class of each pixel, with ``num_kept`` the scores of that many classes, and
    with ``seen_mask`` the best class of each group.
    """

    def __init__(self, num_kept: int, seen_mask: Tensor | None) -> None:
        self._num_kept = num_kept
        self._scores: Tensor | None = None
        self._best = RunningArgmax()
        self._groups = None if seen_mask is None else GroupArgmax(seen_mask)

    def update(self, scores: Tensor, classes: slice) -> None:
        """Take in scores ``(K', H, W)`` at original size of a slice of the classes."""
        if self._groups is not None:
            self._groups.update(scores, classes)
        if not self._num_kept:
            self._best.update(scores)
            return
        if self._scores is None:
            self._scores = scores.new_empty(self._num_kept, *scores.shape[1:])
        self._scores[classes] = scores

    def write(
        self,
        sample: SegDataSample,
        rule: LabelRule,
        post_processors: Iterable[Any] = (),
        pixels: Tensor | None = None,
    ) -> None:
        """Put label map, and scores or groups, into a sample.

        Post-processors get the scores or the label map and ``pixels`` ``(3, H, W)``, an
        RGB image of their size.
        """
        if self._scores is not None:
            scores = self._scores
            for processor in post_processors:
                if processor.space == 'score':
                    scores = _processed(processor, scores, pixels, sample)
            self._best.update(scores)
            sample.set_data({'seg_logits': PixelData(data=scores)})
        if self._groups is not None:
            best, classes = self._groups.best()
            sample.set_data({'group_best': PixelData(scores=best, classes=classes)})
        found = self._best.best()
        assert found is not None  # there is at least one class
        best, labels = found
        _require_numbers(best, sample)
        if self._best.num_classes == 1:
            labels = (best >= rule.score_thr).long()
        elif rule.prob_thd is not None:
            labels = labels.masked_fill(best < rule.prob_thd, rule.bg_index)
        labels = labels[None]
        for processor in post_processors:
            if processor.space == 'label':
                labels = _processed(processor, labels, pixels, sample)
        sample.set_data({'pred_sem_seg': PixelData(data=labels)})


def _processed(
    processor: Any, prediction: Tensor, pixels: Tensor | None, sample: SegDataSample
) -> Tensor:
    """Let a post-processor change a prediction, with the metainfo if it needs that."""
    more = {}
    if getattr(processor, 'needs_meta', False):
        more['meta'] = sample.metainfo
    return processor(prediction, pixels, **more)


def _require_numbers(best: Tensor, sample: SegDataSample) -> None:
    """Refuse scores that are NaN, whose label would be made of nothing."""
    missing = best.isnan()
    if bool(missing.any()):
        image = sample.metainfo.get('img_path', 'an image')
        raise ValueError(
            f'the scores of {image} are NaN at {int(missing.sum()):,} of '
            f'{missing.numel():,} pixels: its pixels or the weights of the model are '
            'no numbers, or too large for half precision'
        )
