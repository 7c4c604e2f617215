"""What the label values of all looked-at masks say together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from zs3_mmseg.apis.data_checks.finding import Finding, about_files
from zs3_mmseg.apis.data_checks.parts import LabelMeaning
from zs3_mmseg.datasets.splits import canonical

# Of a label 0 that covers more than this share of the pixels it is said that it is
# background; below, that it is void.
_BACKGROUND_SHARE = 0.05
# Up to this share of empty masks is normal: MS COCO has pictures without any class.
_EMPTY_SHARE = 0.01


@dataclass
class ValueCounts:
    """Which values occur in the masks of one data set.

    Attributes:
        pixels: how many pixels have each value.
        masks: how many masks hold each value.
        examples: a mask with each value.
        looked_at: how many masks were read.
        listed: how many the data set has.
        empty: masks without any class but background.
    """

    pixels: Counter[int] = field(default_factory=Counter)
    masks: Counter[int] = field(default_factory=Counter)
    examples: dict[int, str] = field(default_factory=dict)
    looked_at: int = 0
    listed: int = 0
    empty: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every mask was read."""
        return self.looked_at == self.listed

    def add(self, path: str, labels: np.ndarray, meaning: LabelMeaning | None) -> None:
        """Count the values of one mask."""
        values, counts = np.unique(labels, return_counts=True)
        found = dict(zip(values.tolist(), counts.tolist(), strict=True))
        self.pixels.update(found)
        self.masks.update(found.keys())
        for value in found:
            self.examples.setdefault(value, path)
        self.looked_at += 1
        if meaning is not None and all(_is_nothing(meaning, v) for v in found):
            self.empty.append(path)


def _is_nothing(meaning: LabelMeaning, value: int) -> bool:
    name = meaning.name(value)
    if name is None:
        return value in meaning.ignored
    # A data set of one class and background may well have masks without the class.
    return canonical(name) == 'background' and len(meaning.classes) > 2


def check_values(
    key: str, counts: ValueCounts, meaning: LabelMeaning
) -> Iterator[Finding]:
    """Find labels that are no class, and classes that look shifted by one.

    Args:
        key: the data set's key in the config.
        counts: what its masks hold, before anything is mapped.
        meaning: what the values should mean.
    """
    wrong = {value for value in counts.pixels if not meaning.is_legal(value)}
    if not meaning.reduces and meaning.end in wrong:
        wrong.remove(meaning.end)
        yield _one_too_high(key, counts, meaning)
    if wrong:
        yield _out_of_range(key, counts, meaning, sorted(wrong))
    if meaning.reduces:
        yield from _reduced_before(key, counts, meaning)
    yield from _empty(key, counts)
    yield from _absent(key, counts, meaning)


def _one_too_high(key: str, counts: ValueCounts, meaning: LabelMeaning) -> Finding:
    share = counts.pixels[0] / max(counts.pixels.total(), 1)
    top = (
        f'label {meaning.end} occurs, one more than that of the last class '
        f'{meaning.classes[-1]!r} ({meaning.end - 1})'
    )
    if share > _BACKGROUND_SHARE:
        kind = 'background_kept'
        message = (
            f'{top}, and label 0, which should be {meaning.classes[0]!r}, covers '
            f'{share:.0%} of the pixels: 0 is background, which the classes do not '
            'name, and every class is one too high'
        )
    else:
        kind = 'shifted_labels'
        message = f'{top}: labels begin at 1 on disk, so every class is one too high'
    return Finding(
        kind,
        key,
        message,
        f'{key}.reduce_zero_label=True drops label 0; or name it: put '
        f"'background' first in {key}.metainfo.classes",
        (counts.examples[meaning.end],),
        counts.masks[meaning.end],
    )


def _out_of_range(
    key: str, counts: ValueCounts, meaning: LabelMeaning, wrong: list[int]
) -> Finding:
    listed = ', '.join(str(value) for value in wrong[:8])
    listed += f', ... ({len(wrong)} values)' if len(wrong) > 8 else ''
    files = list(dict.fromkeys(counts.examples[value] for value in wrong))
    hint = (
        ' So many values are typical of colours made grey, or of scores.'
        if len(wrong) > len(meaning.classes)
        else ''
    )
    ignored = ' or '.join(str(v) for v in sorted(meaning.ignored))
    return about_files(
        'label_out_of_range',
        key,
        f'label values {listed} are neither one of the {len(meaning.classes)} classes '
        f'({meaning.first} to {meaning.end - 1}) nor ignored ({ignored}).{hint}',
        f'{key}.metainfo.classes if classes are missing, {key}.ignore_index if the '
        'value means void, else the masks',
        files,
    )


def _reduced_before(
    key: str, counts: ValueCounts, meaning: LabelMeaning
) -> Iterator[Finding]:
    """With ``reduce_zero_label``: does label 0 look like a class?

    The last class may be missing by chance, the less likely the more of the others
    occur.
    """
    last = meaning.end - 1
    if not counts.pixels[0] or counts.pixels[last]:
        return
    has_void = any(counts.pixels[v] for v in meaning.ignored - {0})
    others = all(counts.pixels[v] for v in range(meaning.first, last))
    yield Finding(
        'reduced_twice',
        key,
        f'reduce_zero_label=True drops label 0, but label {last} '
        f'({meaning.classes[-1]!r}) never occurs'
        + (', and void has a value of its own already' if has_void else '')
        + f': labels of {counts.looked_at} masks look as if they began at 0, so that '
        'the first class is lost and all others are one too low',
        f'{key}.reduce_zero_label=False, unless label 0 really is void',
        (counts.examples[0],),
        counts.masks[0],
        fault=others and (has_void or counts.complete),
    )


def _empty(key: str, counts: ValueCounts) -> Iterator[Finding]:
    if counts.empty:
        yield about_files(
            'empty_mask',
            key,
            f'{{n}} of {counts.looked_at} masks hold no class',
            'draw these masks, or take their images out of the list',
            counts.empty,
            fault=len(counts.empty) > _EMPTY_SHARE * counts.looked_at,
        )


def _absent(key: str, counts: ValueCounts, meaning: LabelMeaning) -> Iterator[Finding]:
    values = range(meaning.first, meaning.end)
    absent = [value for value in values if not counts.pixels[value]]
    if not absent or not counts.looked_at:
        return
    shifted = absent[0] == meaning.first == 0 and len(absent) <= len(values) / 3
    if not shifted and not counts.complete:
        return  # a sample proves nothing about rare classes
    names = [meaning.classes[value - meaning.first] for value in absent]
    listed = ', '.join(names[:8]) + (', ...' if len(names) > 8 else '')
    yield Finding(
        'absent_class',
        key,
        f'{len(absent)} of {len(values)} classes never occur in {counts.looked_at} '
        f'masks: {listed}'
        + ('; are labels shifted by one, so that none is 0?' if shifted else ''),
        f'{key}.reduce_zero_label or {key}.metainfo.classes, unless that is right',
        count=len(absent),
        fault=False,
    )
