"""Are the labels that a data set really sends those that it may send?

Like those of :mod:`zs3_mmseg.engine.protocol`, the functions that check something raise
:class:`~zs3_mmseg.engine.protocol.ProtocolError` or return.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from zs3_mmseg.engine.protocol import ProtocolError, ignore_index_of


@dataclass
class LabelCounts:
    """What some samples of a data set really hold.

    Attributes:
        pixels: how many pixels have each label.
        samples: how many samples were looked at.
        maps: how many label maps they held.
    """

    pixels: Counter[int] = field(default_factory=Counter)
    samples: int = 0
    maps: int = 0

    def add(self, sample: Any) -> None:
        """Count the labels of one sample as a pipeline returns it."""
        self.samples += 1
        for label_map in _label_maps(sample):
            self.maps += 1
            values, counts = label_map.unique(return_counts=True)
            self.pixels.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def share(self, label: int) -> float:
        """Return the share of pixels with a label, in 0..1."""
        return self.pixels[label] / max(self.pixels.total(), 1)


def _label_maps(sample: Any) -> Iterator[Any]:
    packed = sample.get('data_samples') if isinstance(sample, Mapping) else None
    # Test-time augmentation packs a list of views.
    for view in packed if isinstance(packed, list) else [packed]:
        if view is not None and 'gt_sem_seg' in view:
            yield view.gt_sem_seg.data


def allowed_in_training(meta: Mapping[str, Any]) -> set[int]:
    """Return the labels that training data of a setting may hold."""
    if 'prompted' in meta:
        return _mask_labels(meta)
    allowed = {*meta['seen'], meta['ignore_index']}
    if meta['setting'] in ('supervised', 'layout_oracle') or meta.get('pseudo_labels'):
        allowed |= {*meta['unseen']}
    if meta['setting'] == 'transductive':
        allowed.add(meta['unlabelled_index'])
    return allowed


def allowed_in_testing(meta: Mapping[str, Any]) -> set[int]:
    """Return the labels that validation and test data may hold."""
    if 'prompted' in meta:
        return _mask_labels(meta)
    return {*meta['seen'], *meta['unseen'], meta['ignore_index']}


def _mask_labels(meta: Mapping[str, Any]) -> set[int]:
    """Return the labels of masks of one named class."""
    return {0, 1, meta['ignore_index']}


def require_legal_labels(
    counts: LabelCounts, allowed: Iterable[int], meta: Mapping[str, Any], key: str
) -> None:
    """No label that is really there may be outside the legal ones."""
    for label in sorted(set(counts.pixels) - set(allowed)):
        classes = meta['classes']
        if label in meta.get('unseen', ()) and 'prompted' not in meta:
            raise ProtocolError(
                f'{key}.dataset: label {label} of the unseen class {classes[label]!r} '
                'reaches training; is a transform of the pipeline loading labels again?'
            )
        raise ProtocolError(
            f'{key}.dataset: label {label} is none of the {len(classes)} classes; is a '
            'transform of the pipeline padding with another value than '
            f'{ignore_index_of(meta)}?'
        )


def require_some_labels(counts: LabelCounts, meta: Mapping[str, Any], key: str) -> None:
    """There must be label maps, and pixels in them that are not ignored."""
    if counts.samples and not counts.maps:
        raise ProtocolError(
            f'{key}.dataset: {counts.samples} samples hold no label map; add '
            "dict(type='LoadAnnotations') to its pipeline"
        )
    if counts.maps and counts.share(ignore_index_of(meta)) == 1:
        raise ProtocolError(
            f'{key}.dataset: every pixel of {counts.samples} samples is ignored; do '
            'its classes, reduce_zero_label and split fit the masks? '
            'Are the masks of this folder those of these images?'
        )
