"""Which labels of the training data may be read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mmengine.logging import MMLogger

from .roles import ClassRoles

_FITTING = {'strict': 'inductive', 'layout_oracle': 'layout_oracle'}


def require_fitting_data(setting: str, meta: Mapping[str, Any]) -> None:
    """Compare the hook's setting with what the training data set sends.

    Args:
        setting: ``'strict'`` or ``'layout_oracle'``.
        meta: metainfo of the training data set.

    Raises:
        ValueError: if the data set is a ``ZeroShotDataset`` of another setting, or one
            with pseudo-labels.
    """
    found, wanted = meta.get('setting'), _FITTING[setting]
    if found not in (None, wanted):
        raise ValueError(
            f'GenerativeRetrainingHook.setting is {setting!r}, which goes with '
            f'train_dataloader.dataset.setting={wanted!r}, not with {found!r}'
        )
    if meta.get('pseudo_labels'):
        raise ValueError(
            'train_dataloader.dataset.pseudo_label_dir labels pixels of unseen '
            'classes, whose features GenerativeRetrainingHook generates: train on '
            'pseudo-labels in a run without the hook'
        )
    logger = MMLogger.get_current_instance()
    if setting == 'layout_oracle':
        logger.log(
            logging.WARNING,
            "GenerativeRetrainingHook: setting='layout_oracle': the classifier learns "
            'from the TRUE layout of unseen classes. This is no zero-shot result in '
            'the strict sense.',
        )
    elif found is None:
        logger.info(
            'GenerativeRetrainingHook: the training data set hides nothing, so labels '
            'of unseen classes are ignored here, before the model sees them.'
        )


def hide_unseen(data_batch: Mapping[str, Any], roles: ClassRoles) -> None:
    """Make unseen classes ignored pixels in a batch of a data loader, in place."""
    for sample in data_batch['data_samples']:
        labels = sample.gt_sem_seg.data
        hidden = roles.is_unseen(labels)
        if hidden.any():
            sample.gt_sem_seg.data = labels.masked_fill(hidden, roles.ignore_index)
