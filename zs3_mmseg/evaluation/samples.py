"""What metrics read out of the samples that a model returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zs3_mmseg.datasets.splits import ZeroShotSplit
from zs3_mmseg.evaluation.counters import GroupBest
from zs3_mmseg.models.segmentors.inference import GroupArgmax


def group_best(sample: Mapping[str, Any], split: ZeroShotSplit) -> GroupBest:
    """Return the best seen and unseen class of each pixel of a sample.

    Raises:
        ValueError: if the sample has neither scores nor the best classes.
    """
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
    """Check that the scores of a sample, if it has any, are those of all classes.

    Raises:
        ValueError: if there are more or fewer.
    """
    logits = (sample.get('seg_logits') or {}).get('data')
    if logits is not None and len(logits) != classes:
        raise ValueError(
            f'the model gives scores of {len(logits)} classes, the data set has '
            f'{classes}; are model.split and dataset.split the same?'
        )


def pixel_map(sample: Mapping[str, Any], key: str) -> Tensor:
    """Return the (H, W) map of a sample.

    Raises:
        ValueError: if it is not there.
    """
    if key not in sample:
        hint = ' Does the test pipeline load annotations?' if key[:2] == 'gt' else ''
        raise ValueError(f'the sample has no {key}.{hint}')
    return sample[key]['data'].squeeze(0)


def image_name(sample: Mapping[str, Any]) -> str:
    """Return what a sample is called in messages: the path of its image."""
    return str(sample.get('img_path') or sample.get('seg_map_path') or 'an image')
