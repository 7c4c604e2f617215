"""The wheel, built offline and used from a foreign folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def files_below(folder: Path) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in folder.rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }


def test_wheel_carries_the_shipped_model(contents: set[str]) -> None:
    shipped = files_below(ROOT / 'zs3_mmseg' / 'assets')
    assert 'zs3_mmseg/assets/shapes_tiny/weights.safetensors' in shipped
    assert shipped <= contents


def test_wheel_carries_configs_and_tools_where_mmengine_looks(
    contents: set[str],
) -> None:
    expected = files_below(ROOT / 'configs') | files_below(ROOT / 'tools')
    expected.add('model-index.yml')
    found = {
        name.removeprefix('zs3_mmseg/.mim/')
        for name in contents
        if name.startswith('zs3_mmseg/.mim/')
    }
    assert found == expected


def test_wheel_installs_one_package_and_its_command(contents: set[str]) -> None:
    top_level = {name.split('/')[0] for name in contents}
    assert {name for name in top_level if not name.endswith('.dist-info')} == {
        'zs3_mmseg',
        'zs3_cli.py',
    }


def test_wheel_is_typed(contents: set[str]) -> None:
    assert 'zs3_mmseg/py.typed' in contents


PROBE = """
import json, sys
import zs3_mmseg
from mmengine.config import Config
from mmengine.hub import get_config
from zs3_mmseg.apis import init_segmentor

config = get_config('zs3_mmseg::clip_dense/shapes_tiny.py')
with open('own.py', 'w') as stream:
    stream.write("_base_ = 'zs3_mmseg::clip_dense/shapes_tiny_gate.py'")
inherited = Config.fromfile('own.py')
model = init_segmentor(config)
facts = dict(
    file=zs3_mmseg.__file__,
    config=config.filename,
    calibrators=[part['type'] for part in inherited.model.calibrators],
    classes=len(model.dataset_meta['classes']),
)
with open(sys.argv[1], 'w') as stream:
    json.dump(facts, stream)
"""


@pytest.fixture(scope='module')
def used_elsewhere(
    installed: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What a program in another folder sees of the installed wheel."""
    folder = tmp_path_factory.mktemp('elsewhere')
    cwd = folder / 'cwd'
    cwd.mkdir()
    done = subprocess.run(
        [sys.executable, '-c', PROBE, str(folder / 'facts.json')],
        cwd=cwd,
        env={
            **os.environ,
            'PYTHONPATH': str(installed),
            'ZS3_MMSEG_CACHE': str(folder / 'cache'),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads((folder / 'facts.json').read_text())
    return {**facts, 'site': str(installed)}


def test_the_installed_wheel_is_what_runs(used_elsewhere: dict[str, Any]) -> None:
    assert used_elsewhere['file'].startswith(used_elsewhere['site'])
    assert used_elsewhere['config'].startswith(used_elsewhere['site'])


def test_configs_inherit_by_package_name(used_elsewhere: dict[str, Any]) -> None:
    assert used_elsewhere['calibrators'] == ['ImageLevelGate']


def test_the_shipped_model_is_built_from_the_wheel(
    used_elsewhere: dict[str, Any],
) -> None:
    assert used_elsewhere['classes'] == 20


def test_the_command_finds_its_tools_in_the_wheel(
    installed: Path, tmp_path: Path
) -> None:
    (entry_points,) = installed.glob('*.dist-info/entry_points.txt')
    assert 'zs3 = zs3_cli:main' in entry_points.read_text()
    done = subprocess.run(
        [sys.executable, '-m', 'zs3_cli', 'list', '--path', 'zegclip/own_folder'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files = done.stdout.split()
    assert len(files) == 2
    assert all(file.startswith(str(installed)) for file in files)
