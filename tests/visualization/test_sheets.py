"""Overlays, legends, sheets and charts hold what they should."""

from __future__ import annotations

import numpy as np
import pytest

from zs3_mmseg.visualization import (
    comparison_sheet,
    draw_legend,
    draw_overlay,
    legend_entries,
    per_class_chart,
    summary_chart,
    write_names,
)
from zs3_mmseg.visualization.overlay import as_percent, class_shares
from zs3_mmseg.visualization.text import Pen

CLASSES = ('cat', 'dog', 'sky')
PALETTE = ((250, 0, 0), (0, 120, 0), (0, 0, 200))


def has_colour(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((picture == colour).all(axis=2).any())


def picture_of(value: int, height: int = 40, width: int = 50) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_shares_count_void_in_the_total_only() -> None:
    labels = np.array([[0, 0, 2, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(class_shares(labels, 3), [0.5, 0.0, 0.25])


@pytest.mark.parametrize(
    ('share', 'text'), [(0.0, '0.0'), (0.0004, '<0.1'), (0.1234, '12.3')]
)
def test_small_shares_do_not_read_zero(share: float, text: str) -> None:
    assert as_percent(share) == f'{text}\N{NO-BREAK SPACE}%'


def test_the_legend_of_an_overlay_lists_present_classes_only() -> None:
    labels = np.zeros((300, 400), dtype=np.uint8)
    labels[:, 200:] = 2
    drawn = draw_overlay(picture_of(90, 300, 400), labels, CLASSES, PALETTE)
    legend = drawn[300:]
    assert drawn.shape[1] == 400
    assert has_colour(legend, PALETTE[0])
    assert has_colour(legend, PALETTE[2])
    assert not has_colour(legend, PALETTE[1])


def test_where_all_classes_are_unseen_nothing_is_hatched() -> None:
    labels = np.zeros((300, 400), dtype=np.uint8)
    image = picture_of(90, 300, 400)
    plain = draw_overlay(image, labels, CLASSES, PALETTE)
    unseen = draw_overlay(image, labels, CLASSES, PALETTE, CLASSES)
    some = draw_overlay(image, labels, CLASSES, PALETTE, ['cat'])
    np.testing.assert_array_equal(plain, unseen)
    assert (plain != some[: plain.shape[0]]).any()


@pytest.mark.parametrize(
    ('size', 'drawn_size'),
    [
        ((1, 1), (256, 360)),
        ((1, 3000), (1, 3000)),
        ((3000, 1), (3000, 360)),
        ((300, 400), (300, 400)),
        ((90, 400), (270, 1200)),
        ((2100, 2500), (2100, 2500)),
    ],
)
def test_overlays_have_the_size_of_the_picture_with_a_legend_in_scale(
    size: tuple[int, int], drawn_size: tuple[int, int]
) -> None:
    drawn = draw_overlay(
        picture_of(9, *size), np.zeros(size, dtype=np.uint8), CLASSES, PALETTE
    )
    height, width = drawn_size
    assert drawn.shape[1] == width
    # One line of text, its margins, and nothing else.
    line = (drawn.shape[0] - height) / 2.8
    assert line >= 12
    assert abs(line - max(13, min(max(height, width) // 48, width // 20))) <= 1


def test_a_legend_has_the_width_asked_for_and_grows_downwards() -> None:
    names = [f'a class with number {index}' for index in range(40)]
    entries = legend_entries(names, [(9, 9, index) for index in range(40)])
    wide, narrow = draw_legend(entries, 900), draw_legend(entries, 250)
    assert (wide.shape[1], narrow.shape[1]) == (900, 250)
    assert narrow.shape[0] > wide.shape[0]


def test_a_legend_beyond_its_limit_counts_the_rest() -> None:
    entries = legend_entries(['a', 'b', 'c'], PALETTE)
    short = draw_legend(entries, 300, limit=2)
    assert not has_colour(short, PALETTE[2])
    assert has_colour(draw_legend(entries, 300), PALETTE[2])


def test_long_names_are_cut_to_fit() -> None:
    pen = Pen(16)
    cut = pen.shorten('a name that goes on and on', 90)
    assert cut.endswith('…')
    assert 70 < pen.width(cut) <= 90
    assert pen.shorten('cat', 90) == 'cat'


def test_names_are_written_into_large_regions_only() -> None:
    labels = np.zeros((200, 300), dtype=np.uint8)
    labels[90:93, 100:103] = 1
    picture = picture_of(120, 200, 300)
    written = write_names(picture, labels, CLASSES)
    only_small = write_names(picture, np.where(labels == 1, 1, 255), CLASSES)
    assert (written != picture).any()
    np.testing.assert_array_equal(only_small, picture)


def test_a_sheet_holds_pictures_maps_and_the_legend() -> None:
    truth = np.zeros((40, 50), dtype=np.uint8)
    truth[:20] = 2
    rows = [[picture_of(77), truth, np.zeros_like(truth)]] * 2
    sheet = comparison_sheet(
        rows, ['image', 'truth', 'ours'], CLASSES, PALETTE, ['sky'], alpha=1.0
    )
    assert has_colour(sheet, (77, 77, 77))
    assert has_colour(sheet, PALETTE[0])
    assert has_colour(sheet, PALETTE[2])
    assert not has_colour(sheet, PALETTE[1])


def test_sheets_take_rows_of_different_sizes() -> None:
    rows = [
        [picture_of(77, *size), np.zeros(size, dtype=np.uint8)]
        for size in ((40, 50), (300, 90), (1, 1))
    ]
    assert comparison_sheet(rows, ['a', 'b'], CLASSES, PALETTE).dtype == np.uint8


@pytest.mark.parametrize('rows', [[], [[picture_of(1)]], [[picture_of(1)] * 3]])
def test_a_sheet_needs_one_map_for_each_title(rows: list) -> None:
    with pytest.raises(ValueError, match='row'):
        comparison_sheet(rows, ['image', 'truth'], CLASSES, PALETTE)


def test_the_class_chart_leaves_out_absent_classes_and_names_gaps() -> None:
    values = {'ours': [50.0, float('nan'), 20.0]}
    chart = per_class_chart(values, CLASSES, ['sky'])
    assert has_colour(chart, (0x3B, 0x6F, 0xB6))
    assert has_colour(chart, (0xE0, 0x8A, 0x1E))
    with pytest.raises(ValueError, match="'ours' has 2 values for 3 classes"):
        per_class_chart({'ours': [1.0, 2.0]}, CLASSES)


def test_the_summary_chart_needs_its_three_values() -> None:
    whole = {'mIoU_seen': 60.0, 'mIoU_unseen': 20.0, 'hIoU': 30.0}
    assert summary_chart({'ours': whole}).shape[2] == 3
    with pytest.raises(KeyError, match='hIoU'):
        summary_chart({'ours': {'mIoU_seen': 60.0, 'mIoU_unseen': 20.0}})
