"""The metainfo of a data set whose labels are those of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zs3_mmseg.datasets.splits import ZeroShotSplit, find_name, plain_split
from zs3_mmseg.utils.labels import special_labels
from zs3_mmseg.utils.palette import default_palette

#: Class names and their colours, RGB.
Colours = tuple[Sequence[str], Sequence[Sequence[int]]]


def split_metainfo(
    split: ZeroShotSplit, sources: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the entries that follow from a split.

    Args:
        split: classes in label order, and who is unseen.
        sources: metainfo of the wrapped data sets, whose colours are taken over.
    """
    special = special_labels(len(split.classes))
    return dict(
        classes=split.classes,
        palette=split_palette(split, sources),
        # The labels that leave the data set are neither mapped nor reduced again.
        label_map=None,
        reduce_zero_label=False,
        split=plain_split(split),
        seen=split.seen_indices,
        unseen=split.unseen_indices,
        ignore_index=special.ignore,
        unlabelled_index=special.unlabelled,
    )


def split_palette(
    split: ZeroShotSplit, sources: Sequence[Mapping[str, Any]]
) -> list[list[int]]:
    """Give each class the colour that its name has in one of the sources.

    Returns:
        K colours, RGB, 0..255; new ones for names without a colour.
    """
    known = [(meta.get('classes') or (), meta.get('palette') or ()) for meta in sources]
    found = [_colour(name, known) for name in split.classes]
    taken = [colour for colour in found if colour is not None]
    spare = iter(default_palette(len(found) - len(taken), avoid=taken))
    return [colour or next(spare) for colour in found]


def _colour(name: str, known: Sequence[Colours]) -> list[int] | None:
    for names, palette in known:
        position = find_name(name, names)
        if position is not None and position < len(palette):
            return [int(value) for value in palette[position]]
    return None
