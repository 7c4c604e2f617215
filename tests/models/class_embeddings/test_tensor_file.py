from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from zs3_mmseg.models.class_embeddings.sources import TensorSource
from zs3_mmseg.utils.checkpoint import UnsafeCheckpointError

ROWS = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])
NAMES = ['cat', 'dog', 'tv monitor']


def _npy(path: Path) -> Path:
    np.save(path / 'rows.npy', ROWS.numpy().astype(np.float16))
    return path / 'rows.npy'


def _tensor(path: Path) -> Path:
    torch.save(ROWS.double(), path / 'rows.pt')
    return path / 'rows.pt'


def _dict(path: Path) -> Path:
    torch.save(dict(embeddings=ROWS, other=torch.zeros(1)), path / 'rows.pth')
    return path / 'rows.pth'


def _safetensors(path: Path) -> Path:
    save_file(dict(anything=ROWS), path / 'rows.safetensors')
    return path / 'rows.safetensors'


@pytest.mark.parametrize('write', [_npy, _tensor, _dict, _safetensors])
def test_every_form_of_file_gives_the_rows_as_they_are(write, tmp_path: Path) -> None:
    source = TensorSource(write(tmp_path))
    rows = source.rows(NAMES, False, None)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, ROWS)
    assert source.dim == 2


def test_rows_are_scaled_on_request(tmp_path: Path) -> None:
    rows = TensorSource(_npy(tmp_path)).rows(NAMES, True, None)
    assert torch.equal(rows, torch.tensor([[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]]))


@pytest.mark.parametrize('place', ['argument', 'list', 'object', 'inside'])
def test_named_rows_are_found_by_name(place: str, tmp_path: Path) -> None:
    path, names = _npy(tmp_path), None
    if place == 'argument':
        names = NAMES
    elif place == 'inside':
        path = tmp_path / 'rows.pt'
        torch.save(dict(embeddings=ROWS, names=NAMES), path)
    else:
        content = NAMES if place == 'list' else dict(names=NAMES)
        (tmp_path / 'rows.json').write_text(json.dumps(content))
    source = TensorSource(path, names=names)
    rows = source.rows(['TV monitor', 'cat'], False, None)
    assert torch.equal(rows, ROWS[[2, 0]])
    with pytest.raises(ValueError, match=r"no rows for 'dgo', 'bus'.*mean 'dog'"):
        source.rows(['cat', 'dgo', 'bus'], False, None)


def test_rows_without_names_must_fit_the_classes(tmp_path: Path) -> None:
    source = TensorSource(_npy(tmp_path))
    with pytest.raises(ValueError, match=r'3 rows without names, but 2 .*rows\.json'):
        source.rows(NAMES[:2], False, None)


def _object_array(path: Path) -> Path:
    np.save(path / 'rows.npy', np.array([dict()]), allow_pickle=True)
    return path / 'rows.npy'


def _cube(path: Path) -> Path:
    np.save(path / 'rows.npy', np.zeros((2, 3, 4)))
    return path / 'rows.npy'


def _texts(path: Path) -> Path:
    np.save(path / 'rows.npy', np.array(['cat']))
    return path / 'rows.npy'


def _two_tensors(path: Path) -> Path:
    torch.save(dict(a=ROWS, b=ROWS), path / 'rows.pt')
    return path / 'rows.pt'


def _bad_sidecar(path: Path) -> Path:
    (path / 'rows.json').write_text('{"classes": []}')
    return _npy(path)


@pytest.mark.parametrize(
    ('write', 'message'),
    [
        (_object_array, r'rows\.npy is no plain \.npy array'),
        (_cube, r'3 rows for each class: set .*source\.prompts_per_row=3'),
        (_texts, 'holds <U3, not numbers'),
        (_two_tensors, "rows under 'embeddings'"),
        (_bad_sidecar, r'rows\.json must hold the names'),
    ],
)
def test_a_file_of_something_else_is_named(write, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        TensorSource(write(tmp_path)).rows(NAMES, False, None)


def test_several_rows_of_a_name_stand_side_by_side(tmp_path: Path) -> None:
    path = _cube(tmp_path)  # 2 names, 3 rows of 4 each
    source = TensorSource(path, names=['a', 'b'], prompts_per_row=3)
    assert (source.dim, source.prompts_per_row) == (4, 3)
    expected = torch.from_numpy(np.load(path)).float()[1]
    assert torch.equal(source.rows(['b'], False, None), expected)


@pytest.mark.parametrize(
    ('names', 'message'),
    [(NAMES[:2], '3 rows, but 2 names'), (['a', 'b', 'A'], "several rows for 'a'")],
)
def test_names_must_fit_the_rows(names: list, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        TensorSource(_npy(tmp_path), names=names).rows(['a'], False, None)


def test_a_missing_file_is_named_with_its_key(tmp_path: Path) -> None:
    source = TensorSource(tmp_path / 'no.npy')
    with pytest.raises(
        FileNotFoundError, match=r'no\.npy of class_embeddings.source.p'
    ):
        source.rows(NAMES, False, None)
    with pytest.raises(ValueError, match=r'must end in \.npy'):
        TensorSource('rows.pkl')


class _Poison:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_poisoned_file_runs_nothing(tmp_path: Path) -> None:
    torch.save(_Poison(tmp_path / 'executed'), tmp_path / 'rows.pt')
    with pytest.raises(UnsafeCheckpointError):
        TensorSource(tmp_path / 'rows.pt').rows(NAMES, False, None)
    array = np.empty(1, dtype=object)
    array[0] = _Poison(tmp_path / 'executed')
    np.save(tmp_path / 'rows.npy', array, allow_pickle=True)
    with pytest.raises(ValueError, match=r'no plain \.npy array'):
        TensorSource(tmp_path / 'rows.npy').rows(NAMES, False, None)
    assert not (tmp_path / 'executed').exists()
