"""IoU and accuracy of seen and unseen classes, and their harmonic means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmseg.registry import METRICS

from zs3_mmseg.datasets.splits import ZeroShotSplit, make_split, resolve_split
from zs3_mmseg.models.segmentors.inference import GroupArgmax
from zs3_mmseg.utils.labels import special_labels
from zs3_mmseg.utils.output_names import output_name

from .boundary import check_ratio
from .counters import GroupBest, ImageMaps, PixelCounts
from .gamma_sweep import check_gammas
from .protocols import GROUP_MODES, ProtocolCounters, check_modes
from .report import (
    JSON_NAME,
    ZeroShotResults,
    report_tables,
    write_charts,
    write_json,
    write_labels,
    write_tables,
)
from .scores import absent_rule, require_kept


def split_of_dataset(
    metainfo: Mapping[str, Any], given: ZeroShotSplit | None
) -> ZeroShotSplit:
    """Return the split of a data set, or bring a given one into its class order."""
    classes = tuple(metainfo.get('classes') or ())
    if not classes:
        raise ValueError('ZeroShotIoUMetric: the data set has no class names')
    if 'seen' in metainfo and 'unseen' in metainfo:
        found = metainfo.get('split', 'custom')
        unseen = [classes[index] for index in metainfo['unseen']]
        name = found if isinstance(found, str) else found.get('name', 'custom')
        split = make_split(name, classes, unseen)
        if given is not None and given.fingerprint != split.fingerprint:
            raise ValueError(
                f'ZeroShotIoUMetric(split={given.name!r}) is not the split '
                f'{name!r} of the data set; leave split out of the evaluator, or '
                "give both the same (test_dataloader's dataset.split)"
            )
        return split
    if given is None:
        raise ValueError(
            'ZeroShotIoUMetric: the data set has no split; wrap it in '
            "ZeroShotDataset or name one: dict(type='ZeroShotIoUMetric', split=...)"
        )
    return given.ordered_as(classes)


def group_best(sample: Mapping[str, Any], split: ZeroShotSplit) -> GroupBest:
    """Return the best seen and unseen class of each pixel of a sample."""
    if 'seg_logits' in sample:
        scores = sample['seg_logits']['data']
        running = GroupArgmax(torch.tensor(split.seen_mask()))
        running.update(scores, slice(0, len(scores)))
        return GroupBest(*running.best())
    if 'group_best' in sample:
        best = sample['group_best']
        return GroupBest(best['scores'], best['classes'])
    raise ValueError(
        'modes other than gzsl and gamma_sweep need scores, and the sample has none; '
        "set model.test_cfg.return_scores to 'groups' or True"
    )


def require_channels(sample: Mapping[str, Any], classes: int) -> None:
    """Check that the scores of a sample, if it has any, are those of all classes."""
    logits = (sample.get('seg_logits') or {}).get('data')
    if logits is not None and len(logits) != classes:
        raise ValueError(
            f'the model gives scores of {len(logits)} classes, the data set has '
            f'{classes}; are model.split and dataset.split the same?'
        )


def pixel_map(sample: Mapping[str, Any], key: str) -> Tensor:
    """Return the (H, W) map of a sample."""
    if key not in sample:
        hint = ' Does the test pipeline load annotations?' if key[:2] == 'gt' else ''
        raise ValueError(f'the sample has no {key}.{hint}')
    return sample[key]['data'].squeeze(0)


def image_name(sample: Mapping[str, Any]) -> str:
    """Return what a sample is called in messages: the path of its image."""
    return str(sample.get('img_path') or sample.get('seg_map_path') or 'an image')


@METRICS.register_module()
class ZeroShotIoUMetric(BaseMetric):
    """Zero-shot scores; by default generalised: all classes compete on all pixels.

    Reports, in percent and unrounded, ``aAcc`` (pixel accuracy), ``mAcc`` and ``mIoU``,
    each also ``_seen`` and ``_unseen``, the harmonic means of the two groups ``haAcc``,
    ``hAcc`` and ``hIoU``, and ``fwIoU`` over all classes. Groups are formed by the
    truth; false positives count wherever they are. The definitions are those of
    ZS3Net, see :mod:`zs3_mmseg.evaluation.scores`.

    ==============  ===================  ==========================  ================
    mode            classes that         pixels that count           keys
                    compete
    ==============  ===================  ==========================  ================
    ``gzsl``        all                  all but ignored             as above
    ``zsl_only``    unseen               those of unseen classes     ``zsl_only/...``
    ``seen_only``   seen                 those of seen classes       ``seen_only/...``
    ==============  ===================  ==========================  ================

    ``gamma_sweep`` shifts the scores of seen classes by each of its numbers, on top
    of the calibrators of the segmentor, and reports the area under the seen-unseen
    curve of mIoU, ``AUSUC``, and of mean accuracy, ``AUSUC_acc``; ``oracle_hIoU`` and
    ``oracle_gamma`` are the best point, chosen on the very images it is tested on.

    ``boundary_ratio`` adds boundary IoU (arXiv 2103.16562), all classes competing:
    ``mBIoU``, ``mBIoU_seen``, ``mBIoU_unseen`` and ``hBIoU``. It compares only what
    lies close to the outlines of the true and of the predicted masks.

    Modes beside ``gzsl`` and the sweep need the best class of each group, from
    ``seg_logits`` (``test_cfg.return_scores=True``) or ``group_best``
    (``test_cfg.return_scores='groups'``, which never holds all scores). Nothing of an
    image is kept but counts.

    Args:
        split: name or dict of the split; by default the one in the data set's
            metainfo, as :class:`~zs3_mmseg.datasets.ZeroShotDataset` writes it. For
            other data sets it is resolved by name against their classes.
        modes: which of the modes above to report.
        gamma_sweep: finite shifts in units of the scores, in any order; None: off.
        boundary_ratio: how far from an outline boundary IoU looks, as a share of the
            image's diagonal (0.02 in the paper); None: off.
        absent: what counts for a class without pixels: ``'nan'`` (also ``'cagnet'``)
            leaves it out of the means, ``'zero'`` (also ``'zs3net'``) counts it as 0.
        ignore_index: label that is not counted; by default that of the data set.
        output_dir: folder for the predicted label maps, ``<image stem>.png`` or, where
            two images have one stem, with their folders; and for ``zero_shot_iou.json``
            with the scores, the classes and the confusion matrix.
        keep_results: always True; mmseg's own ``test.py --out`` sets it.
        report_dir: folder for the same JSON, the tables as CSV, and charts as PNG:
            a bar for each class, the confusion matrix and the seen-unseen curve.
        collect_device: see mmengine's ``BaseMetric``.
        prefix: put before the names of the scores.
        collect_dir: see mmengine's ``BaseMetric``.

    Raises:
        ValueError: if ``keep_results``, ``absent``, ``modes``, ``gamma_sweep`` or
            ``boundary_ratio`` make no sense; later, if the classes of split, data set
            and scores don't agree, scores are missing, or a label or prediction is out
            of range (the message names the image).
    """

    # None would make mmengine warn that there is no prefix.
    default_prefix = ''

    def __init__(
        self,
        split: str | Mapping[str, Any] | ZeroShotSplit | None = None,
        *,
        modes: Sequence[str] = ('gzsl',),
        gamma_sweep: Sequence[float] | None = None,
        boundary_ratio: float | None = None,
        absent: str = 'nan',
        ignore_index: int | None = None,
        output_dir: str | None = None,
        keep_results: bool = True,
        report_dir: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        require_kept(keep_results)
        self.absent = absent_rule(absent)
        self.modes = check_modes(modes)
        self.gammas = None if gamma_sweep is None else check_gammas(gamma_sweep)
        self.boundary_ratio = (
            None if boundary_ratio is None else check_ratio(boundary_ratio)
        )
        self.split = None if split is None else resolve_split(split)
        self.ignore_index = ignore_index
        self.output_dir = output_dir
        self.report_dir = report_dir
        self._resolved: (
            tuple[Mapping[str, Any] | None, ZeroShotSplit, ProtocolCounters] | None
        ) = None

    @property
    def needs_scores(self) -> bool:
        """Whether label maps alone are not enough."""
        return self.gammas is not None or any(m in GROUP_MODES for m in self.modes)

    def resolve(self, metainfo: Mapping[str, Any] | None = None) -> ZeroShotSplit:
        """Return the split in the class order of a data set.

        Args:
            metainfo: metainfo of the data set; ``dataset_meta`` by default.

        Raises:
            ValueError: if there is no split, its classes are not the data set's, or
                it lacks the group that a mode or the sweep is about.
        """
        return self._resolve(metainfo)[0]

    def _resolve(
        self, metainfo: Mapping[str, Any] | None = None
    ) -> tuple[ZeroShotSplit, ProtocolCounters]:
        if metainfo is None:
            metainfo = self.dataset_meta
        if self._resolved is None or self._resolved[0] is not metainfo:
            split = split_of_dataset(metainfo or {}, self.split)
            counters = self._counters(split, self._ignored(metainfo or {}))
            self._resolved = (metainfo, split, counters)
        return self._resolved[1:]

    def _ignored(self, metainfo: Mapping[str, Any]) -> int:
        if self.ignore_index is not None:
            return self.ignore_index
        classes = len(metainfo['classes'])
        return metainfo.get('ignore_index', special_labels(classes).ignore)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch.

        Args:
            data_batch: not used.
            data_samples: model outputs as dicts, with ``pred_sem_seg`` and
                ``gt_sem_seg``, data (1, H, W) each, and perhaps ``seg_logits``
                (K, H, W) or ``group_best``, scores and classes (2, H, W).

        Raises:
            ValueError: naming the image, if something is out of range or missing.
        """
        split, counters = self._resolve()
        for sample in data_samples:
            try:
                require_channels(sample, len(split.classes))
                groups = group_best(sample, split) if counters.needs_groups else None
                maps = ImageMaps(
                    pixel_map(sample, 'pred_sem_seg'),
                    pixel_map(sample, 'gt_sem_seg'),
                    groups,
                )
                counts = counters.count(maps)
            except ValueError as error:
                raise ValueError(f'{image_name(sample)}: {error}') from error
            self._append(counts, counters.size)
            if self.output_dir is not None:
                write_labels(
                    Path(self.output_dir)
                    / f'{output_name(sample, image_name(sample))}.png',
                    maps.prediction.cpu().numpy(),
                    len(split.classes),
                )

    def _append(self, counts: PixelCounts, size: int) -> None:
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
            total = PixelCounts(slice(None), np.zeros(size, np.int64), 1)
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
        _, counters = self._resolve()
        counted = [entry for entry in results if isinstance(entry, PixelCounts)]
        images = sum(entry.images for entry in counted)
        if images != len(results):
            raise ValueError(
                f'ZeroShotIoUMetric counted {images} images, but evaluate() was told '
                f'of {len(results)}; does the sampler repeat images?'
            )
        total = np.zeros(counters.size, dtype=np.int64)
        for entry in counted:
            entry.add_to(total)
        found = counters.results(total, images, self.absent)
        self._report(found)
        return self._scores_of(found)

    def score_names(self) -> tuple[str, ...]:
        """Return the names of the scores, without prefix, in their order."""
        # They do not depend on the classes.
        split = make_split('any', ('seen', 'unseen'), ('unseen',))
        counters = self._counters(split, special_labels(2).ignore)
        nothing = np.zeros(counters.size, np.int64)
        return tuple(self._scores_of(counters.results(nothing, 0, self.absent)))

    def _counters(self, split: ZeroShotSplit, ignore_index: int) -> ProtocolCounters:
        return ProtocolCounters(
            split, ignore_index, self.modes, self.gammas, self.boundary_ratio
        )

    def _scores_of(self, found: ZeroShotResults) -> dict[str, float]:
        """Return what ``evaluate`` does, in percent."""
        scores = found.generalised() if 'gzsl' in self.modes else {}
        for mode, values in found.groups.items():
            scores |= {f'{mode}/{key}': value for key, value in values.items()}
        if found.curve is not None:
            scores |= dict(
                AUSUC=found.curve.ausuc,
                AUSUC_acc=found.curve.ausuc_accuracy,
                oracle_hIoU=found.curve.best.hiou,
            )
        percent = {key: 100 * value for key, value in scores.items()}
        if found.curve is not None:
            percent['oracle_gamma'] = found.curve.best.gamma
        return percent

    def _report(self, found: ZeroShotResults) -> None:
        logger = MMLogger.get_current_instance()
        for text in report_tables(found, self.modes):
            logger.info(text)
        for folder in {self.output_dir, self.report_dir} - {None}:
            path = Path(str(folder)) / JSON_NAME
            write_json(path, found)
            logger.info(f'Scores and confusion matrix are in {path}')
        if self.report_dir is not None:
            write_tables(Path(self.report_dir), found)
            write_charts(Path(self.report_dir), found)
            logger.info(f'Tables and charts are in {self.report_dir}')
