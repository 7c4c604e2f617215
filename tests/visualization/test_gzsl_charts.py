"""Charts of how seen and unseen classes compete."""

import math

import numpy as np
import pytest

from zs3_mmseg.visualization import confusion_chart, seen_unseen_chart

CLASSES = ['sky', 'tree', 'cat', 'dog']


def full_cells(chart: np.ndarray, count: int) -> set[tuple[int, int]]:
    """Return (row, column) of the cells of a drawn matrix that hold 100 %.

    The first and the last of its rows and columns must have one.
    """
    full = (np.abs(chart.astype(int) - (8, 48, 107)) < 6).all(axis=2)
    full[:, round(chart.shape[1] * 0.82) :] = False  # the colour bar
    rows, columns = np.nonzero(full)
    side = np.array([np.ptp(rows) + 1, np.ptp(columns) + 1]) / count
    centres = (np.arange(count) + 0.5)[:, None] * side + (rows.min(), columns.min())
    return {
        (row, column)
        for row in range(count)
        for column in range(count)
        if full[int(centres[row, 0]), int(centres[column, 1])]
    }


def test_seen_classes_come_first_and_rows_are_the_truth() -> None:
    # All of 'tree' (unseen) is taken for 'sky', all of 'dog' for 'tree'.
    confusion = np.diag([9, 0, 5, 0])
    confusion[1, 0], confusion[3, 1] = 3, 7
    chart = confusion_chart(confusion, CLASSES, ['tree'])
    assert full_cells(chart, 4) == {(0, 0), (1, 1), (2, 3), (3, 0)}


def test_a_matrix_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r'\(3, 3\) does not fit 4'):
        confusion_chart(np.eye(3), CLASSES)


def test_many_classes_and_none_unseen_can_be_drawn() -> None:
    names = [f'class {index}' for index in range(171)]
    chart = confusion_chart(np.eye(171), names)
    assert max(chart.shape) < 2000
    assert confusion_chart(np.zeros((4, 4)), CLASSES, CLASSES).shape[2] == 3


def test_the_curve_has_its_ends_and_gammas() -> None:
    points = [(-math.inf, 40.0, 0.0), (0.1, 30.0, 20.0), (math.inf, 0.0, 25.0)]
    chart = seen_unseen_chart(points, 6.1)
    blue = (np.abs(chart.astype(int) - (0x3B, 0x6F, 0xB6)) < 8).all(axis=2)
    orange = (np.abs(chart.astype(int) - (0xE0, 0x8A, 0x1E)) < 40).all(axis=2)
    assert blue.any()
    assert orange.any()
