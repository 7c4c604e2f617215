"""Scores of generalised zero-shot segmentation, from one confusion matrix.

Definitions follow ZS3Net (NeurIPS 2019): every pixel counts, all classes compete, and
groups are formed by the *truth*; the harmonic mean is taken of the group means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from zs3_mmseg.utils.names import choose

Absent = Literal['nan', 'zero']
ABSENT_RULES: tuple[str, ...] = get_args(Absent)
#: Rules by the name of the code base that counts so.
ABSENT_CONVENTIONS: dict[str, Absent] = {
    'cagnet': 'nan',  # nanmean over the classes of a group
    'zs3net': 'zero',  # 0/0 becomes 0 and stays in the mean
}
_HARMONIC = {'haAcc': 'aAcc', 'hAcc': 'mAcc', 'hIoU': 'mIoU', 'hfwIoU': 'fwIoU'}


def absent_rule(name: str) -> str:
    """Return the rule for absent classes that a name stands for."""
    choose('absent', name, (*ABSENT_RULES, *ABSENT_CONVENTIONS))
    return ABSENT_CONVENTIONS.get(name, name)


def require_kept(keep_results: bool) -> None:
    """Refuse to delete predictions again, which some metrics of mmseg can do."""
    if not keep_results:
        raise ValueError(
            'keep_results=False would delete what output_dir is for: leave both out'
        )


def harmonic_mean(first: float, second: float) -> float:
    """Return 2ab / (a + b), 0 if both are 0, NaN if one is NaN."""
    total = first + second
    return 0.0 if total == 0 else 2 * first * second / total


def _ratio(part: np.ndarray, whole: np.ndarray, absent: str) -> np.ndarray:
    """Divide; 0/0 is NaN (left out of means) or 0 (stays in them)."""
    blank = np.nan if absent == 'nan' else 0.0
    return np.divide(part, whole, out=np.full(len(whole), blank), where=whole > 0)


def class_scores(
    confusion: np.ndarray, absent: str = 'nan'
) -> tuple[np.ndarray, np.ndarray]:
    """Return IoU and accuracy of each class.

    IoU counts false positives over the pixels of all classes. With ``'nan'`` a class
    that is neither there nor predicted has no IoU, and a class that is not there has
    no accuracy; one that is predicted but not there has IoU 0 either way.

    Args:
        confusion: pixel counts, rows = truth, columns = prediction, (K, K).

    Returns:
        IoU and accuracy, (K,) each, within [0, 1] or NaN.
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    return area_scores(confusion.diagonal(), confusion.sum(1), confusion.sum(0), absent)


def area_scores(
    hits: np.ndarray, truth: np.ndarray, predicted: np.ndarray, absent: str = 'nan'
) -> tuple[np.ndarray, np.ndarray]:
    """Return what :func:`class_scores` does, from the sums it needs.

    Args:
        hits: pixels of each class predicted as it, (K,).
        truth: pixels of each class, (K,).
        predicted: pixels predicted as each class, (K,).
    """
    hits = np.asarray(hits, dtype=np.float64)
    union = truth + predicted - hits
    return _ratio(hits, union, absent), _ratio(hits, truth, absent)


def gzsl_scores(
    confusion: np.ndarray,
    seen: Sequence[int],
    unseen: Sequence[int],
    absent: str = 'nan',
) -> dict[str, float]:
    """Return the scores of all, seen and unseen classes, and harmonic means.

    Args:
        confusion: pixel counts, rows = truth, columns = prediction, (K, K).

    Returns:
        Values within [0, 1] or NaN: ``aAcc`` (pixel accuracy), ``mAcc`` and ``mIoU``
        (means over classes), ``fwIoU`` (sum of IoU times the class's share of all
        pixels, so that the groups add up to the whole), each also ``_seen`` and
        ``_unseen``; ``haAcc``, ``hAcc``, ``hIoU`` and ``hfwIoU``.
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    iou, accuracy = class_scores(confusion, absent)
    hits, truth = confusion.diagonal(), confusion.sum(1)
    share = _ratio(truth, np.full(len(truth), truth.sum()), 'zero')
    groups = {
        '': np.arange(len(confusion)),
        '_seen': np.array(seen, dtype=np.int64),
        '_unseen': np.array(unseen, dtype=np.int64),
    }
    scores: dict[str, float] = {}
    for suffix, members in groups.items():
        if not len(members):  # there is nothing to score, whatever absent classes count
            scores |= {f'{key}{suffix}': np.nan for key in _HARMONIC.values()}
            continue
        pixels = _ratio(hits[members].sum()[None], truth[members].sum()[None], absent)
        scores[f'aAcc{suffix}'] = float(pixels[0])
        scores[f'mAcc{suffix}'] = mean_of_present(accuracy[members])
        scores[f'mIoU{suffix}'] = mean_of_present(iou[members])
        scores[f'fwIoU{suffix}'] = float(np.nansum(share[members] * iou[members]))
    for name, key in _HARMONIC.items():
        scores[name] = harmonic_mean(scores[f'{key}_seen'], scores[f'{key}_unseen'])
    return scores


def mean_of_present(values: np.ndarray) -> float:
    """Return the mean over the classes that have a value, NaN if none has."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float('nan')


def group_scores(
    confusion: np.ndarray, members: Sequence[int], absent: str = 'nan'
) -> dict[str, float]:
    """Return the scores of a group whose classes compete among themselves only.

    Only pixels whose truth is in the group count: "vanilla" zero-shot scores if the
    group is the unseen classes.

    Args:
        confusion: pixel counts of such predictions, rows = truth, (K, K).
    """
    inside = np.asarray(confusion)[np.ix_(members, members)]
    scores = gzsl_scores(inside, range(len(members)), (), absent)
    return {key: scores[key] for key in ('aAcc', 'mAcc', 'mIoU', 'fwIoU')}
