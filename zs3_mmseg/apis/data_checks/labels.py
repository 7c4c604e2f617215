"""Checks of labels: values that mean something, in the order of the names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from zs3_mmseg.datasets.splits import (
    ZeroShotSplit,
    canonical,
    find_name,
    get_split,
    split_names,
)
from zs3_mmseg.datasets.splits.name_files import read_names
from zs3_mmseg.utils.cache import content_hash
from zs3_mmseg.utils.labels import NARROW

from .parts import Finding, LabelMeaning, Part, about_files

# Of a label 0 that covers more than this share of the pixels it is said that it is
# background; below, that it is void.
_BACKGROUND_SHARE = 0.05
# A label that covers less than this, and lies on outlines so many times as much as
# classes do, looks like void.
_VOID_SHARE, _VOID_THINNESS = 0.25, 1.5
# Labels thrown at random reach 1/3, drawn ones 0.02; smoothed ones exceed 0.4.
_SMEARED = 0.38
# Of so few soft pixels nothing is concluded, nor of so few masks that are all alike.
_FEW_PIXELS, _FEW_MASKS = 50, 3
#: Names that stand for what is no class.
BACKGROUND, VOID = 'background', ('void', 'ignore', 'unlabelled', 'unlabeled')
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
        outlines: how many pixels of each value touch another value.
        steps: how often neighbours are two values or more apart.
        soft: how often a pixel lies between its neighbours on both sides.
        alike: how many masks, if of several values, are the same to the last pixel.
    """

    pixels: Counter[int] = field(default_factory=Counter)
    masks: Counter[int] = field(default_factory=Counter)
    examples: dict[int, str] = field(default_factory=dict)
    looked_at: int = 0
    listed: int = 0
    empty: list[str] = field(default_factory=list)
    outlines: Counter[int] = field(default_factory=Counter)
    steps: int = 0
    soft: int = 0
    alike: Counter[str] = field(default_factory=Counter)

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
        if len(found) > 1:
            self.alike[content_hash(str(labels.shape), labels.tobytes())] += 1
            self._add_outlines(labels, meaning)
        if meaning is not None and all(_is_nothing(meaning, v) for v in found):
            self.empty.append(path)

    def _add_outlines(self, labels: np.ndarray, meaning: LabelMeaning | None) -> None:
        across = labels[:, 1:] != labels[:, :-1]
        down = labels[1:] != labels[:-1]
        outline = np.zeros(labels.shape, dtype=bool)
        outline[:, 1:] |= across
        outline[:, :-1] |= across
        outline[1:] |= down
        outline[:-1] |= down
        values, counts = np.unique(labels[outline], return_counts=True)
        self.outlines.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        first, end = (meaning.first, meaning.end) if meaning else (0, NARROW.unlabelled)
        for wide in (labels.astype(np.int64), labels.T.astype(np.int64)):
            is_class = (wide >= first) & (wide < end)
            known = is_class[:, 1:] & is_class[:, :-1]
            change = np.diff(wide, axis=1) * known
            self.steps += int((abs(change) > 1).sum())
            self.soft += int((change[:, :-1] * change[:, 1:] > 0).sum())

    def share(self, value: int) -> float:
        """Return the share of a value in all pixels, in 0..1."""
        return self.pixels[value] / max(self.pixels.total(), 1)

    def thinness(self, value: int) -> float:
        """Return which share of the pixels of a value touch another value."""
        return self.outlines[value] / max(self.pixels[value], 1)


def _is_nothing(meaning: LabelMeaning, value: int) -> bool:
    name = meaning.name(value)
    if name is None:
        return value in meaning.ignored
    # A data set of one class and background may well have masks without the class.
    return canonical(name) == 'background' and len(meaning.classes) > 2


def check_values(
    part: Part, counts: ValueCounts, meaning: LabelMeaning
) -> Iterator[Finding]:
    """Find labels that are no class, and legal ones that hardly can be meant."""
    key = part.key
    wrong = {value for value in counts.pixels if not meaning.is_legal(value)}
    if has_readings(counts, meaning):
        wrong.remove(meaning.end)
        yield _one_too_many(part, counts, meaning)
    if wrong:
        yield _out_of_range(part, counts, meaning, sorted(wrong))
    if meaning.reduces:
        yield from _reduced_before(key, counts, meaning)
    yield from _empty(key, counts)
    single = _one_label(part, counts, meaning)
    if single is None:
        yield from _absent(part, counts, meaning)
    else:
        yield single
    yield from _odd_masks(part, counts)


