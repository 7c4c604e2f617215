"""The colours of classes in masks, from ``palette.txt`` or ``palette.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zs3_mmseg.datasets.splits import find_name

PALETTE_FILES = ('palette.txt', 'palette.json')
#: Names of colours that stand for "no class" in a palette.
VOID_NAMES = ('void', 'ignore')
_LINE = r'(\d+)[\s,]+(\d+)[\s,]+(\d+)(?:[\s,]+(.+))?'


class ColourTable:
    """Which colour means which label.

    Args:
        colours: one for each class, RGB, 0..255.
        void: colours of pixels that are ignored.
        ignore_index: their label.
        origin: the file, for messages.

    Raises:
        ValueError: if a colour occurs twice.
    """

    def __init__(
        self,
        colours: Sequence[Sequence[int]],
        void: Sequence[Sequence[int]],
        ignore_index: int,
        origin: str,
    ) -> None:
        self.colours = [list(colour) for colour in colours]
        self._origin = origin
        codes = _codes(np.array([*colours, *void], dtype=np.uint8).reshape(-1, 3))
        labels = np.array(
            [*range(len(colours)), *[ignore_index] * len(void)], dtype=np.int64
        )
        order = np.argsort(codes, kind='stable')
        self._codes, self._labels = codes[order], labels[order]
        twice = np.flatnonzero(self._codes[1:] == self._codes[:-1])
        if len(twice):
            colour = _as_colour(self._codes[twice[0]])
            raise ValueError(f'{origin} gives the colour {colour} to two classes')

    def labels(self, pixels: np.ndarray) -> np.ndarray:
        """Return the label of each pixel of a colour picture.

        Args:
            pixels: (H, W, 3), uint8, RGB.

        Returns:
            Labels, (H, W), int64.

        Raises:
            ValueError: naming a colour that no class has.
        """
        codes = _codes(pixels)
        places = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        unknown = self._codes[places] != codes
        if unknown.any():
            wrong = np.unique(codes[unknown])
            shown = ', '.join(str(_as_colour(code)) for code in wrong[:4])
            raise ValueError(
                f'{len(wrong)} colours of the mask are not in {self._origin}: {shown}'
                f'{", ..." if len(wrong) > 4 else ""} (was it saved as JPEG, or drawn '
                'with smooth edges?)'
            )
        return self._labels[places]


def _codes(pixels: np.ndarray) -> np.ndarray:
    """Pack RGB into one number for each pixel."""
    wide = pixels.astype(np.int64)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def _as_colour(code: int) -> tuple[int, int, int]:
    return int(code) >> 16, int(code) >> 8 & 255, int(code) & 255


def read_palette(
    folder: Path, classes: Sequence[str], ignore_index: int
) -> ColourTable | None:
    """Read the palette of a folder, if it has one.

    ``palette.txt`` has a line ``R G B`` for each class in the order of the classes, or
    lines ``R G B name`` in any order; ``palette.json`` is ``{"name": [R, G, B]}``. The
    names ``void`` and ``ignore`` stand for pixels that are no class.

    Args:
        folder: where to look.
        classes: names in label order.
        ignore_index: label of void.

    Raises:
        ValueError: naming the file and the line or name that is wrong.
    """
    for name in PALETTE_FILES:
        path = folder / name
        if path.is_file():
            entries = _from_json(path) if name.endswith('.json') else _from_text(path)
            return _as_table(path, entries, classes, ignore_index)
    return None


def _from_text(path: Path) -> list[tuple[str, list[int]]]:
    entries = []
    for number, line in enumerate(path.read_text('utf-8-sig').splitlines(), 1):
        if not line.strip() or line.lstrip().startswith('#'):
            continue
        found = re.fullmatch(_LINE, line.strip())
        if found is None:
            raise ValueError(
                f'{path}, line {number}: expected "R G B" or "R G B name", got {line!r}'
            )
        entries.append((found[4] or '', [int(found[i]) for i in (1, 2, 3)]))
    return entries


def _from_json(path: Path) -> list[tuple[str, list[int]]]:
    try:
        content = json.loads(path.read_text('utf-8-sig'))
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is no readable JSON: {error}') from error
    if not isinstance(content, dict) or not all(
        isinstance(colour, list) and all(type(value) is int for value in colour)
        for colour in content.values()
    ):
        raise ValueError(f'{path}: expected {{"name": [R, G, B], ...}}')
    return list(content.items())


def _as_table(
    path: Path,
    entries: list[tuple[str, list[int]]],
    classes: Sequence[str],
    ignore_index: int,
) -> ColourTable:
    for name, colour in entries:
        if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
            raise ValueError(f'{path}: {colour} of {name!r} is no colour of 0 to 255')
    void = [colour for name, colour in entries if name.lower() in VOID_NAMES]
    rest = [entry for entry in entries if entry[0].lower() not in VOID_NAMES]
    if any(name for name, _ in rest):
        colours: dict[int, list[int]] = {}
        for name, colour in rest:
            place = find_name(name, classes) if name else None
            if place is None or place in colours:
                raise ValueError(
                    f'{path}: {name!r} is '
                    + ('listed twice' if place is not None else 'none of the classes')
                )
            colours[place] = colour
        ordered = [colours.get(place) for place in range(len(classes))]
    else:
        ordered = [colour for _, colour in rest]
    if len(ordered) != len(classes) or None in ordered:
        raise ValueError(
            f'{path} has colours for {len(rest)} of {len(classes)} classes'
        )
    return ColourTable([c for c in ordered if c], void, ignore_index, str(path))
