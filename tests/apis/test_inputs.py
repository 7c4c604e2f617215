"""What users type or pass becomes a list of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zs3_mmseg.apis.inferencer import collect_files, list_pictures, load_picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ('b.png', 'a.JPG', 'notes.txt', 'odd[1].png'):
        Image.new('RGB', (2, 2)).save(tmp_path / name, 'PNG')
    (tmp_path / '._b.png').write_text('macOS leaves such files')
    (tmp_path / 'empty').mkdir()
    return tmp_path


def names(files: list[Path]) -> list[str]:
    return [path.name for path in files]


def test_a_folder_gives_its_pictures_in_order(folder: Path) -> None:
    files, problems = collect_files([folder])
    assert names(files) == ['a.JPG', 'b.png', 'odd[1].png']
    assert not problems


def test_a_pattern_gives_its_matches(folder: Path) -> None:
    assert names(collect_files([f'{folder}/?.*'])[0]) == ['a.JPG', 'b.png']


def test_a_file_with_brackets_in_its_name_is_no_pattern(folder: Path) -> None:
    assert names(collect_files([folder / 'odd[1].png'])[0]) == ['odd[1].png']


def test_a_picture_named_twice_is_listed_once(folder: Path) -> None:
    assert names(collect_files([folder / 'b.png', f'{folder}/b.*'])[0]) == ['b.png']


def test_a_missing_file_stays_for_the_reader_to_name(folder: Path) -> None:
    files, problems = collect_files([folder / 'gone.png'])
    assert names(files) == ['gone.png']
    assert not problems


def test_items_that_stand_for_nothing_are_named(folder: Path) -> None:
    items = [folder / 'empty', f'{folder}/*.bmp', f'{folder}/emp*']
    files, problems = collect_files(items)
    assert not files
    assert 'no pictures' in problems[0]
    assert 'matches no file' in problems[1]
    assert 'matches no file' in problems[2]
    with pytest.raises(FileNotFoundError, match='matches no file'):
        list_pictures(f'{folder}/*.bmp')


def test_arrays_and_files_can_be_mixed(folder: Path) -> None:
    array = np.zeros((2, 2, 3), dtype=np.uint8)
    listed = list_pictures([array, str(folder / 'b.png')])
    assert listed[0] is array
    assert listed[1] == folder / 'b.png'


def test_bgr_arrays_are_swapped_and_grey_ones_repeated() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    assert load_picture(array).pixels.tolist() == array.tolist()
    assert load_picture(array, 'bgr').pixels.tolist() == [[[2, 1, 0], [5, 4, 3]]]
    assert load_picture(array[..., 0]).pixels.tolist() == [[[0, 0, 0], [3, 3, 3]]]


@pytest.mark.parametrize(
    'array',
    [np.zeros((2, 2, 4), np.uint8), np.zeros((2, 2, 3)), np.zeros((0, 2, 3), np.uint8)],
)
def test_arrays_that_are_no_pictures_are_refused(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match='expected a picture'):
        load_picture(array)
