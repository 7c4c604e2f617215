"""Do names and label values belong together? Evidence from files beside the masks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from zs3_mmseg.apis.data_checks.finding import Finding
from zs3_mmseg.apis.data_checks.parts import LabelMeaning, Part
from zs3_mmseg.datasets.splits import canonical, get_split, split_names

NAME_FILES = ('classes.txt', 'labels.txt', 'class_names.txt', 'label_names.txt')


def check_order(
    part: Part,
    meaning: LabelMeaning,
    present: Collection[int],
    palettes: Sequence[np.ndarray],
) -> Iterator[Finding]:
    """Compare the order of the names with lists of names and colours found.

    Args:
        part: the data set.
        meaning: what its label values should mean.
        present: values that occur in the masks.
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
