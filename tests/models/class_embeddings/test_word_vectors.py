from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from zs3_mmseg.models.class_embeddings.sources import WordVectorSource, words_of

VECTORS = {
    'cat': [1.0, 2.0, 3.0],
    'traffic': [0.5, 0.0, -1.0],
    'light': [1.5, 4.0, 1.0],
    'Cat': [9.0, 9.0, 9.0],
    'na\u00efve': [0.0, 3.0, 4.0],
}


def _glove(path: Path) -> Path:
    lines = [f'{word} {" ".join(map(str, row))}' for word, row in VECTORS.items()]
    lines.insert(2, 'light at night 1 2 3')  # GloVe has tokens with spaces
    (path / 'glove.txt').write_text('\n'.join(lines), encoding='utf-8')
    return path / 'glove.txt'


def _word2vec(path: Path) -> Path:
    text = _glove(path).read_text(encoding='utf-8')
    (path / 'w2v.vec').write_text(f'6 3\n{text}\n', encoding='utf-8')
    return path / 'w2v.vec'


def _binary(path: Path, end: bytes = b'\n') -> Path:
    entries = [
        word.encode() + b' ' + np.array(row, dtype='<f4').tobytes() + end
        for word, row in VECTORS.items()
    ]
    (path / 'w2v.bin').write_bytes(b'5 3\n' + b''.join(entries))
    return path / 'w2v.bin'


def _binary_without_breaks(path: Path) -> Path:
    return _binary(path, end=b'')


FORMS = [_glove, _word2vec, _binary, _binary_without_breaks]


@pytest.mark.parametrize('write', FORMS)
def test_rows_are_means_of_the_known_words(write, tmp_path: Path) -> None:
    source = WordVectorSource(write(tmp_path))
    names = ['Na\u00efve', 'traffic_light', 'CAT', 'traffic-cone', 'light  cat']
    rows = source.rows(names, False, None)
    expected = [[0.0, 3, 4], [1, 2, 0], [1, 2, 3], [0.5, 0, -1], [1.25, 3, 2]]
    torch.testing.assert_close(rows, torch.tensor(expected))
    assert source.dim == 3
    unit = source.rows(names[:1], True, None)
    torch.testing.assert_close(unit, torch.tensor([[0.0, 0.6, 0.8]]))


@pytest.mark.parametrize('write', FORMS)
def test_all_names_without_a_vector_are_listed(write, tmp_path: Path) -> None:
    source = WordVectorSource(write(tmp_path))
    with pytest.raises(ValueError, match=r"these names: 'tvmonitor', 'potted plant'\."):
        source.rows(['tvmonitor', 'cat', 'potted plant'], False, None)


@pytest.mark.parametrize('write', FORMS)
def test_many_names_without_a_vector_are_counted(write, tmp_path: Path) -> None:
    source = WordVectorSource(write(tmp_path))
    with pytest.raises(ValueError, match=r'1490 more \(1500 in all\)') as caught:
        source.rows([f'strange{index}' for index in range(1500)], False, None)
    assert len(str(caught.value)) < 500


def test_names_are_split_into_words() -> None:
    assert words_of(' Traffic_light-post  A ') == ['traffic', 'light', 'post', 'a']


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('cat 1 2 3\ndog 1 2\n', r"entry 2 \('dog'\) has 2 numbers, expected 3"),
        ('cat 1 2 3\ndog 1 x 3\n', r"entry 2 \('dog'\) holds no numbers"),
        ('', 'does not begin like'),
    ],
)
def test_a_damaged_text_file_is_named(
    content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / 'glove.txt').write_text(content)
    with pytest.raises(ValueError, match=rf'glove\.txt.*{message}'):
        WordVectorSource(tmp_path / 'glove.txt').rows(['dog'], False, None)


@pytest.mark.parametrize('cut', [1, 20, 50])
def test_a_cut_off_binary_file_is_named(cut: int, tmp_path: Path) -> None:
    path = _binary_without_breaks(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match=r'w2v\.bin is cut off'):
        WordVectorSource(path).rows(['no such word'], False, None)


def test_a_text_file_is_no_binary_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='does not begin like a word2vec file'):
        WordVectorSource(_glove(tmp_path), binary=True).rows(['cat'], False, None)


def test_a_missing_file_is_named_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'no\.txt of class_embeddings\.source'):
        WordVectorSource(tmp_path / 'no.txt').rows(['cat'], False, None)


@pytest.mark.parametrize('write', FORMS)
def test_words_that_are_not_there_have_close_ones(write, tmp_path: Path) -> None:
    source = WordVectorSource(write(tmp_path))
    with pytest.raises(ValueError, match="no word of these names: 'trafic'") as caught:
        source.rows(['cat', 'trafic'], False, None)
    assert "Did you mean 'traffic'" in str(caught.value)
    assert '\n' not in str(caught.value)
