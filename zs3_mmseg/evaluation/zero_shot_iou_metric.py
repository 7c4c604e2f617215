"""IoU and accuracy of seen and unseen classes, and their harmonic means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmseg.registry import METRICS

from zs3_mmseg.datasets.splits import (
    ZeroShotSplit,
    find_name,
    make_split,
    plain_split,
    resolve_split,
)
from zs3_mmseg.evaluation.confusion import PixelCounts, count_pixels
from zs3_mmseg.evaluation.report import (
    class_table,
    summary_table,
    write_json,
    write_labels,
)
from zs3_mmseg.evaluation.scores import ABSENT_RULES, gzsl_scores
from zs3_mmseg.utils.labels import special_labels
from zs3_mmseg.utils.names import did_you_mean


@METRICS.register_module()
class ZeroShotIoUMetric(BaseMetric):
    """Generalised zero-shot scores: all classes compete on all pixels.

    Reports, in percent and unrounded, ``aAcc`` (pixel accuracy), ``mAcc``, ``mIoU``
    and ``fwIoU``, each also ``_seen`` and ``_unseen``, and the harmonic means of the
    two groups ``haAcc``, ``hAcc``, ``hIoU`` and ``hfwIoU``. Groups are formed by the
    truth; false positives count wherever they are. The definitions are those of
    ZS3Net, see :mod:`zs3_mmseg.evaluation.scores`.

    Args:
        split: name or dict of the split; by default the one in the data set's
            metainfo, as :class:`~zs3_mmseg.datasets.ZeroShotDataset` writes it. For
            other data sets it is resolved by name against their classes.
        absent: what counts for a class without pixels: ``'nan'`` leaves it out of the
            means, ``'zero'`` counts it as 0, as ZS3Net's code does.
        ignore_index: label that is not counted; by default that of the data set.
        output_dir: folder for the predicted label maps, ``<image stem>.png``, and for
            ``zero_shot_iou.json`` with the scores, the classes and the confusion
            matrix.
        collect_device: see mmengine's ``BaseMetric``.
        prefix: put before the names of the scores.
        collect_dir: see mmengine's ``BaseMetric``.

    Raises:
        ValueError: if ``absent`` is unknown; later, if the classes of split, data set
            and scores don't agree, or a label or prediction is out of range (the
            message names the image).
    """

    # None would make mmengine warn that there is no prefix.
    default_prefix = ''

    def __init__(
        self,
        split: str | Mapping[str, Any] | ZeroShotSplit | None = None,
        *,
        absent: str = 'nan',
        ignore_index: int | None = None,
        output_dir: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        if absent not in ABSENT_RULES:
            raise ValueError(
                f'absent must be one of {", ".join(ABSENT_RULES)}, got {absent!r}.'
                f'{did_you_mean(str(absent), ABSENT_RULES)}'
            )
        self.split = None if split is None else resolve_split(split)
        self.absent = absent
        self.ignore_index = ignore_index
        self.output_dir = output_dir
        self._resolved: tuple[Mapping[str, Any] | None, ZeroShotSplit] | None = None

    def resolve(self, metainfo: Mapping[str, Any] | None = None) -> ZeroShotSplit:
        """Return the split in the class order of a data set.

        Args:
            metainfo: metainfo of the data set; ``dataset_meta`` by default.

        Raises:
            ValueError: if there is no split, or its classes are not the data set's.
        """
        if metainfo is None:
            metainfo = self.dataset_meta
        if self._resolved is None or self._resolved[0] is not metainfo:
            self._resolved = (metainfo, self._resolve(metainfo or {}))
        return self._resolved[1]

    def _resolve(self, metainfo: Mapping[str, Any]) -> ZeroShotSplit:
        classes = tuple(metainfo.get('classes') or ())
        if not classes:
            raise ValueError('ZeroShotIoUMetric: the data set has no class names')
        if 'seen' in metainfo and 'unseen' in metainfo:
            given = metainfo.get('split', 'custom')
            unseen = [classes[index] for index in metainfo['unseen']]
            name = given if isinstance(given, str) else given.get('name', 'custom')
            split = make_split(name, classes, unseen)
            if self.split is not None and self.split.fingerprint != split.fingerprint:
                raise ValueError(
                    f'ZeroShotIoUMetric(split={self.split.name!r}) is not the split '
                    f'{name!r} of the data set; leave split out of the evaluator, or '
                    "give both the same (test_dataloader's dataset.split)"
                )
            return split
        if self.split is None:
            raise ValueError(
                'ZeroShotIoUMetric: the data set has no split; wrap it in '
                "ZeroShotDataset or name one: dict(type='ZeroShotIoUMetric', split=...)"
            )
        return self._reordered(self.split, classes)

    @staticmethod
    def _reordered(split: ZeroShotSplit, classes: tuple[str, ...]) -> ZeroShotSplit:
        """Bring a split into the class order of a data set that knows of none."""
        positions = {name: find_name(name, classes) for name in split.classes}
        missing = [name for name, position in positions.items() if position is None]
        surplus = [
            name
            for index, name in enumerate(classes)
            if index not in positions.values()
        ]
        if missing or surplus:
            raise ValueError(
                f'ZeroShotIoUMetric: the data set and split {split.name!r} have '
                f'different classes. Only in the split: {missing or "none"}; only in '
                f'the data set: {surplus or "none"}'
            )
        unseen = [classes[positions[name]] for name in split.unseen]  # type: ignore[index]
        return make_split(split.name, classes, unseen, split.source)

    def _ignored(self) -> int:
        if self.ignore_index is not None:
            return self.ignore_index
        meta = self.dataset_meta or {}
        return meta.get('ignore_index', special_labels(len(meta['classes'])).ignore)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch.

        Args:
            data_batch: not used.
            data_samples: model outputs as dicts, with ``pred_sem_seg`` and
                ``gt_sem_seg``, data (1, H, W) each, and perhaps ``seg_logits``.

        Raises:
            ValueError: naming the image, if something is out of range.
        """
        classes = len(self.resolve().classes)
        for sample in data_samples:
            try:
                self._require_channels(sample, classes)
                counts = count_pixels(
                    _map(sample, 'pred_sem_seg'),
                    _map(sample, 'gt_sem_seg'),
                    classes,
                    self._ignored(),
                )
            except ValueError as error:
                raise ValueError(f'{_image_name(sample)}: {error}') from error
            self._append(counts, classes)
            if self.output_dir is not None:
                write_labels(
                    Path(self.output_dir) / f'{Path(_image_name(sample)).stem}.png',
                    _map(sample, 'pred_sem_seg').cpu().numpy(),
                    classes,
                )

    @staticmethod
    def _require_channels(sample: Mapping[str, Any], classes: int) -> None:
        logits = (sample.get('seg_logits') or {}).get('data')
        if logits is not None and len(logits) != classes:
            raise ValueError(
                f'the model gives scores of {len(logits)} classes, the data set has '
                f'{classes}; are model.split and dataset.split the same?'
            )

    def _append(self, counts: PixelCounts, classes: int) -> None:
        """Add an image to ``results`` without letting its memory grow.

        mmengine wants one entry for each image: collecting from several ranks, it
        drops those at the end that only fill up the last batch, at most one on each
        rank. So only the last image is kept apart; the others are summed up in the
        first entry, and zeros hold their places.
        """
        if len(self.results) < 2:
            self.results.append(counts)
            return
        if len(self.results) == 2:
            total = PixelCounts(slice(None), np.zeros(classes * classes, np.int64), 1)
            self.results[0].add_to(total.counts)
            self.results[0] = total
        self.results[-1].add_to(self.results[0].counts)
        self.results[0].images += 1
        self.results[-1] = 0
        self.results.append(counts)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Sum up, report and return the scores in percent.

        Args:
            results: what the ranks collected, one entry for each image.

        Raises:
            ValueError: if mmengine dropped images that were summed up already.
        """
        split = self.resolve()
        classes = len(split.classes)
        counted = [entry for entry in results if isinstance(entry, PixelCounts)]
        images = sum(entry.images for entry in counted)
        if images != len(results):
            raise ValueError(
                f'ZeroShotIoUMetric counted {images} images, but evaluate() was told '
                f'of {len(results)}; does the sampler repeat images?'
            )
        confusion = np.zeros((classes, classes), dtype=np.int64)
        for entry in counted:
            entry.add_to(confusion)
        scores = gzsl_scores(
            confusion, split.seen_indices, split.unseen_indices, self.absent
        )
        self._report(confusion, scores, split, images)
        return {key: 100 * value for key, value in scores.items()}

    def _report(
        self,
        confusion: np.ndarray,
        scores: Mapping[str, float],
        split: ZeroShotSplit,
        images: int,
    ) -> None:
        logger = MMLogger.get_current_instance()
        unseen = split.unseen_indices
        table = class_table(confusion, split.classes, unseen, self.absent)
        logger.info(f'Scores of each class:\n{table}')
        summary = summary_table(scores, confusion, unseen)
        logger.info(
            f'Split {split.name!r}, {images} images, absent={self.absent!r}:\n{summary}'
        )
        if self.output_dir is None:
            return
        path = Path(self.output_dir) / 'zero_shot_iou.json'
        extra = dict(split=plain_split(split), images=images)
        write_json(path, confusion, scores, split.classes, unseen, self.absent, extra)
        logger.info(f'Scores and confusion matrix are in {path}')


def _map(sample: Mapping[str, Any], key: str) -> Tensor:
    """Return the (H, W) map of a sample."""
    if key not in sample:
        hint = ' Does the test pipeline load annotations?' if key[:2] == 'gt' else ''
        raise ValueError(f'the sample has no {key}.{hint}')
    return sample[key]['data'].squeeze(0)


def _image_name(sample: Mapping[str, Any]) -> str:
    return str(sample.get('img_path') or sample.get('seg_map_path') or 'an image')
