"""Which split a metric counts by, in the class order of the data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zs3_mmseg.datasets.splits import ZeroShotSplit, find_name, make_split


def split_of_dataset(
    metainfo: Mapping[str, Any], given: ZeroShotSplit | None
) -> ZeroShotSplit:
    """Return the split of a data set, or bring a given one into its class order.

    Args:
        metainfo: of the data set; with ``seen`` and ``unseen`` if it has a split.
        given: the split that the metric was told, if any.

    Raises:
        ValueError: if there is no split, or the classes of the two don't agree.
    """
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
    return _reordered(given, classes)


def _reordered(split: ZeroShotSplit, classes: tuple[str, ...]) -> ZeroShotSplit:
    """Bring a split into the class order of a data set that knows of none."""
    positions = {name: find_name(name, classes) for name in split.classes}
    missing = [name for name, position in positions.items() if position is None]
    surplus = [
        name for index, name in enumerate(classes) if index not in positions.values()
    ]
    if missing or surplus:
        raise ValueError(
            f'ZeroShotIoUMetric: the data set and split {split.name!r} have '
            f'different classes. Only in the split: {missing or "none"}; only in '
            f'the data set: {surplus or "none"}'
        )
    unseen = [classes[positions[name]] for name in split.unseen]  # type: ignore[index]
    return make_split(split.name, classes, unseen, split.source)
