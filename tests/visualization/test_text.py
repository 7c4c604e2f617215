"""Names of any script and length in pictures."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from PIL import Image

from zs3_mmseg.visualization import (
    confusion_chart,
    draw_legend,
    draw_overlay,
    legend_entries,
    per_class_chart,
    summary_chart,
)
from zs3_mmseg.visualization.drawing import write_names
from zs3_mmseg.visualization.sheets import draw_titles
from zs3_mmseg.visualization.text import PAPER, Pen, drawable, font_file

# Letters of a private area, which no font of a machine has.
RARE = '\U00108abc\U00108abd'
BY_NUMBER = '\\U00108abc\\U00108abd'


@pytest.fixture
def rare_font(tmp_path: Path) -> Iterator[Path]:
    """Install a font that draws each of the rare letters, and ``a``, as a square."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 700), (800, 700), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(['.notdef', 'square'])
    letters = ['a', ' ', *RARE]
    builder.setupCharacterMap({ord(letter): 'square' for letter in letters})
    builder.setupGlyf({'.notdef': TTGlyphPen(None).glyph(), 'square': square})
    builder.setupHorizontalMetrics({'.notdef': (900, 0), 'square': (900, 100)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({'familyName': 'Rare Letters', 'styleName': 'Regular'})
    builder.setupOS2(sTypoAscender=800)
    builder.setupPost()
    path = tmp_path / 'rare.ttf'
    builder.save(path)
    before = list(fontManager.ttflist)
    forget()
    fontManager.addfont(path)
    yield path
    fontManager.ttflist[:] = before
    forget()


def forget() -> None:
    font_file.cache_clear()
    drawable.cache_clear()


def written(text: str) -> np.ndarray:
    sheet = Image.new('RGB', (300, 40), PAPER)
    Pen(20).write(sheet, (5, 5), text, (0, 0, 0))
    return np.asarray(sheet)


def test_names_are_drawn_in_a_font_that_has_them(rare_font: Path) -> None:
    assert drawable(RARE) == RARE
    assert font_file(RARE) == str(rare_font)
    dark = (written(RARE) < 100).any(axis=2)
    # Two squares, each 14 of 20 pixels high and wide.
    assert dark.any(axis=1).sum() == pytest.approx(14, abs=1)
    assert dark.any(axis=0).sum() == pytest.approx(28, abs=2)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        per_class_chart({RARE: [1.0]}, [RARE])


def test_letters_without_a_font_are_replaced_and_told() -> None:
    assert drawable(f'a {RARE}') == f'a {BY_NUMBER}'
    np.testing.assert_array_equal(written(RARE), written(BY_NUMBER))
    colours = [(9, 9, 9), (99, 9, 9)]
    plain = draw_legend(legend_entries([BY_NUMBER, 'b'], colours), 400)
    rare = draw_legend(legend_entries([RARE, 'b'], colours), 400)
    # One line more, which says what the numbers are.
    assert rare.shape[0] - plain.shape[0] == pytest.approx(16 * 1.6, abs=1)


NAMES = [
    '\u8349\u5730',
    '\u0637\u0631\u064a\u0642',
    '\U0001f6a3 boat',
    RARE,
    '$5 a$b_{',
    'two\nlines',
    'x' * 300,
    '\udce9',
]


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('name', NAMES, ids=ascii)
def test_no_name_breaks_a_picture(name: str) -> None:
    names, palette = [name, 'b'], [(250, 0, 0), (0, 120, 0)]
    labels = np.zeros((300, 400), dtype=np.uint8)
    image = np.full((300, 400, 3), 90, dtype=np.uint8)
    drawn = draw_overlay(image, labels, names, palette, [0])
    assert drawn.shape[1] == 400
    draw_titles([name, 'b'], 100, 20)
    charts = [
        per_class_chart({name: [1.0, 2.0]}, names, [0]),
        confusion_chart(np.eye(2), names, [0]),
        summary_chart({name: dict(mIoU_seen=1, mIoU_unseen=2, hIoU=3)}),
    ]
    for chart in charts:
        assert max(chart.shape) < 1000


@pytest.mark.parametrize('width', [60, 120, 400])
@pytest.mark.parametrize(
    'title',
    ['image', 'a heading of several words', 'one_very_long_word_of_a_config_name' * 2],
)
def test_headings_are_uncut(title: str, width: int) -> None:
    pen = Pen(16, bold=True)
    lines = pen.wrap(title, width)
    assert ''.join(lines).replace(' ', '') == title.replace(' ', '')
    assert all(pen.width(line) <= width for line in lines)
    strip = np.asarray(draw_titles([title, 'b'], width, 16))
    ink = (strip < 128).any(axis=2)
    for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]):
        assert not edge.any()


def test_a_name_in_a_region_is_written_as_it_can_be() -> None:
    labels = np.zeros((300, 400), dtype=np.uint8)
    picture = np.full((300, 400, 3), 90, dtype=np.uint8)
    np.testing.assert_array_equal(
        write_names(picture, labels, [RARE]), write_names(picture, labels, [BY_NUMBER])
    )
