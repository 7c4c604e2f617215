"""What tools answer before they import anything that takes seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
# Others offer choices that stand in the package.
QUICK = [
    'test.py',
    'train.py',
    'segment.py',
    'check_data.py',
    'make_pseudo_labels.py',
    'analysis_tools/benchmark.py',
    'analysis_tools/draw_shapes.py',
    'analysis_tools/get_flops.py',
    'analysis_tools/tune_on_val.py',
    'misc/print_config.py',
    'misc/publish_model.py',
]
PROGRAM = """
import os, runpy, sys
tools, flag, status = sys.argv[3:], sys.argv[1], int(sys.argv[2])
for tool in tools:
    sys.argv, sys.path[0] = [tool, flag], os.path.dirname(tool)
    try:
        runpy.run_path(tool, run_name='__main__')
    except SystemExit as end:
        assert end.code == status, tool
    slow = {'torch', 'mmseg', 'zs3_mmseg'} & sys.modules.keys()
    assert not slow, f'{tool} imported {slow}'
"""


@pytest.mark.parametrize(('flag', 'status'), [('--help', 0), ('--no-such-flag', 2)])
def test_help_and_mistakes_wait_for_no_import(flag: str, status: int) -> None:
    paths = [str(TOOLS / name) for name in QUICK]
    command = [sys.executable, '-c', PROGRAM, flag, str(status), *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
