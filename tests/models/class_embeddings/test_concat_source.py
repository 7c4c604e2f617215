"""Rows of several sources side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank

NAMES = ['cat', 'dog']


def bank(folder: Path, **options: object) -> ClassEmbeddingBank:
    parts = []
    for number, width in enumerate((3, 2)):
        rows = np.random.default_rng(number).normal(size=(2, width)) * (1 + 3 * number)
        np.save(folder / f'{number}.npy', rows.astype(np.float32))
        path = str(folder / f'{number}.npy')
        parts.append(dict(type='tensor', path=path, names=NAMES))
    return ClassEmbeddingBank(dict(type='concat', parts=parts, **options))


@pytest.mark.parametrize('each', [False, True])
def test_parts_stand_side_by_side(each: bool, tmp_path: Path) -> None:
    built = bank(tmp_path, normalize_parts=each)
    rows = built.embed(['dog', 'cat']).embeddings
    parts = [torch.from_numpy(np.load(tmp_path / f'{n}.npy'))[[1, 0]] for n in (0, 1)]
    if each:
        parts = [F.normalize(part) for part in parts]
    torch.testing.assert_close(rows, F.normalize(torch.cat(parts, dim=1)))
    assert built.dim == 5


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        (dict(parts=[]), 'two parts or more'),
        (dict(parts=[dict(type='tensors', path='a.npy')]), "Did you mean 'tensor'"),
        (dict(parts=[dict(type='tensor', path='a.npy', file=1)]), "'tensor'.*file"),
    ],
)
def test_what_makes_no_rows_is_named(source: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassEmbeddingBank(dict(type='concat', **source))
