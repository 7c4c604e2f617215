"""Text in pictures: fonts for any script, or its letters by number where none is.

matplotlib is imported when text is drawn: most processes draw nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from zs3_mmseg.utils.console import in_ascii

Colour = tuple[int, int, int]

INK = (33, 37, 41)
FAINT_INK = (108, 117, 125)
PAPER = (255, 255, 255)
#: What tells of :func:`drawable`.
BY_NUMBER = r'\u...: letters that no font of this machine has'

# Fonts that have a box, or nothing, for every letter.
_PLACEHOLDERS = {'Last Resort', 'Last Resort High-Efficiency', 'Adobe Blank'}
_ELLIPSIS = '\N{HORIZONTAL ELLIPSIS}'


def _shipped_font(bold: bool) -> str:
    """Return DejaVu Sans, which matplotlib ships: Latin, Greek, Cyrillic and more."""
    import matplotlib

    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    return str(Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / name)


@lru_cache
def _letters_of(file: str) -> frozenset[int]:
    """Return the code points that a font of outlines has; none of any other file."""
    from matplotlib.ft2font import FT2Font

    try:
        ImageFont.truetype(file, 16)
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


@lru_cache(maxsize=4096)
def font_file(text: str, *, bold: bool = False) -> str | None:
    """Return a font that has all letters of a text, DejaVu Sans if it can be."""
    wanted = {ord(letter) for letter in text}
    shipped = _shipped_font(bold)
    if wanted <= _letters_of(shipped):
        return shipped
    from matplotlib.font_manager import fontManager

    files = (e.fname for e in fontManager.ttflist if e.name not in _PLACEHOLDERS)
    return next((file for file in files if wanted <= _letters_of(file)), None)


@lru_cache(maxsize=4096)
def drawable(text: str) -> str:
    """Return a text with letters that no font has replaced, such as by ``\\u8349``."""
    one_line = ' '.join(text.split())
    if font_file(one_line) is not None:
        return one_line
    known = _letters_of(_shipped_font(bold=False))
    return ''.join(
        letter if ord(letter) in known else in_ascii(letter) for letter in one_line
    )


def is_by_number(text: str) -> bool:
    """Whether :func:`drawable` replaces any letter."""
    return drawable(text) != ' '.join(text.split())


@lru_cache(maxsize=64)
def _load(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


@dataclass(frozen=True)
class Pen:
    """Measures and writes lines of text of any script.

    Attributes:
        size: height of a line, in pixels.
        bold: where the font has it.
    """

    size: int
    bold: bool = False

    def _font(self, text: str) -> ImageFont.FreeTypeFont:
        file = font_file(text, bold=self.bold) or _shipped_font(self.bold)
        return _load(file, self.size)

    def width(self, text: str) -> int:
        """Return the width of one line, in pixels."""
        shown = drawable(text)
        return round(self._font(shown).getlength(shown))

    def shorten(self, text: str, width: int) -> str:
        """Cut a text until it fits ``width`` pixels, with an ellipsis at the cut."""
        text = drawable(text)
        if self.width(text) <= width:
            return text
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            if self.width(text[:middle] + _ELLIPSIS) <= width:
                low = middle
            else:
                high = middle - 1
        return text[:low].rstrip() + _ELLIPSIS

    def wrap(self, text: str, width: int) -> list[str]:
        """Break a text into lines of at most ``width`` pixels, at spaces if it can."""
        lines = ['']
        for word in drawable(text).split():
            joined = f'{lines[-1]} {word}'.lstrip()
            if self.width(joined) <= width:
                lines[-1] = joined
                continue
            if lines[-1]:
                lines.append('')
            for letter in word:
                if lines[-1] and self.width(lines[-1] + letter) > width:
                    lines.append('')
                lines[-1] += letter
        return lines

    def write(
        self,
        sheet: Image.Image,
        place: tuple[float, float],
        text: str,
        ink: Colour,
        **options: Any,
    ) -> None:
        """Write one line at ``(x, y)``; ``options`` are those of Pillow's ``text``."""
        shown = drawable(text)
        ImageDraw.Draw(sheet).text(place, shown, ink, self._font(shown), **options)


@contextmanager
def chart_fonts(texts: Iterable[str]) -> Iterator[None]:
    """Let matplotlib write such texts, in fonts that have them and not as formulas."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    files = dict.fromkeys(font_file(drawable(text)) for text in texts)
    families = [FT2Font(file).family_name for file in files if file is not None]
    settings: dict[Any, Any] = {
        'font.family': list(dict.fromkeys(['DejaVu Sans', *families])),
        'text.parse_math': False,
    }
    with matplotlib.rc_context(settings):
        yield
