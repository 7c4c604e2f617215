from __future__ import annotations

import multiprocessing
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import torch
from torch import Tensor

from zs3_mmseg.models.class_embeddings.clip_text import cached_rows
from zs3_mmseg.utils import cache

ROWS = torch.arange(12.0).reshape(3, 4)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv('ZS3_MMSEG_CACHE', str(tmp_path))
    return tmp_path / 'class_embeddings'


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(cache, 'print_log', lambda text, **_: messages.append(text))
    return messages


def _never() -> Tensor:
    raise AssertionError('the rows are cached')


def test_rows_are_computed_once(folder: Path) -> None:
    assert torch.equal(cached_rows('key', (3, 4), lambda: ROWS), ROWS)
    assert torch.equal(cached_rows('key', (3, 4), _never), ROWS)
    assert [path.name for path in folder.iterdir()] == ['key.safetensors']


@pytest.mark.parametrize('damage', ['empty', 'cut off', 'another shape', 'no tensor'])
def test_damaged_rows_are_computed_again(
    damage: str, folder: Path, said: list[str]
) -> None:
    cached_rows('key', (3, 4), lambda: ROWS)
    path = folder / 'key.safetensors'
    content = path.read_bytes()
    if damage == 'another shape':
        cached_rows('other', (4, 3), lambda: ROWS.T)
        content = (folder / 'other.safetensors').read_bytes()
    size = {'empty': 0, 'cut off': len(content) - 5}.get(damage)
    path.write_bytes(b'no tensor' if damage == 'no tensor' else content[:size])
    assert torch.equal(cached_rows('key', (3, 4), lambda: ROWS), ROWS)
    assert len(said) == 1
    assert 'computed again' in said[0]
    assert torch.equal(cached_rows('key', (3, 4), _never), ROWS)


def test_a_failed_computation_leaves_nothing(folder: Path) -> None:
    with pytest.raises(AssertionError):
        cached_rows('key', (3, 4), _never)
    assert not folder.exists()


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    (tmp_path / 'file').touch()
    monkeypatch.setenv('ZS3_MMSEG_CACHE', str(tmp_path / 'file'))
    assert torch.equal(cached_rows('key', (3, 4), lambda: ROWS), ROWS)
    assert any('not cached' in message for message in said)


def _hammer(path: Path, start: Barrier, results: Queue) -> None:
    complaints: list[str] = []
    cache.print_log = lambda text, **_: complaints.append(text)
    start.wait()
    intact = True
    for _ in range(100):
        rows = cached_rows('key', (3, 4), lambda: ROWS)
        intact &= rows.tolist() == ROWS.tolist()
        path.unlink(missing_ok=True)
    results.put((intact, complaints))


@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
def test_two_processes_may_write_at_once(folder: Path) -> None:
    context = multiprocessing.get_context('fork')
    start, results = context.Barrier(2), context.Queue()
    arguments = (folder / 'key.safetensors', start, results)
    processes = [context.Process(target=_hammer, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert outcomes == [(True, [])] * 2
    assert not list(folder.iterdir())
