"""Inference of a segmentor whose heads leave their maps at patch resolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.utils import SampleList

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads.running_argmax import RunningArgmax

from .backbone_outputs import split_token
from .calls import call_with
from .crop_scores import CropScores, ScoringRule, average_windows, class_chunks
from .geometry import (
    Size,
    canvas_size,
    covered_size,
    cut_to_image,
    resize_maps,
    slide_windows,
    to_original,
    upright,
    window_counts,
)
from .label_maps import GroupArgmax, LabelRule
from .open_vocabulary import OpenVocabulary
from .options import GROUPS, InferenceOptions

#: Logit of a class that a head without class embeddings was never trained on. Finite,
#: as a resize would make NaN of infinities.
UNTRAINED = -1e4


class ScoredInference(OpenVocabulary):
    """The part of :class:`ZeroShotEncoderDecoder` that predicts.

    Whole images and windows take the same way: the network runs once for all classes
    and leaves logits at patch resolution; everything at full resolution is done for a
    few classes at a time. A base class beside mmseg's own.
    """

    backbone: Any
    neck: Any
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
        maps, token = split_token(self.backbone(inputs))
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
