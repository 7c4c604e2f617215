"""From the label values of a data set to the labels that may leave it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from zs3_mmseg.datasets.splits import ZeroShotSplit, find_name
from zs3_mmseg.utils.labels import SpecialLabels, special_labels
from zs3_mmseg.utils.names import did_you_mean

Phase = Literal['train', 'test']
Setting = Literal['inductive', 'transductive', 'supervised', 'layout_oracle']
PHASES: tuple[str, ...] = get_args(Phase)
SETTINGS: tuple[str, ...] = get_args(Setting)

# Size of a table that answers every 8-bit or 16-bit label value.
_NARROW_VALUES, _WIDE_VALUES = 2**8, 2**16


def hides_unseen(phase: str, setting: str) -> bool:
    """Whether pixels of unseen classes are hidden: only in zero-shot training."""
    return phase == 'train' and setting in ('inductive', 'transductive')


@dataclass(frozen=True)
class LabelTable:
    """What becomes of each label value of one data set.

    Attributes:
        targets: the new label of each value, (V,), uint8 or uint16.
        known: whether a value is a class or ignore, (V,), bool.
        hidden: whether a value is an unseen class and hidden, (V,), bool.
        expected: the legal values in words, for messages.
    """

    targets: np.ndarray
    known: np.ndarray
    hidden: np.ndarray
    expected: str

    def check(self, labels: np.ndarray, origin: str) -> None:
        """Raise an error if a label map holds what the table has no answer for.

        Args:
            labels: label map of a data set, (H, W), integers.
            origin: the file that it was read from, for messages.

        Raises:
            ValueError: naming ``origin``, if the map is no (H, W) array of integers
                or a value is neither a class nor ignore.
        """
        if labels.ndim != 2 or labels.dtype.kind not in 'iu':
            raise ValueError(
                f'{origin}: expected a label map (H, W) of integers, got shape '
                f'{labels.shape} of {labels.dtype}; is the mask colour-coded?'
            )
        if labels.dtype == np.uint8 or not labels.size:
            inside = True
        else:
            inside = labels.min() >= 0 and labels.max() < len(self.known)
        if inside and self.known[labels].all():
            return
        wrong = [value for value in np.unique(labels) if not self._knows(value)]
        raise ValueError(
            f'{origin}: label values {_listed(wrong)} are neither a class nor ignore; '
            f'expected {self.expected}. Is the mask colour-coded, or is '
            'reduce_zero_label or the class list of the data set wrong?'
        )

    def _knows(self, value: int) -> bool:
        return 0 <= value < len(self.known) and bool(self.known[value])

    def apply(self, labels: np.ndarray) -> np.ndarray:
        """Return the new labels of a checked map, (H, W), uint8 or uint16."""
        return self.targets[labels]


def _listed(values: Sequence[int], limit: int = 8) -> str:
    shown = ', '.join(str(value) for value in values[:limit])
    return shown if len(values) <= limit else f'{shown}, ... ({len(values)} values)'


def make_table(
    split: ZeroShotSplit,
    inner_classes: Sequence[str] | None,
    *,
    phase: str,
    setting: str,
    ignore_values: Iterable[int],
    origin: str,
) -> LabelTable:
    """Make the table from the label values of a data set to those of a split.

    A class of the data set that the split does not name becomes ignore, in training
    and testing alike: that is how a split without background drops it.

    Args:
        split: classes and who is unseen.
        inner_classes: the name of each label value of the data set; None if it has no
            names, which means that its labels are indices into ``split.classes``.
        phase: 'train' or 'test'.
        setting: see :class:`~zs3_mmseg.datasets.ZeroShotDataset`.
        ignore_values: label values that the data set ignores.
        origin: what the data set is called in messages.

    Raises:
        ValueError: if a class that must be there is missing in the data set, if two of
            its names mean one class, or an ignored value is also a class.
    """
    names = split.classes if inner_classes is None else tuple(inner_classes)
    hides = hides_unseen(phase, setting)
    # A training set may simply lack the unseen classes: nobody drew their masks.
    needed = split.seen if hides else split.classes
    positions = _positions(split, names, needed, origin)
    special = special_labels(len(split.classes))
    ignored = sorted(set(ignore_values))
    for value in ignored:
        if not len(names) <= value < _WIDE_VALUES:
            raise ValueError(
                f'{origin}: ignore_index {value} must lie above the {len(names)} '
                f'labels of its classes and below {_WIDE_VALUES}'
            )
    highest = max([len(names) - 1, *ignored])
    size = _NARROW_VALUES if highest < _NARROW_VALUES else _WIDE_VALUES
    kind = np.uint8 if special.ignore < _NARROW_VALUES else np.uint16
    targets = np.full(size, special.ignore, dtype=kind)
    known = np.zeros(size, dtype=bool)
    hidden = np.zeros(size, dtype=bool)
    known[: len(names)] = True
    known[ignored] = True
    unseen = set(split.unseen_indices)
    for index, position in enumerate(positions):
        if position is None:
            continue
        if hides and index in unseen:
            hidden[position] = True
            targets[position] = _hidden_label(setting, special)
        else:
            targets[position] = index
    expected = f'0 to {len(names) - 1} ({len(names)} classes) or ' + ' or '.join(
        str(value) for value in ignored
    )
    return LabelTable(targets, known, hidden, expected)


def _hidden_label(setting: str, special: SpecialLabels) -> int:
    return special.unlabelled if setting == 'transductive' else special.ignore


def _positions(
    split: ZeroShotSplit, names: Sequence[str], needed: Sequence[str], origin: str
) -> list[int | None]:
    """Find the label value of each class of the split in the data set."""
    positions = [find_name(name, names) for name in split.classes]
    found = dict(zip(split.classes, positions, strict=True))
    missing = [name for name in needed if found[name] is None]
    if missing:
        hint = did_you_mean(missing[0], names)
        raise ValueError(
            f'{origin} has no class {", ".join(repr(name) for name in missing)}, which '
            f'split {split.name!r} needs.{hint} It has {", ".join(names)}'
        )
    owner: dict[int, str] = {}
    for name, position in found.items():
        if position is None:
            continue
        if position in owner:
            raise ValueError(
                f'{origin}: class {names[position]!r} is both {owner[position]!r} and '
                f'{name!r} of split {split.name!r}'
            )
        owner[position] = name
    return positions
