"""Checks of labels: values that mean something, in the order of the names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from zs3_mmseg.datasets.splits import canonical, get_split, split_names

from .parts import Finding, LabelMeaning, Part, about_files

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
    """Find labels that are no class, and classes that look shifted by one."""
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


NAME_FILES = ('classes.txt', 'labels.txt', 'class_names.txt', 'label_names.txt')


def check_order(
    part: Part,
    meaning: LabelMeaning,
    present: Collection[int],
    palettes: Sequence[np.ndarray],
) -> Iterator[Finding]:
    """Compare the order of the names with lists of names and colours found.

    Args:
        palettes: the palettes of the masks that have one, (256, 3) each.
    """
    found = _by_name_file(part, meaning)
    if found is None:
        found = _by_palette(part, meaning, present, palettes)
    if found is None:
        found = _by_known_orders(part, meaning)
    if found is not None:
        yield found


def _by_name_file(part: Part, meaning: LabelMeaning) -> Finding | None:
    for path in _name_files(part):
        listed = _read_names(path)
        ours = [canonical(name) for name in meaning.classes]
        theirs = [canonical(name) for name in listed]
        if theirs[: meaning.first + 1] == ['background', *ours[:1]]:
            theirs = theirs[meaning.first :]
        if theirs == ours:
            return None
        if theirs == ['background', *ours]:
            return Finding(
                'background_kept',
                part.key,
                f'{path} begins with background, which the classes do not name',
                f'{part.key}.reduce_zero_label=True, or name it in '
                f'{part.key}.metainfo.classes',
                (str(path),),
            )
        if sorted(theirs) == sorted(ours):
            return _swapped(part, meaning, theirs, f'{path} (line {{line}})', str(path))
    return None


def _swapped(
    part: Part, meaning: LabelMeaning, theirs: Sequence[str], origin: str, file: str
) -> Finding:
    ours = [canonical(name) for name in meaning.classes]
    place = next(i for i, name in enumerate(ours) if name != theirs[i])
    origin = origin.format(line=place + 1)
    return Finding(
        'swapped_class_order',
        part.key,
        f'label {place + meaning.first} is {meaning.classes[place]!r} in the config '
        f'and {theirs[place]!r} in {origin}',
        f'{part.key}.metainfo.classes: bring the names into the order of the labels',
        (file,),
        sum(a != b for a, b in zip(ours, theirs, strict=True)),
    )


def _name_files(part: Part) -> Iterator[Path]:
    """Yield lists of names in the data set's folders, the closest to the masks first.

    A list that the data set itself was made from says nothing new, but harms nothing.
    """
    prefix = getattr(part.dataset, 'data_prefix', None) or {}
    masks, root = prefix.get('seg_map_path'), getattr(part.dataset, 'data_root', None)
    folders = [Path(masks), Path(masks).parent] if masks else []
    folders += [Path(root)] if root else []
    for folder in dict.fromkeys(folders):
        for name in NAME_FILES:
            if (folder / name).is_file():
                yield folder / name


def _read_names(path: Path) -> list[str]:
    """Read one name for each line; ``3: dog`` and ``3 dog`` are dog."""
    lines = [line.strip() for line in path.read_text(encoding='utf-8').splitlines()]
    names = [line for line in lines if line and not line.startswith('#')]
    return [re.sub(r'^\d+\s*[:,;\s]\s*', '', name) for name in names]


def _by_palette(
    part: Part,
    meaning: LabelMeaning,
    present: Collection[int],
    palettes: Sequence[np.ndarray],
) -> Finding | None:
    """Compare colours stored in the masks with those that the data set gives names."""
    colours = [tuple(c) for c in part.dataset.metainfo.get('palette') or ()]
    values = [v for v in present if meaning.name(v) is not None]
    if len(colours) != len(meaning.classes) or len(set(colours)) < len(colours):
        return None
    for palette in palettes:
        stored = {v: tuple(int(c) for c in palette[v]) for v in values}
        where = {v: colours.index(c) for v, c in stored.items() if c in colours}
        wrong = {v: i for v, i in where.items() if i != v - meaning.first}
        # A few chance hits prove nothing: all classes must have a colour of the list.
        if not wrong or len(where) < len(values) or len(values) < 2:
            continue
        value, index = next(iter(wrong.items()))
        return Finding(
            'swapped_class_order',
            part.key,
            f'label {value} is {meaning.name(value)!r} in the config, but the masks '
            f'draw it in the colour {stored[value]} of {meaning.classes[index]!r}',
            f'{part.key}.metainfo.classes (or palette): bring names, colours and '
            'labels into one order',
            count=len(wrong),
        )
    return None


def _by_known_orders(part: Part, meaning: LabelMeaning) -> Finding | None:
    """Compare names typed into a config with published lists of the same names."""
    if type(part.dataset).METAINFO.get('classes'):
        return None
    ours = [canonical(name) for name in meaning.classes]
    for split in map(get_split, split_names()):
        theirs = [canonical(name) for name in split.classes]
        if theirs == ours:
            return None
    for split in map(get_split, split_names()):
        theirs = [canonical(name) for name in split.classes]
        if len(ours) > 2 and sorted(theirs) == sorted(ours):
            found = _swapped(part, meaning, theirs, f'split {split.name!r}', '')
            # The masks may well be in this other order.
            return Finding(**{**vars(found), 'files': (), 'fault': False})
    return None
