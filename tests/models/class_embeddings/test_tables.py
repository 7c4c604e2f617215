"""Attributes and trees of names in CSV tables."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank
from zs3_mmseg.models.class_embeddings.tables import (
    AttributeSource,
    Hierarchy,
    shipped_tables,
)

TABLE = """# made up
name,fur,legs
cat,1,4
Dog,1,4
fish,0,0
sea lion,1,0
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / 'pets.csv'
    path.write_text(TABLE)
    return path


def test_columns_are_standardised_over_all_classes(table: Path) -> None:
    values = np.array([[1, 4], [1, 4], [0, 0], [1, 0]], dtype=float)
    expected = (values - values.mean(axis=0)) / values.std(axis=0)
    source = AttributeSource(table)
    rows = source.rows(['dog', 'sea_lion'], False, None)
    torch.testing.assert_close(rows, torch.tensor(expected[[1, 3]]).float())
    assert source.attributes == ('fur', 'legs')
    assert source.provenance()['table'] == 'made up'


def test_values_above_the_mean_are_ones(table: Path) -> None:
    bank = ClassEmbeddingBank(
        dict(type='attributes', table=str(table), binarize=True), normalize=True
    )
    rows = bank.embed(['cat', 'sea lion']).embeddings
    torch.testing.assert_close(rows, torch.tensor([[0.5**0.5, 0.5**0.5], [1.0, 0.0]]))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (('cat,1', 'cat,x'), "line 3, column 'fur': 'x' is no number"),
        (('fish,0,0', 'fish,0'), 'line 5: 2 cells, and the headings are 3'),
        (('fish', 'CAT'), "several lines for 'cat'"),
        (('fish,0,0', 'fish,1,0'), "all classes have the same value in 'fur'"),
    ],
)
def test_a_wrong_table_is_told_with_its_line(table: Path, change, message) -> None:
    table.write_text(TABLE.replace(*change))
    with pytest.raises(ValueError, match=message) as caught:
        AttributeSource(table).rows(['cat'], False, None)
    assert '\n' not in str(caught.value)


def test_classes_without_a_line_are_listed(table: Path) -> None:
    with pytest.raises(ValueError, match="no line for 'fisch', 'owl'") as caught:
        AttributeSource(table).rows(['cat', 'fisch', 'owl'], False, None)
    assert "Did you mean 'fish'" in str(caught.value)


def test_a_table_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(FileNotFoundError, match='cocostuff, shapes, voc'):
        AttributeSource('vocc')


SPLITS = {'shapes': 'shapes_a', 'voc': 'voc12_20', 'cocostuff': 'cocostuff_171'}


def test_shipped_tables_are_those_of_these_splits() -> None:
    for kind in ('attributes', 'hierarchies'):
        assert shipped_tables(kind) == sorted(SPLITS)


@pytest.mark.parametrize('name', SPLITS)
def test_shipped_attributes_tell_all_classes_apart(name: str) -> None:
    source = AttributeSource(name, binarize=True)
    rows = source.rows(get_split(SPLITS[name]).classes, False, None)
    assert len(rows.unique(dim=0)) == len(rows)
    assert 'authors of zs3_mmseg' in source.provenance()['table']
    assert (rows.sum(dim=1) > 0).all()


@pytest.mark.parametrize('name', SPLITS)
def test_shipped_trees_end_in_the_classes(name: str) -> None:
    tree, classes = Hierarchy(name), get_split(SPLITS[name]).classes
    paths = [tree.path(each) for each in classes]
    inner = {above for path in paths for above in path[:-1]}
    assert not inner & {*classes}
    assert len(paths) > len(inner) > 1
    assert max(map(len, paths)) == tree.depth


TREE = {'cat': 'pet', 'dog': 'pet', 'pet': 'animal', 'cow': 'animal', 'sky': None}


def test_paths_lead_from_the_top_to_a_name(tmp_path: Path) -> None:
    path = tmp_path / 'tree.csv'
    with path.open('w', newline='') as stream:
        csv.writer(stream).writerows([('name', 'parent'), *TREE.items()])
    for tree in (Hierarchy(TREE), Hierarchy(path)):
        assert tree.path('dog') == ('animal', 'pet', 'dog')
        assert tree.path('COW') == ('animal', 'COW')
        assert tree.path('sky') == ('sky',)
        assert tree.depth == 3


def test_a_circle_of_names_is_told() -> None:
    with pytest.raises(ValueError, match='in a circle') as caught:
        Hierarchy({'cat': 'pet', 'pet': 'friend', 'friend': 'pet'})
    assert {'pet', 'friend'} < {*str(caught.value).replace(':', '').split()}
    assert 'cat' not in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_name_that_is_in_no_tree_has_close_ones() -> None:
    with pytest.raises(ValueError, match="no place for 'cta'\\. Did you mean 'cat'"):
        Hierarchy(TREE).path('cta')


def test_other_headings_are_no_tree(table: Path) -> None:
    with pytest.raises(ValueError, match='name,parent, not name,fur,legs'):
        Hierarchy(table)


def test_a_name_has_a_row_for_each_level(tmp_path: Path) -> None:
    words = ['cat', 'dog', 'pet', 'animal', 'cow', 'sky', 'under']
    vectors = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    file = tmp_path / 'words.txt'
    file.write_text(
        ''.join(
            f'{word} {" ".join(map(str, row))}\n'
            for word, row in zip(words, vectors.tolist(), strict=True)
        )
    )
    row = dict(zip(words, vectors, strict=True))
    bank = ClassEmbeddingBank(
        dict(type='vectors', path=file),
        hierarchy=TREE,
        kind_of='{name} under {parent}',
        normalize=False,
    )
    made = bank.embed(['dog', 'cow|sky'])
    assert (made.prompts_per_row, bank.prompts_per_row) == (3, 3)
    assert made.query_to_class.tolist() == [0, 1, 1]
    pet = (row['pet'] + row['under'] + row['animal']) / 3
    dog = (row['dog'] + row['under'] + row['pet']) / 3
    cow = (row['cow'] + row['under'] + row['animal']) / 3
    expected = [row['animal'], pet, dog, row['animal'], cow, cow, *[row['sky']] * 3]
    torch.testing.assert_close(made.embeddings, torch.stack(expected))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(kind_of='{name}, a {parent}'), 'belongs to class_embeddings.hierarchy'),
        (dict(hierarchy=TREE, kind_of='a thing'), 'must hold {name}'),
        (dict(hierarchy=TREE, token_features=True), 'so does token_features=True'),
    ],
)
def test_options_of_trees_that_do_not_fit_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        ClassEmbeddingBank(dict(type='vectors', path='w.txt'), **options)
