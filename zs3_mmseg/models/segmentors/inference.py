"""Inference of a segmentor whose heads leave their maps at patch resolution."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import repeat
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.utils import SampleList

from zs3_mmseg.models.backbones.outputs import TowerOutput
from zs3_mmseg.models.calibrators import Calibrator
from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads.zero_shot_head import RunningArgmax, reduce_queries


def declared(function: Callable) -> frozenset[str]:
    """Return the names of the parameters of a function or class."""
    return frozenset(inspect.signature(function).parameters)


def call_with(function: Callable, *args: Any, **given: Any) -> Any:
    """Call a head's method with those of ``given`` that it declares by name."""
    names = declared(function)
    return function(*args, **{k: v for k, v in given.items() if k in names})


def reads_queries(head: Any) -> bool:
    """Tell whether a head, or a class of heads, reads class embeddings."""
    return any(
        'queries' in declared(method)
        for name in ('forward', 'predict', 'loss')
        if (method := getattr(head, name, None)) is not None
    )


MODES = ('whole', 'slide')
#: Value of ``return_scores`` that keeps the best class of each group.
GROUPS = 'groups'


@dataclass(frozen=True)
class InferenceOptions:
    """Options of ``test_cfg``.

    Attributes:
        mode: ``'whole'`` image at once, or ``'slide'`` a window over it.
        crop_size: height and width of the window.
        stride: vertical and horizontal step of the window.
        slide_batch_size: how many windows run through the network as one batch.
        mask_size: height and width that mask logits are resized to before the
            activation; None: the input's size. Published configs of methods whose
            official code does so state its training size.
        class_chunk: how many classes are handled at full resolution at a time.
        return_scores: put all class scores into the results. If False only label maps
            are made, with memory that does not grow with the number of classes.
            ``'groups'`` does that too and keeps the best seen and the best unseen
            class of each pixel in ``group_best``, for metrics that look at the groups.
        score_thr: with a single class, pixels that score at least this are it.
    """

    mode: str = 'whole'
    crop_size: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    slide_batch_size: int = 16
    mask_size: tuple[int, int] | None = None
    class_chunk: int = 8
    return_scores: bool | str = True
    score_thr: float = 0.5

    @classmethod
    def from_cfg(cls, cfg: Mapping[str, Any] | None) -> InferenceOptions:
        """Read the options out of a ``test_cfg``; keys of others are left alone.

        Raises:
            ValueError: naming the key whose value is wrong or missing.
        """
        cfg = cfg or {}
        known = {f.name: cfg[f.name] for f in fields(cls) if f.name in cfg}
        for name in ('crop_size', 'stride', 'mask_size'):
            if known.get(name) is not None:
                known[name] = _pair(name, known[name])
        options = cls(**known)
        if options.mode not in MODES:
            raise ValueError(
                f'test_cfg.mode must be one of {MODES}, not {options.mode!r}'
            )
        if options.mode == 'slide':
            options._check_window()
        returned = options.return_scores
        if not isinstance(returned, bool) and returned != GROUPS:
            raise ValueError(
                f'test_cfg.return_scores must be True, False or {GROUPS!r}, not '
                f'{returned!r}'
            )
        for name in ('slide_batch_size', 'class_chunk'):
            value = getattr(options, name)
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


Size = tuple[int, int]


class Window(NamedTuple):
    """A crop: rows ``top..bottom`` and columns ``left..right`` of the image."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the window in the last two dimensions."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


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


def window_counts(image: Size, windows: list[Window]) -> Tensor:
    """Return how many windows cover each pixel, ``(H, W)`` float32, all >= 1."""
    counts = torch.zeros(image)
    for window in windows:
        counts[window.slices] += 1
    return counts


def covered_size(backbone: nn.Module, image: Size) -> Size:
    """Return the size in pixels that a backbone's maps stand for.

    A backbone with ``grid_mode='pad'`` fills the image up to whole patches at the
    bottom and right, and its maps cover what it filled up to. Maps of any other
    backbone are taken to cover the image, as mmseg does.
    """
    if getattr(backbone, 'grid_mode', None) != 'pad':
        return image
    patch = int(backbone.patch_size)  # type: ignore[arg-type]
    return (-(-image[0] // patch) * patch, -(-image[1] // patch) * patch)


def resize_maps(maps: Tensor, size: Size, align_corners: bool) -> Tensor:
    """Resize ``(N, C, h, w)`` bilinearly; maps of that size are returned as they are.

    Each channel's result is the same whatever channels are resized with it.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    # Slices of one channel could otherwise pass for channels-last, whose kernel
    # rounds differently.
    maps = maps.contiguous(memory_format=torch.contiguous_format)
    return F.interpolate(maps, size=size, mode='bilinear', align_corners=align_corners)


