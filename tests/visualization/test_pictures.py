"""Heat maps of words, errors of predictions, and curves of trainings."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zs3_mmseg.evaluation.report import JSON_NAME
from zs3_mmseg.utils.palette import default_palette
from zs3_mmseg.visualization import heat_map_sheet, training_chart
from zs3_mmseg.visualization.heat_maps import colour_map, draw_heat_map
from zs3_mmseg.visualization.sheets import RIGHT, WRONG, comparison_sheet, draw_errors

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_scores_run_through_the_colours_from_low_to_high() -> None:
    scores = np.linspace(-1, 3, 30)[None].repeat(20, axis=0)
    drawn = draw_heat_map(IMAGE, scores, 0.0, 2.0, alpha=1.0)
    colours = colour_map()
    assert (drawn[:, 0] == colours[0]).all()
    assert (drawn[:, -1] == colours[-1]).all()
    lightness = drawn[0].astype(int) @ [299, 587, 114]
    assert (np.diff(lightness) >= 0).all()


@pytest.mark.parametrize(('words', 'rows'), [(1, 1), (3, 1), (4, 2), (9, 3)])
def test_a_sheet_has_a_map_for_each_word(words: int, rows: int) -> None:
    scores = np.random.default_rng(1).random((words, 20, 30), np.float32)
    names = [f'a word {index}' for index in range(words)]
    sheet = heat_map_sheet(IMAGE, scores, names, cell=90)
    assert sheet.shape[0] > rows * 60
    assert sheet.shape[1] == min(words + 1, 4) * 98 - 8


def test_scores_that_fit_nothing_are_refused() -> None:
    for scores in (np.zeros((2, 20, 31)), np.full((2, 20, 30), np.nan)):
        with pytest.raises(ValueError, match='expected finite scores of shape'):
            heat_map_sheet(IMAGE, scores, ['a', 'b'])


def test_errors_are_told_by_colour() -> None:
    grey = np.full((4, 6, 3), 128, np.uint8)
    truth = np.zeros((4, 6), np.int64)
    labels = truth.copy()
    labels[:, 3:] = 1
    counted = truth == 0
    counted[0] = False
    drawn = draw_errors(grey, truth, labels, counted)
    assert (drawn[0] == 0).all()
    assert (drawn[1:, :3] == RIGHT).all()
    assert (drawn[1:, 3:] == WRONG).all()


def test_a_comparison_has_room_for_errors() -> None:
    labels = np.zeros((20, 30), np.int64)
    rows = [[IMAGE, labels, labels]]
    titles = ['image', 'truth', 'a method']
    given = (rows, titles, ['a', 'b'], [[9, 9, 9], [200, 0, 0]])
    plain, with_errors = (comparison_sheet(*given, errors=e) for e in (False, True))
    assert with_errors.shape[1] - plain.shape[1] == 192 + 8


def test_the_legend_of_a_sheet_has_all_classes() -> None:
    def height(classes: int) -> int:
        labels = np.arange(600).reshape(20, 30) % classes
        names = [f'class {index}' for index in range(classes)]
        colours = default_palette(classes)
        return comparison_sheet(
            [[IMAGE, labels]], ['image', 'truth'], names, colours
        ).shape[0]

    assert height(150) - height(100) >= height(100) - height(50) > 100


def test_a_run_without_anything_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="'one' has neither"):
        training_chart({'one': [{'step': 1, 'lr': 0.1}]})


def test_runs_are_drawn_from_their_logs(tmp_path: Path) -> None:
    for run in ('a', 'b'):
        logs = tmp_path / run / '20260101_000000' / 'vis_data'
        logs.mkdir(parents=True)
        records = [
            {'step': 10, 'loss': 2.0, 'decode.loss_ce': 1.5, 'decode.loss_dice': 0.5},
            {'step': 20, 'loss': 1.0, 'decode.loss_ce': 0.8, 'decode.loss_dice': 0.2},
            {'step': 20, 'mIoU_seen': 50.0, 'mIoU_unseen': 20.0, 'hIoU': 28.6},
        ]
        text = '\n'.join(map(json.dumps, records)) + '\n'
        (logs / 'scalars.json').write_text(text)
    rows = [
        dict(name='cat', unseen=False, IoU=70.0),
        dict(name='owl', unseen=True, IoU=None),
    ]
    report = tmp_path / 'b' / 'report' / JSON_NAME
    report.parent.mkdir()
    report.write_text(json.dumps(dict(classes=rows, confusion=[[5, 1], [0, 0]])))
    draw_runs(tmp_path, 'a', 'b', '--out', 'pictures')
    made = sorted(path.name for path in (tmp_path / 'pictures').iterdir())
    assert made == ['classes.png', 'confusion_b.png', 'training.png']
    one, two = tmp_path / 'one', tmp_path / 'pictures'
    draw_runs(tmp_path, 'a', '--out', 'one')
    heights = [Image.open(f / 'training.png').height for f in (one, two)]
    assert heights[1] > 1.5 * heights[0]


def draw_runs(folder: Path, *words: str) -> None:
    """Run the tool in this process."""
    tool = Path(__file__).resolve().parents[2] / 'tools/analysis_tools/draw_runs.py'
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, 'argv', [str(tool), *words])
        runpy.run_path(str(tool), run_name='__main__')
