"""The tutorial notebook runs from its first cell to its last."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: What a notebook's kernel has, and a plain interpreter has not.
SHOWN = """
import sys, types
shown = []
sys.modules['IPython'] = types.ModuleType('IPython')
sys.modules['IPython.display'] = types.ModuleType('IPython.display')
sys.modules['IPython.display'].display = lambda made: shown.append(made._repr_png_())
"""


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    notebook = json.loads((ROOT / 'docs/tutorial.ipynb').read_text(encoding='utf-8'))
    code = [c for c in notebook['cells'] if c['cell_type'] == 'code']
    assert all(not cell['outputs'] for cell in code), 'outputs do not belong in git'
    parts = [SHOWN, *(''.join(cell['source']) for cell in code)]
    parts.append('print(len(shown), all(shown))')
    script = tmp_path / 'tutorial.py'
    script.write_text('\n\n'.join(parts), encoding='utf-8')
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'TMPDIR': str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == '5 True'
    assert 'hIoU' in done.stdout
