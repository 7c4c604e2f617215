"""A toy proposer through the tools, from its config alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zs3_mmseg.utils.cache import CACHE_ENV

CONFIG = Path(__file__).resolve().parents[1] / 'data/tiny_run/proposals.py'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_ENV, str(tmp_path / 'cache'))
    return tmp_path


def test_a_proposer_is_tested_and_its_masks_are_kept(run_tool, folder: Path) -> None:
    for mode in ('whole', 'slide'):
        option = ['--cfg-options', f'model.test_cfg.mode={mode}']
        tested = run_tool('test.py', CONFIG, *option, folder=folder)
        assert tested.status == 0, tested.output
        found = re.search(r'mIoU: (\d+\.\d+)', tested.output)
        assert found is not None
        assert float(found[1]) > 0
        # One entry per picture, whatever windows there were.
        assert len(list((folder / 'cache/proposals').iterdir())) == 7


def test_it_says_that_there_is_nothing_to_train(run_tool, folder: Path) -> None:
    trained = run_tool('train.py', CONFIG, folder=folder)
    assert trained.status != 0
    assert 'nothing in this model learns: use tools/test.py' in trained.output