def has_readings(counts: ValueCounts, meaning: LabelMeaning) -> bool:
    """Whether the label after the last class occurs, which may mean two things."""
    end = meaning.end
    return bool(counts.pixels[end]) and not (meaning.reduces or meaning.is_legal(end))


def _one_too_many(part: Part, counts: ValueCounts, meaning: LabelMeaning) -> Finding:
    """Weigh what a label after the last class may mean; nobody can be sure."""
    end, zero, key = meaning.end, counts.share(0), part.key
    present = [value for value in range(end) if counts.pixels[value]]
    usual = float(np.median([counts.thinness(v) for v in present])) if present else 1.0
    thin = counts.thinness(end)
    end_void, zero_void = (
        counts.share(v) < _VOID_SHARE and counts.thinness(v) > _VOID_THINNESS * usual
        for v in (end, 0)
    )
    own_void = sorted(v for v in meaning.ignored if counts.pixels[v])
    named = canonical(meaning.classes[0]) in (BACKGROUND, *VOID)
    likelier = 'The first is likelier'
    if named or (counts.pixels[0] and end_void and not zero_void and not own_void):
        kind, likelier = 'void_kept', 'The second is likelier'
    elif zero > _BACKGROUND_SHARE:
        kind = 'background_kept'
    else:
        kind = 'shifted_labels'
        if counts.pixels[0] and end_void and not own_void:
            likelier = 'Which one, cannot be told'
    message = (
        f'label {end} occurs, one more than that of the last class '
        f'{meaning.classes[-1]!r} ({end - 1}). Two readings fit. First: labels begin '
        f'at 1, 0 is background or void (it covers {zero:.1%}'
        + (f', but is named {meaning.classes[0]!r}' if named else '')
        + f'), and every class is one too high. Second: {end} is void (it covers '
        f'{counts.share(end):.1%}, in {counts.masks[end]} of {counts.looked_at} masks; '
        f'{thin:.0%} of it lies on outlines, of the usual class {usual:.0%}'
        + (f'; but {own_void[0]} is void already' if own_void else '')
        + f'). {likelier}, by these numbers alone'
    )
    return Finding(
        kind,
        key,
        message,
        f'{key}.ignore_index={end} if {end} is void; {key}.reduce_zero_label=True if '
        f'0 is (or name it first in {part.place("names")}); one more name there if a '
        f'class is missing. The sheet of readings shows both',
        (counts.examples[end],),
        counts.masks[end],
    )


def _out_of_range(
    part: Part, counts: ValueCounts, meaning: LabelMeaning, wrong: list[int]
) -> Finding:
    listed = ', '.join(str(value) for value in wrong[:8])
    listed += f', ... ({len(wrong)} values)' if len(wrong) > 8 else ''
    files = list(dict.fromkeys(counts.examples[value] for value in wrong))
    ignored = ' or '.join(str(v) for v in sorted(meaning.ignored))
    return about_files(
        'label_out_of_range',
        part.key,
        f'label values {listed} are neither one of the {len(meaning.classes)} classes '
        f'({meaning.first} to {meaning.end - 1}) nor ignored ({ignored}).'
        + _likeness(sorted(counts.pixels), wrong, meaning),
        f'{part.place("names")} if classes are missing, {part.key}.ignore_index if the '
        'value means void, else the masks',
        files,
    )


def _likeness(values: list[int], wrong: list[int], meaning: LabelMeaning) -> str:
    """Say what illegal values look like, if like anything."""
    levels = np.linspace(0, NARROW.ignore, len(values))
    if 2 < len(values) <= len(meaning.classes) + 1 and np.allclose(
        values, levels, atol=1
    ):
        return (
            f' Evenly spread from 0 to {NARROW.ignore}, they may be grey levels that '
            f'stand for 0 to {len(values) - 1}: then divide them.'
        )
    if len(wrong) > len(meaning.classes):
        return (
            ' So many values may come from colours made grey, from scores, or from '
            'smoothing.'
        )
    return ''


