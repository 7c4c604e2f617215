"""Lists of names as people write them, and what is said of those that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from zs3_mmseg.datasets.splits import make_split, resolve_split
from zs3_mmseg.datasets.splits.name_files import read_names
from zs3_mmseg.datasets.splits.zero_shot_split import same_classes


@pytest.mark.parametrize(
    'content',
    [
        b'tree\nsea star\n',
        b'\xef\xbb\xbftree\r\nsea star',
        'tree\nsea star'.encode('utf-16'),
        b'# names\n\n  tree  # label 0\n\tsea star\n',
        b'tree,\nsea star,\n',
        b'"tree"\n\'sea star\'\n',
        b'0 tree\n1 sea star\n',
        b'0: tree\n1: sea star\n',
        b'0\ttree\n1\tsea star\n',
        b'["tree", "sea star"]',
    ],
)
def test_names_are_read_from_any_usual_list(tmp_path: Path, content: bytes) -> None:
    (tmp_path / 'classes.txt').write_bytes(content)
    assert read_names(tmp_path / 'classes.txt') == ['tree', 'sea star']


def test_numbers_in_names_are_kept(tmp_path: Path) -> None:
    (tmp_path / 'classes.txt').write_text('3 wheeler\nC# logo\ncar')
    assert read_names(tmp_path / 'classes.txt') == ['3 wheeler', 'C# logo', 'car']
    (tmp_path / 'classes.txt').write_text('"1 euro"\n"2 euro"')
    assert read_names(tmp_path / 'classes.txt') == ['1 euro', '2 euro']


@pytest.mark.parametrize('start', [0, 1])
def test_published_lists_with_synonyms_are_read(tmp_path: Path, start: int) -> None:
    lines = ['0:invalid_class_id'] * start
    lines += [f'{start}:tree,trees,Tree, oak,trees', f'{start + 1}:sea star']
    (tmp_path / 'classes.txt').write_text('\n'.join(lines))
    names = read_names(tmp_path / 'classes.txt')
    assert names == ['tree|trees|Tree|oak', 'sea star']


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'tree\ncaf\xe9\n', r'classes\.txt, line 2: no UTF-8 text'),
        ('tree\ncar'.encode('utf-16-le'), r'classes\.txt, line 1: no UTF-8 text'),
        (b'grass\n\nGrass\n', r"line 3: 'Grass' .* more than once, as 'grass' in line"),
        (b'sea star\nsea_star\n', r"line 2: 'sea_star' is listed more than once"),
        (b'sofa|couch\nCouch\n', r"line 2: 'Couch' .* as 'sofa\|couch' in line 1"),
        (b'tree\nsofa|\n', r'line 2: .*empty synonym'),
        (b'1:tree,oak\n3:car\n', r"line 2: '3:car' is numbered 3, and 2 is"),
        (b'2:tree,oak\n3:car\n', r"line 1: '2:tree,oak' is numbered 2"),
        (b'1 tree\n2 car\n', r"line 1: '1 tree' is numbered 1, but is name 0"),
        (b'tree, car, sky', r'line 1: .* is more than one name'),
        (b'tree\tgreen\ncar\tred', r'line 1: .* is more than one name'),
        (b"['tree',\n 'car']", r'line 1: no readable JSON'),
        (b'["tree",\n\n"car" "sky"]', r'line 3: no readable JSON'),
        (b'{"tree": 0}', r'line 1: expected names, one on each line'),
        (b'# nothing\n', r'classes\.txt holds no name'),
    ],
)
def test_wrong_lists_are_told_with_file_and_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / 'classes.txt').write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_names(tmp_path / 'classes.txt')


def test_an_unseen_name_that_is_no_class_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / 'classes.txt').write_text('tree\ncar\n')
    (tmp_path / 'unseen.txt').write_text('# one\ncra\n')
    with pytest.raises(ValueError, match=r"unseen\.txt, line 2: 'cra' .* mean 'car'"):
        resolve_split(dict(folder=tmp_path))


def test_classes_are_the_same_but_for_spelling() -> None:
    assert same_classes(['a b', 'c', 'A_B', 'd|C', 'e']) == [(0, 2), (1, 3)]
    with pytest.raises(ValueError, match='Grass more than once'):
        make_split('mine', ['grass', 'Grass'], [])
