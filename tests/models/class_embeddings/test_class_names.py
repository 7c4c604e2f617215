from __future__ import annotations

import pytest

from zs3_mmseg.models.class_embeddings import display_name, split_names, synonyms_of


def test_synonyms_are_rows_of_one_class() -> None:
    texts, classes = split_names(['cat', 'sofa | couch', 'traffic  light'])
    assert texts == ['cat', 'sofa', 'couch', 'traffic light']
    assert classes == [0, 1, 1, 2]
    assert synonyms_of('sofa|couch') == ('sofa', 'couch')
    assert display_name(' sofa|couch') == 'sofa'


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        ([], 'expected a list of class names'),
        ('cat', "expected a list of class names, got 'cat'"),
        (['cat', ' '], "' ' is empty"),
        (['cat', 'sofa||couch'], 'empty synonym'),
        (['cat', 3], r'must be strings, got \[3\]'),
        (['cat', 'dog', 'Cat', 'dog '], 'more than once: cat, dog'),
        (['sofa|couch', 'Couch'], 'more than once: couch'),
    ],
)
def test_useless_names_are_errors(names, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_names(names)
