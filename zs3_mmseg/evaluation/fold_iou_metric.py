"""Scores of class-prompted segmentation: one image, one name, one mask."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from prettytable import PrettyTable
from torch import Tensor

import mmcv
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmseg.registry import METRICS, MODELS

from zs3_mmseg.evaluation.counters import count_pixels
from zs3_mmseg.evaluation.report import write_labels
from zs3_mmseg.evaluation.scores import (
    ABSENT_RULES,
    area_scores,
    mean_of_present,
    require_kept,
)
from zs3_mmseg.models.proposers import Proposer
from zs3_mmseg.utils.cache import atomic_write
from zs3_mmseg.utils.labels import special_labels
from zs3_mmseg.utils.names import choose
from zs3_mmseg.utils.output_names import distinct, output_name


class Episode(NamedTuple):
    """The pixels of one image and one name.

    Attributes:
        prompt: index of the named class.
        confusion: pixel counts (2, 2), rows = truth, of (other, named class); a third
            row counts predictions where there is no label.
    """

    prompt: int
    confusion: np.ndarray


class FoldScores(NamedTuple):
    """Scores over all episodes.

    Attributes:
        class_iou: IoU of each class asked for, (C,), within [0, 1] or NaN.
        mean_iou: mean over these classes.
        fb_iou: mean of the IoU of foreground and background.
    """

    class_iou: np.ndarray
    mean_iou: float
    fb_iou: float


def fold_scores(
    episodes: Sequence[Episode], prompted: Sequence[int], absent: str = 'zero'
) -> FoldScores:
    """Return the scores of PASCAL-5i and COCO-20i.

    Intersections and unions are summed up before they are divided: for the mean over
    the episodes of each class, for FB-IoU over all episodes, whatever their class.
    """
    per_class = np.zeros((len(prompted), 3, 2), dtype=np.int64)
    place = {prompt: index for index, prompt in enumerate(prompted)}
    for prompt, confusion in episodes:
        per_class[place[prompt], : len(confusion)] += confusion
    iou = np.array([_iou(counts, absent)[1] for counts in per_class])
    both = _iou(per_class.sum(0), 'zero')
    return FoldScores(iou, mean_of_present(iou), float(both.mean()))


def _iou(counts: np.ndarray, absent: str) -> np.ndarray:
    """Return the IoU (2,) of pixel counts (2, 2) or (3, 2), see :class:`Episode`."""
    labelled = counts[:2]
    truth, predicted = labelled.sum(1), counts.sum(0)
    return area_scores(labelled.diagonal(), truth, predicted, absent)[0]


#: What pixels without a label are: left out; background; or no class, where predicted
#: foreground and background still count in the unions.
VOID_RULES = ('ignore', 'background', 'union')


def pair_confusion(
    prediction: Tensor, truth: Tensor, ignore_index: int, void: str = 'ignore'
) -> np.ndarray:
    """Count the pixels of masks ``(H, W)`` of 0 and 1, see :class:`Episode`.

    Args:
        prediction: the predicted mask.
        truth: the true one, ``ignore_index`` where there is no label.
        ignore_index: the label of such pixels.
        void: one of :data:`VOID_RULES`.

    Returns:
        (2, 2) int64, or (3, 2) if ``void`` is ``'union'``.
    """
    rows = 3 if void == 'union' else 2
    if void != 'ignore':
        label = 0 if void == 'background' else 2
        truth = truth.masked_fill(truth == ignore_index, label)
        ignore_index = -1
    confusion = np.zeros((rows, rows), dtype=np.int64)
    count_pixels(prediction, truth, rows, ignore_index).add_to(confusion)
    return confusion[:, :2]


def oracle_choice(
    prediction: Tensor, masks: Tensor, truth: Tensor, ignore_index: int, void: str
) -> tuple[int, np.ndarray]:
    """Choose what agrees best with the GROUND TRUTH, as SAZS's released test does.

    The prediction ``(H, W)`` stays unless one of the ``masks`` ``(M, H, W)`` has a
    larger foreground IoU with the truth; of equal masks the first is taken.

    Returns:
        -1 or the place of the mask, and its counts, see :func:`pair_confusion`.
    """
    candidates = [prediction, *masks.to(prediction.device, prediction.dtype)]
    counts = [pair_confusion(c, truth, ignore_index, void) for c in candidates]
    best = int(np.argmax([_iou(confusion, 'zero')[1] for confusion in counts]))
    return best - 1, counts[best]


#: What a log says of oracle scores.
ORACLE_NOTE = ' (ORACLE: segments were chosen by the ground truth)'


@METRICS.register_module()
class FoldIoUMetric(BaseMetric):
    """Fold protocol of few-shot and class-prompted segmentation.

    Each sample is an image and the name of one class (``prompt_class`` in its
    metainfo, as :class:`~zs3_mmseg.datasets.ClassPromptDataset` writes it); truth and
    prediction are masks of 0 and 1. Reports, in percent and unrounded, ``mIoU`` (mean
    over the classes asked for) and ``FB_IoU`` (mean of foreground and background over
    all episodes). The name is given and there is nothing to confuse it with, so the
    values cannot be compared with those of :class:`ZeroShotIoUMetric`.

    **Oracle.** With ``oracle=True`` the scores are those of the released test of SAZS:
    of the prediction and the masks of a ``proposer`` whatever has the largest IoU with
    the ground truth is scored. That is an upper bound of what such masks could give,
    and no result of a method; everything it reports is called oracle:
    ``oracle_mIoU`` and ``oracle_FB_IoU``.

    Args:
        absent: a class that no episode asked for counts ``'zero'``, as in the official
            code of BAM and ESDA, or is left out (``'nan'``).
        ignore_index: label that is not counted; by default that of the data set.
        void: what pixels with that label are: ``'ignore'`` leaves them out,
            ``'background'`` and ``'union'`` are the released tests of SAZS on COCO-20i
            and PASCAL-5i, the latter with predictions there counted in the unions.
        oracle: see above. It needs ``proposer``.
        proposer: config of a proposer, or one, such as ``dict(type='EigenSegmenter')``;
            it sees the image file as it is.
        output_dir: folder for the predicted masks, ``<image stem>__<class>.png`` or,
            where two images have one stem, with their folders; and for
            ``fold_iou.json``.
        keep_results: always True; mmseg's own ``test.py --out`` sets it.
        collect_device: see mmengine's ``BaseMetric``.
        prefix: put before the names of the scores.
        collect_dir: see mmengine's ``BaseMetric``.

    Raises:
        ValueError: if ``keep_results`` is False, ``absent`` or ``void`` is unknown, or
            only one of ``oracle`` and ``proposer`` is given; later, if the data set
            asks for no classes, or a mask holds anything but 0, 1 and ignore (naming
            the image).
    """

    # None would make mmengine warn that there is no prefix.
    default_prefix = ''

    def __init__(
        self,
        *,
        absent: str = 'zero',
        ignore_index: int | None = None,
        void: str = 'ignore',
        oracle: bool = False,
        proposer: Mapping[str, Any] | Proposer | None = None,
        output_dir: str | None = None,
        keep_results: bool = True,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        require_kept(keep_results)
        self.absent = choose('absent', absent, ABSENT_RULES)
        self.ignore_index = ignore_index
        self.void = choose('void', void, VOID_RULES)
        if oracle != (proposer is not None):
            raise ValueError(
                'FoldIoUMetric(oracle=True) chooses among the masks of a proposer, and '
                'nothing else reads one: give both or neither'
            )
        self.oracle = oracle
        self.proposer: Any = proposer
        if isinstance(proposer, Mapping):
            self.proposer = MODELS.build(dict(proposer))
        self.output_dir = output_dir

    def prompted(self, metainfo: Mapping[str, Any] | None = None) -> tuple[int, ...]:
        """Return the indices of the classes that a data set asks for.

        Args:
            metainfo: metainfo of the data set; ``dataset_meta`` by default.

        Raises:
            ValueError: if it asks for none.
        """
        meta = (self.dataset_meta if metainfo is None else metainfo) or {}
        if 'prompted' not in meta:
            raise ValueError(
                'FoldIoUMetric needs a data set of images with one class name each: '
                "wrap it in dict(type='ClassPromptDataset', ...), or use "
                'ZeroShotIoUMetric'
            )
        return tuple(meta['prompted'])

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch.

        Args:
            data_batch: not used.
            data_samples: model outputs as dicts, with ``prompt_class``, and
                ``pred_sem_seg`` and ``gt_sem_seg``, data (1, H, W) each.

        Raises:
            ValueError: naming the image, if something is missing or out of range.
        """
        prompted = self.prompted()
        for sample in data_samples:
            name = str(sample.get('img_path') or 'an image')
            try:
                prompt = _prompt(sample, prompted)
                confusion = self._counted(sample)
            except ValueError as error:
                raise ValueError(f'{name}: {error}') from error
            self.results.append(Episode(prompt, confusion))
            if self.output_dir is not None:
                names = (self.dataset_meta or {})['classes']
                asked = distinct([text.replace('/', '_') for text in names])[prompt]
                write_labels(
                    Path(self.output_dir) / f'{output_name(sample, name)}__{asked}.png',
                    _mask(sample, 'pred_sem_seg').cpu().numpy(),
                    2,
                )

    def _counted(self, sample: Mapping[str, Any]) -> np.ndarray:
        prediction, truth = (_mask(sample, k) for k in ('pred_sem_seg', 'gt_sem_seg'))
        if not self.oracle:
            return pair_confusion(prediction, truth, self._ignored(), self.void)
        segments = self._segments(sample)
        chosen = oracle_choice(prediction, segments, truth, self._ignored(), self.void)
        return chosen[1]

    def _segments(self, sample: Mapping[str, Any]) -> Tensor:
        """Return the proposer's masks ``(M, H, W)`` of the image file."""
        path = sample.get('img_path')
        if not path:
            raise ValueError('the sample has no img_path, which oracle=True reads')
        picture = mmcv.imread(path, channel_order='rgb')
        meta = {'ori_shape': picture.shape[:2], **sample}
        return self.proposer(torch.from_numpy(picture).permute(2, 0, 1), meta)

    def _ignored(self) -> int:
        if self.ignore_index is not None:
            return self.ignore_index
        meta = self.dataset_meta or {}
        return meta.get('ignore_index', special_labels(2).ignore)

    def _class_name(self, prompt: int) -> str:
        return str((self.dataset_meta or {})['classes'][prompt])

    def compute_metrics(self, results: list[Episode]) -> dict[str, float]:
        """Sum up, report and return the scores in percent.

        Args:
            results: what the ranks collected, one entry for each episode.
        """
        # Entries of several ranks come back as plain tuples or as they were.
        episodes = [Episode(*entry) for entry in results]
        prompted = self.prompted()
        scores = fold_scores(episodes, prompted, self.absent)
        self._report(scores, episodes, prompted)
        values = {'mIoU': 100 * scores.mean_iou, 'FB_IoU': 100 * scores.fb_iou}
        return {f'{self._mark}{name}': value for name, value in values.items()}

    @property
    def _mark(self) -> str:
        return 'oracle_' if self.oracle else ''

    def score_names(self) -> tuple[str, ...]:
        """Return the names of the scores, without prefix, in their order."""
        return tuple(f'{self._mark}{name}' for name in ('mIoU', 'FB_IoU'))

    def _report(
        self, scores: FoldScores, episodes: Sequence[Episode], prompted: Sequence[int]
    ) -> None:
        logger = MMLogger.get_current_instance()
        asked = np.array([episode.prompt for episode in episodes])
        rows = [
            dict(
                name=self._class_name(prompt),
                IoU=None if np.isnan(iou) else 100 * float(iou),
                episodes=int((asked == prompt).sum()),
            )
            for prompt, iou in zip(prompted, scores.class_iou, strict=True)
        ]
        column = f'{self._mark}IoU'
        table = PrettyTable(['Class', column, 'episodes'])
        table.align.update({'Class': 'l', column: 'r', 'episodes': 'r'})
        for row in rows:
            iou = row['IoU']
            shown = 'n/a' if iou is None else f'{iou:.2f}'
            table.add_row([row['name'], shown, row['episodes']])
        meta = self.dataset_meta or {}
        chosen = meta.get('selection', '')
        logger.info(
            f'{len(episodes)} episodes ({meta.get("sampling", "given")})'
            f'{f", selection={chosen!r}" if chosen else ""}, each class asked for by '
            f'name; {self._mark}mIoU {100 * scores.mean_iou:.2f}, '
            f'{self._mark}FB-IoU {100 * scores.fb_iou:.2f}'
            f'{ORACLE_NOTE if self.oracle else ""}\n{table}'
        )
        if self.output_dir is None:
            return
        content = dict(
            sampling=meta.get('sampling', ''),
            selection=chosen,
            absent=self.absent,
            episodes=len(episodes),
            **{
                f'{self._mark}mIoU': 100 * scores.mean_iou,
                f'{self._mark}FB_IoU': 100 * scores.fb_iou,
            },
            classes=rows,
        )
        text = json.dumps(content, indent=1)
        path = Path(self.output_dir) / 'fold_iou.json'
        atomic_write(path, lambda stream: stream.write(text.encode()))
        logger.info(f'Scores of the fold are in {path}')


def _prompt(sample: Mapping[str, Any], prompted: Sequence[int]) -> int:
    if 'prompt_class' not in sample:
        raise ValueError('the sample has no prompt_class')
    prompt = int(sample['prompt_class'])
    if prompt not in prompted:
        raise ValueError(f'class {prompt} is none of those asked for: {prompted}')
    return prompt


def _mask(sample: Mapping[str, Any], key: str) -> Tensor:
    """Return the (H, W) mask of a sample."""
    if key not in sample:
        hint = ' Does the test pipeline load annotations?' if key[:2] == 'gt' else ''
        raise ValueError(f'the sample has no {key}.{hint}')
    return sample[key]['data'].squeeze(0)