def upright(scores: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """Undo the padding and the flip of a test pipeline.

    Args:
        scores: ``(1, C, H, W)`` at input size.
        meta: the sample's metainfo; ``img_padding_size`` or ``padding_size`` is
            (left, right, top, bottom).

    Returns:
        ``(1, C, H', W')``.

    Raises:
        ValueError: for a flip direction that is not known.
    """
    padding = meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))
    left, right, top, bottom = padding
    height, width = scores.shape[-2:]
    scores = scores[..., top : height - bottom, left : width - right]
    if meta.get('flip'):
        scores = scores.flip(dims=_flipped_dims(meta.get('flip_direction')))
    return scores


def original_size(meta: Mapping[str, Any]) -> Size:
    """Return height and width of the image file."""
    return tuple(meta['ori_shape'][:2])


def canvas_size(meta: Mapping[str, Any]) -> Size:
    """Return the size, in pixels of the image file, that an upright input stands for.

    That is the image itself, unless it lies in the top left corner of a canvas
    (``canvas_shape``, see :class:`~zs3_mmseg.datasets.transforms.LetterboxResize`).
    """
    return tuple(meta.get('canvas_shape', meta['ori_shape'])[:2])


def cut_to_image(maps: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """Cut maps ``(..., H, W)`` of a canvas down to the image in its corner."""
    height, width = original_size(meta)
    return maps[..., :height, :width]


def to_original(scores: Tensor, meta: Mapping[str, Any], align_corners: bool) -> Tensor:
    """Bring ``(1, C, H, W)`` from input size to ``(1, C, H', W')`` of the image file.

    Padding and flip are undone, and what lies beyond the image on a canvas is cut.
    """
    own = resize_maps(upright(scores, meta), canvas_size(meta), align_corners)
    return cut_to_image(own, meta)


def _flipped_dims(direction: str | None) -> tuple[int, ...]:
    known = {'horizontal': (3,), 'vertical': (2,), 'diagonal': (2, 3)}
    if direction not in known:
        raise ValueError(
            f'flip_direction={direction!r} is unknown; known: {", ".join(known)}'
        )
    return known[direction]


@dataclass(frozen=True)
class LabelRule:
    """How the best class of a pixel becomes its label.

    Attributes:
        score_thr: with a single class, pixels that score at least this are 1, the
            others 0: a mask. With more classes it is not used.
        prob_thd: with more classes, pixels whose best score is below it get
            ``bg_index``; None: off.
        bg_index: index of the background class.
    """

    score_thr: float
    prob_thd: float | None = None
    bg_index: int = 0

    def labels(self, best: Tensor, index: Tensor, num_classes: int) -> Tensor:
        """Return label maps.

        Args:
            best: ``(H, W)``, largest score of each pixel.
            index: ``(H, W)`` long, its class.
            num_classes: how many classes there were to choose from.

        Returns:
            ``(H, W)`` long.
        """
        if num_classes == 1:
            return (best >= self.score_thr).long()
        if self.prob_thd is None:
            return index
        return index.masked_fill(best < self.prob_thd, self.bg_index)

    def of_scores(self, scores: Tensor) -> Tensor:
        """Return the label map ``(1, H, W)`` of scores ``(K, H, W)``."""
        running = RunningArgmax()
        running.update(scores)
        return self.of_running(running)

    def of_running(self, running: RunningArgmax) -> Tensor:
        """Return the label map ``(1, H, W)`` of all classes taken in, at least one."""
        found = running.best()
        assert found is not None
        return self.labels(*found, running.num_classes)[None]


class GroupArgmax:
    """The best seen and the best unseen class of each pixel, from slices of classes.

    That is all a metric needs to let one group compete alone, or to shift the scores
    of seen classes by any constant.

    Args:
        seen_mask: which of the K classes are seen, ``(K,)`` bool.
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


#: Logit of a class that a head without class embeddings was never trained on. Finite,
#: as a resize would make NaN of infinities.
UNTRAINED = -1e4


class ScoredInference(nn.Module):
    """The part of :class:`ZeroShotEncoderDecoder` that predicts.

    Whole images and windows take the same way: the network runs once for all classes
    and leaves logits at patch resolution; everything at full resolution is done for a
    few classes at a time. A base class beside mmseg's own.
    """

    backbone: Any
    neck: Any
    decode_head: Any
    class_names: Any
    training_queries: Any
    current_queries: Any
    _reads_queries: Any
    with_neck: bool
    calibrators: Any
    test_cfg: Any
    align_corners: bool
    whole_inference: Callable[[Tensor, list[dict]], Tensor]
    #: Places among the split's classes of the channels of a head with fixed classes.
    _trained_indices: list[int]

    @property
    def _options(self) -> InferenceOptions:
        return InferenceOptions.from_cfg(self.test_cfg)

    @property
    def score_kind(self) -> str:
        """What scores are: ``'logit'``, ``'sigmoid'`` or ``'softmax'``."""
        return getattr(self.decode_head, 'score_kind', 'logit')

    @property
    def label_rule(self) -> LabelRule:
        """How scores become labels."""
        return LabelRule(
            score_thr=self._options.score_thr,
            prob_thd=getattr(self.decode_head, 'prob_thd', None),
            bg_index=getattr(self.decode_head, 'bg_index', 0),
        )

    # -- features ------------------------------------------------------------------

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the maps that heads read, without the global token."""
        return self._features(inputs)[0]

    def _features(self, inputs: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
        output = TowerOutput.of(self.backbone(inputs))
        maps, token = output.maps, output.global_token
        if self.with_neck:
            maps = tuple(self.neck(maps))
        return maps, token

    # -- inference -----------------------------------------------------------------

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Return calibrated scores ``(N, K, H, W)`` of the current classes.

        Args:
            inputs: ``(N, 3, H, W)``.
            batch_img_metas: metainfo of each image.
        """
        return self._all_scores(self._whole_scorer(inputs, batch_img_metas))

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Return scores ``(N, K, H, W)``, averaged over overlapping windows."""
        return self._all_scores(self._slide_scorer(inputs, batch_img_metas))

    def inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Return scores ``(N, K, H, W)`` at input size, whole or by windows."""
        if self._options.mode == 'slide':
            return self.slide_inference(inputs, batch_img_metas)
        return self.whole_inference(inputs, batch_img_metas)

    def predict(
        self, inputs: Tensor, data_samples: SampleList | None = None
    ) -> SampleList:
        """Return samples with ``pred_sem_seg`` ``(1, H, W)`` at original size.

        ``seg_logits`` ``(K, H, W)`` holds the scores unless
        ``test_cfg.return_scores=False``, which makes the same label maps without ever
        holding the scores of all classes; ``'groups'`` adds ``group_best`` with
        ``scores`` and ``classes`` ``(2, H, W)`` of the best seen and the best unseen
        class.
        """
        if data_samples is None:
            size = inputs.shape[2:]
            metas = [dict(ori_shape=size, img_shape=size, pad_shape=size)] * len(inputs)
        else:
            metas = [sample.metainfo for sample in data_samples]
        options = self._options
        if options.return_scores is True:
            return self.postprocess_result(self.inference(inputs, metas), data_samples)
        scorer = (
            self._slide_scorer(inputs, metas)
            if options.mode == 'slide'
            else self._whole_scorer(inputs, metas)
        )
        best = [RunningArgmax() for _ in metas]
        groups: list[GroupArgmax] = []
        if options.return_scores == GROUPS:
            seen_mask = self.current_queries().seen_mask
            groups = [GroupArgmax(seen_mask) for _ in metas]
        for chunk in class_chunks(len(self.class_names), options.class_chunk):
            scores = scorer(chunk)
            for index, running in enumerate(best):
                own = scores[index : index + 1]
                resized = to_original(own, metas[index], self.align_corners)[0]
                running.update(resized)
                if groups:
                    groups[index].update(resized, chunk)
        samples = data_samples or [SegDataSample() for _ in metas]
        for sample, running in zip(samples, best, strict=True):
            labels = self.label_rule.of_running(running)
            sample.set_data({'pred_sem_seg': PixelData(data=labels)})
        for sample, group in zip(samples, groups, strict=False):
            scores, classes = group.best()
            sample.set_data({'group_best': PixelData(scores=scores, classes=classes)})
        return samples

    def postprocess_result(
        self, seg_logits: Tensor, data_samples: SampleList | None = None
    ) -> SampleList:
        """Put scores and label maps at original size into samples.

        Args:
            seg_logits: scores ``(N, K, H, W)`` at input size.
            data_samples: samples with metainfo; None: the input size is the original.

        Returns:
            samples with ``seg_logits`` ``(K, H, W)`` and ``pred_sem_seg`` ``(1, H, W)``
            long. With one class the latter is the mask ``score >= score_thr``.
        """
        metas = [{'ori_shape': seg_logits.shape[2:]}] * len(seg_logits)
        if data_samples is not None:
            metas = [sample.metainfo for sample in data_samples]
        samples = data_samples or [SegDataSample() for _ in metas]
        for index, (sample, meta) in enumerate(zip(samples, metas, strict=True)):
            own = upright(seg_logits[index : index + 1], meta)
            scores = cut_to_image(self._resized(own, canvas_size(meta)), meta)[0]
            labels = self.label_rule.of_scores(scores)
            sample.set_data(
                {
                    'seg_logits': PixelData(data=scores),
                    'pred_sem_seg': PixelData(data=labels),
                }
            )
        return samples

    def _resized(self, scores: Tensor, size: Size) -> Tensor:
        """Resize ``(1, K, H, W)`` in the chunks in which streaming does it."""
        if tuple(scores.shape[-2:]) == size:
            return scores
        resized = scores.new_empty((*scores.shape[:2], *size))
        for classes in class_chunks(scores.shape[1], self._options.class_chunk):
            part = resize_maps(scores[:, classes], size, self.align_corners)
            resized[:, classes] = part
        return resized

    def _forward(
        self, inputs: Tensor, data_samples: SampleList | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Return what the head's ``forward`` does, at patch resolution.

        With the training rows while in training mode, else with the current ones.
        """
        queries = self.training_queries() if self.training else self.current_queries()
        maps, token = self._features(inputs)
        return call_with(
            self.decode_head.forward, maps, queries=queries, global_token=token
        )

    def _all_scores(self, scorer: Callable[[slice], Tensor]) -> Tensor:
        num_classes = len(self.class_names)
        chunk = self._options.class_chunk
        scores: Tensor | None = None
        for classes in class_chunks(num_classes, chunk):
            part = scorer(classes)
            if scores is None:
                scores = part.new_empty(len(part), num_classes, *part.shape[2:])
            scores[:, classes] = part
        assert scores is not None  # there is at least one class
        return scores

    def _whole_scorer(
        self, inputs: Tensor, metas: Sequence[Mapping[str, Any]]
    ) -> Callable[[slice], Tensor]:
        return self._crop_scores(inputs, metas)[0]

    def _slide_scorer(
        self, inputs: Tensor, metas: Sequence[Mapping[str, Any]]
    ) -> Callable[[slice], Tensor]:
        options = self._options
        assert options.crop_size is not None  # checked in from_cfg
        assert options.stride is not None
        size: Size = (inputs.shape[2], inputs.shape[3])
        windows = slide_windows(size, options.crop_size, options.stride)
        at_once = max(options.slide_batch_size // len(inputs), 1)
        scores: list[CropScores] = []
        for start in range(0, len(windows), at_once):
            group = windows[start : start + at_once]
            crops = torch.cat([inputs[..., w.slices[0], w.slices[1]] for w in group])
            scores += self._crop_scores(crops, metas)
        places = [window.slices for window in windows]
        crops_at = list(zip(places, scores, strict=True))
        counts = window_counts(size, windows).to(inputs.device)
        return lambda classes: average_windows(crops_at, counts, classes)

    def _crop_scores(
        self, crops: Tensor, metas: Sequence[Mapping[str, Any]]
    ) -> list[CropScores]:
        """Run the network over crops of equal size.

        Args:
            crops: ``(G * N, 3, H, W)``: one or several crops of each of ``N`` images,
                crop by crop.
            metas: metainfo of the ``N`` images.

        Returns:
            the scores of each of the ``G`` crops.
        """
        crop: Size = (crops.shape[2], crops.shape[3])
        covered = covered_size(self.backbone, crop)
        queries = self.current_queries()
        maps, token = self._features(crops)
        # mmseg's heads resize to img_shape, which as a torch.Size is a crop's.
        whole = dict(img_shape=torch.Size(covered))
        repeated = [{**m, **whole} for m in metas] * (len(crops) // len(metas))
        logits = self._mask_logits(maps, repeated, queries, token)
        rule = ScoringRule(
            score_kind=self.score_kind,
            query_reduce=getattr(self.decode_head, 'query_reduce', 'max'),
            calibrators=tuple(self.calibrators),
            mask_size=self._options.mask_size,
            align_corners=self.align_corners,
            class_chunk=self._options.class_chunk,
        )
        tokens = repeat(None) if token is None else token.split(len(metas))
        return [
            CropScores(part, queries, its_token, crop=crop, covered=covered, rule=rule)
            for part, its_token in zip(logits.split(len(metas)), tokens, strict=False)
        ]

    def _mask_logits(
        self,
        maps: tuple[Tensor, ...],
        metas: list[dict],
        queries: ClassQueries,
        token: Tensor | None,
    ) -> Tensor:
        """Return the head's logits, ``(N, Q or K, h, w)``."""
        head = self.decode_head
        if hasattr(head, 'query_logits'):
            return head.query_logits(maps, queries=queries, global_token=token)
        logits = call_with(
            head.predict,
            maps,
            metas,
            self.test_cfg,
            queries=queries,
            global_token=token,
        )
        if self._reads_queries() or logits.shape[1] == queries.num_classes:
            return logits
        spread = logits.new_full(
            (len(logits), queries.num_classes, *logits.shape[2:]), UNTRAINED
        )
        spread[:, self._trained_indices] = logits
        return spread
