"""Text in pictures, in a font that every installation has."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import matplotlib
from PIL import ImageFont

INK = (33, 37, 41)
FAINT_INK = (108, 117, 125)
PAPER = (255, 255, 255)


@lru_cache(maxsize=64)
def load_font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which matplotlib ships: Latin, Greek, Cyrillic and more.

    Args:
        size: height of a line, in pixels, about 1.2 times that of a capital letter.
        bold: the heavy cut.
    """
    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    folder = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf'
    return ImageFont.truetype(str(folder / name), size)


def text_width(font: ImageFont.FreeTypeFont, text: str) -> int:
    """Return the width of one line of text, in pixels."""
    return round(font.getlength(text))


def shorten(font: ImageFont.FreeTypeFont, text: str, width: int) -> str:
    """Cut ``text`` until it fits ``width`` pixels, with an ellipsis at the cut."""
    if text_width(font, text) <= width:
        return text
    kept = text
    while kept and text_width(font, kept + '…') > width:
        kept = kept[:-1]
    return kept.rstrip() + '…'
