"""A toy head of masks through the tools, from its config alone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

CONFIG = Path(__file__).resolve().parents[1] / 'data/tiny_run/two_masks.py'


@pytest.mark.parametrize('mode', ['whole', 'slide'])
def test_a_head_of_masks_is_trained_and_tested(run_tool, tmp_path, mode) -> None:
    np.save(tmp_path / 'rows.npy', np.eye(3, 4, dtype=np.float32))
    trained = run_tool('train.py', CONFIG, folder=tmp_path)
    assert trained.status == 0, trained.output
    assert 'decode.loss_ce' in trained.output
    weights = 'work_dirs/two_masks/iter_12.pth'
    option = ['--cfg-options', f'model.test_cfg.mode={mode}']
    tested = run_tool('test.py', CONFIG, weights, *option, folder=tmp_path)
    assert tested.status == 0, tested.output
    found = re.search(r'mIoU: (\d+\.\d+)', tested.output)
    assert found is not None
    assert float(found[1]) > 0
