"""Names that no head can tell apart: what is said of them, and said again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from zs3_mmseg.models.class_embeddings import class_vectors
from zs3_mmseg.models.class_embeddings.queries import equal_rows
from zs3_mmseg.models.segmentors.vocabulary import Vocabulary

LONG = ' '.join(['cat'] * 30)


@pytest.fixture
def clip_text(tmp_path: Path, tiny_clip, tiny_config, monkeypatch) -> dict:
    monkeypatch.setenv('ZS3_MMSEG_CACHE', str(tmp_path / 'cache'))
    torch.save(tiny_clip().state_dict(), tmp_path / 'weights.pt')
    return dict(
        type='clip_text', arch=tiny_config(), pretrained=tmp_path / 'weights.pt'
    )


@pytest.fixture
def vectors(tmp_path: Path) -> dict:
    (tmp_path / 'words.vec').write_text('2 2\ncat 1 0\nlight 0 1\n')
    return dict(type='vectors', path=tmp_path / 'words.vec')


@pytest.fixture
def rows(tmp_path: Path) -> dict:
    np.save(tmp_path / 'rows.npy', np.array([[1.0, 2], [3, 4], [1, 2]]))
    return dict(
        type='tensor', path=tmp_path / 'rows.npy', names=['cat', 'dog', 'old cat']
    )


def said_of(source: dict, names: list[str], log: list, **options) -> str:
    """Return the warnings of a new model with these classes."""
    log.clear()
    bank = dict(type='ClassEmbeddingBank', source=source, **options)
    split = dict(classes=names, unseen=names[1:])
    vocabulary = Vocabulary(split, 'inductive', bank)
    for which in ('training', 'current', 'current'):
        vocabulary.queries(which, torch.device('cpu'), torch.float32)
    return '\n'.join(r.getMessage() for r in log if r.levelno >= logging.WARNING)


@pytest.mark.parametrize(
    ('source', 'names', 'options'),
    [
        ('clip_text', [f'{LONG} star', f'{LONG} tree', 'dog'], {}),
        ('clip_text', [f'{LONG} star', f'dog|{LONG} tree', 'owl'], {}),
        (
            'clip_text',
            [f'{LONG} star', f'{LONG} tree', 'dog'],
            dict(templates=['a {}', 'the {}'], reduce_templates=False),
        ),
        ('clip_text', ['cat & dog', 'cat &amp; dog', 'owl'], {}),
        ('vectors', ['traffic light', 'street_light', 'cat'], {}),
        ('vectors', ['light cat', 'cat-light', 'light'], {}),
        ('rows', ['cat', 'old cat', 'dog'], {}),
    ],
)
def test_two_names_with_one_row_are_told_every_time(
    source: str, names: list[str], options: dict, request, log
) -> None:
    config = request.getfixturevalue(source)
    first = said_of(config, names, log, **options)
    assert first.count('embeddings of these names are the same') == 1
    assert f'{names[0]!r} and {names[1]!r}' in first
    assert repr(names[2]) not in first
    assert said_of(config, names, log, **options) == first  # now from the cache


@pytest.mark.parametrize(
    ('source', 'names', 'word'),
    [
        ('clip_text', [f'{LONG} star', 'dog'], 'cut to the 12 tokens'),
        ('clip_text', ['dog', f'cat|{LONG}'], 'cut to the 12 tokens'),
        ('vectors', ['traffic light', 'cat'], 'no vectors for these words'),
    ],
)
def test_what_a_source_leaves_out_of_a_name_is_told_every_time(
    source: str, names: list[str], word: str, request, log
) -> None:
    config = request.getfixturevalue(source)
    first = said_of(config, names, log)
    assert word in first
    assert 'are the same' not in first
    assert said_of(config, names, log) == first


@pytest.mark.parametrize(
    ('source', 'names'),
    [
        ('clip_text', ['cat', 'dog', 'old cat']),
        ('clip_text', ['cat & dog|cat &amp; dog', 'owl']),  # of one class
        ('vectors', ['light', 'cat', 'cat light']),
        ('rows', ['cat', 'dog']),
    ],
)
def test_nothing_is_said_of_names_that_differ(source, names, request, log) -> None:
    assert said_of(request.getfixturevalue(source), names, log) == ''


def test_vectors_of_generated_features_are_compared_too(vectors: dict, log) -> None:
    class_vectors(dict(source=vectors), ['traffic light', 'street light', 'cat'])
    assert "'traffic light' and 'street light'" in log[-1].getMessage()


def _shuffled(count: int, dim: int) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    rows = torch.nn.functional.normalize(torch.randn(count, dim), dim=1)
    rows[7] = rows[3] + 1e-7
    rows[count - 1] = rows[5]
    return rows, [(3, 7), (5, count - 1)]


@pytest.mark.parametrize('make', [lambda: _shuffled(40, 6), lambda: _shuffled(900, 64)])
def test_equal_rows_are_found_wherever_they_stand(
    make: Callable[[], tuple[torch.Tensor, list[tuple[int, int]]]],
) -> None:
    torch.manual_seed(0)
    rows, expected = make()
    assert equal_rows(rows, range(len(rows))) == expected
    assert equal_rows(100 * rows, range(len(rows))) == expected
    assert equal_rows(rows[:1], [0]) == []