def _one_label(
    part: Part, counts: ValueCounts, meaning: LabelMeaning
) -> Finding | None:
    """Find masks with one class in all, as black-and-white ones are."""
    present = [v for v in range(meaning.first, meaning.end) if counts.pixels[v]]
    missing = [
        name
        for name in meaning.classes
        if not (part.split and part.phase == 'train' and is_unseen(name, part.split))
        and name not in {meaning.name(v) for v in present}
    ]
    others = set(counts.pixels) - {*present}
    if len(present) != 1 or not missing or not others <= {*meaning.ignored}:
        return None
    value, names = present[0], ', '.join(missing[:8])
    black_white = value == 0 and NARROW.ignore in others & meaning.ignored
    return Finding(
        'one_label',
        part.key,
        (
            f'the {counts.looked_at} masks hold only 0 and {NARROW.ignore}, as '
            f'black-and-white pictures do; {NARROW.ignore} means ignore here, so the '
            f'object has no pixel: of {names} there is none'
            if black_white
            else f'{value} ({meaning.name(value)!r}) is the only label of the '
            f'{counts.looked_at} masks: of {names} there is none'
        ),
        f'draw the object as {meaning.first + 1}, if {NARROW.ignore} is it'
        if black_white
        else f'the masks, or {part.place("names")}, unless that is right',
        (counts.examples[value],),
        counts.looked_at,
        # One of several data sets may well hold one class only.
        fault=black_white
        or (counts.looked_at >= _FEW_MASKS and counts.complete and not part.is_joined),
    )


def is_unseen(name: str, split: ZeroShotSplit) -> bool:
    """Whether a class of a data set is an unseen one of a split."""
    place = find_name(name, split.classes)
    return place is not None and place in split.unseen_indices


def _odd_masks(part: Part, counts: ValueCounts) -> Iterator[Finding]:
    """Find masks that are legal one by one, and cannot be as drawn."""
    if counts.soft > max(_SMEARED * counts.steps, _FEW_PIXELS):
        yield Finding(
            'smeared_mask',
            part.key,
            f'at outlines, {counts.soft} pixels have a label between those of their '
            f'neighbours, against {counts.steps} steps: so do masks that were resized '
            'with smoothing, drawn with soft edges, or saved with loss',
            'make the masks again: resize by nearest neighbour, save as PNG',
            count=counts.looked_at,
        )
    most = max(counts.alike.values(), default=0)
    if most >= _FEW_MASKS and most > counts.looked_at / 2:
        yield Finding(
            'identical_masks',
            part.key,
            f'{most} of {counts.looked_at} masks are the same to the last pixel',
            f'the masks, or how they are found: {part.place("masks")}; unless all '
            'pictures show the same scene',
            count=most,
            fault=most == counts.looked_at,
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
        + f'. Either this class is rare, or the labels of {counts.looked_at} masks '
        'begin at 0, the first class is lost and all others are one too low',
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


def _absent(
    part: Part, counts: ValueCounts, meaning: LabelMeaning
) -> Iterator[Finding]:
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
        part.key,
        f'{len(absent)} of {len(values)} classes never occur in {counts.looked_at} '
        f'masks: {listed}'
        + ('; or labels are shifted by one, so that none is 0' if shifted else ''),
        f'{part.place("names")}'
        + (f', or {part.key}.reduce_zero_label' if shifted else '')
        + ', unless that is right',
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
        try:
            listed = read_names(path)
        except ValueError:
            continue  # a list of something else
        ours = [canonical(name) for name in meaning.classes]
        theirs = [canonical(name) for name in listed]
        if theirs[: meaning.first + 1] == [BACKGROUND, *ours[:1]]:
            theirs = theirs[meaning.first :]
        if theirs == ours:
            return None
        for kind, place, option, rest in (
            ('background_kept', 0, 'reduce_zero_label=True', theirs[1:]),
            ('void_kept', -1, f'ignore_index={meaning.end}', theirs[:-1]),
        ):
            if rest == ours and theirs[place] in (BACKGROUND, *VOID):
                return Finding(
                    kind,
                    part.key,
                    f'{path} {"ends" if place else "begins"} with {listed[place]}, '
                    'which the classes do not name',
                    f'{part.key}.{option}, or name it in {part.place("names")}',
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
        f'{part.place("names")}: bring the names into the order of the labels',
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
            f'draw it in the colour {stored[value]} of {meaning.classes[index]!r}: '
            'names or colours are in another order',
            f'{part.place("names")} (or palette): bring names, colours and labels into '
            'one order',
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
