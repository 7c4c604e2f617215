"""What ``import zs3_mmseg`` does, and what it leaves alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Run in a fresh interpreter: a hook refuses every network event, then the import is
#: made and the facts are written to the file named on the command line.
PROBE = """
import json, sys

def refuse_network(event, args):
    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.sendto'):
        raise RuntimeError(f'{event} {args}')

sys.addaudithook(refuse_network)
import zs3_mmseg
from mmengine.config.utils import MODULE2PACKAGE
from mmseg.registry import DATASETS, HOOKS, METRICS, MODELS

registries = dict(models=MODELS, datasets=DATASETS, hooks=HOOKS, metrics=METRICS)
facts = dict(
    modules=sorted(sys.modules),
    file=zs3_mmseg.__file__,
    version=zs3_mmseg.__version__,
    hub_name=MODULE2PACKAGE.get('zs3_mmseg'),
    registered={
        kind: sorted(
            name for name, item in registry.module_dict.items()
            if item.__module__.startswith('zs3_mmseg.')
        )
        for kind, registry in registries.items()
    },
)
with open(sys.argv[1], 'w') as stream:
    json.dump(facts, stream)
"""


@pytest.fixture(scope='module')
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The facts about one import in a fresh interpreter, in a foreign folder."""
    folder = tmp_path_factory.mktemp('import')
    cwd = folder / 'cwd'
    cwd.mkdir()
    environment = {
        **os.environ,
        'PYTHONPATH': str(ROOT),
        'ZS3_MMSEG_CACHE': str(folder / 'cache'),
    }
    done = subprocess.run(
        [sys.executable, '-W', 'error', '-c', PROBE, str(folder / 'facts.json')],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads((folder / 'facts.json').read_text())
    written = [*cwd.iterdir(), *folder.glob('cache')]
    return {**facts, 'said': done.stdout + done.stderr, 'written': written}


def test_import_says_nothing(imported: dict[str, Any]) -> None:
    assert imported['said'] == ''


def test_import_writes_no_file(imported: dict[str, Any]) -> None:
    assert imported['written'] == []


def test_import_leaves_open_clip_alone(imported: dict[str, Any]) -> None:
    assert 'mmseg.models' in imported['modules']
    assert 'open_clip' not in imported['modules']


def test_import_makes_the_package_known_to_the_hub(imported: dict[str, Any]) -> None:
    assert imported['hub_name'] == 'zs3_mmseg'


@pytest.mark.parametrize(
    ('kind', 'names'),
    [
        (
            'models',
            {
                'ClassEmbeddingBank',
                'DenseTextHead',
                'ImageLevelGate',
                'OpenCLIPViT',
                'SeenShift',
                'TextPixelHead',
                'ZeroShotEncoderDecoder',
                'ZeroShotTTAModel',
            },
        ),
        ('datasets', {'ShapesDataset', 'ZeroShotDataset'}),
        ('hooks', {'ProtocolCheckHook', 'RandomStateHook'}),
        ('metrics', {'ZeroShotIoUMetric'}),
    ],
)
def test_import_registers(imported: dict[str, Any], kind: str, names: set[str]) -> None:
    assert names <= set(imported['registered'][kind])


def test_no_module_of_ours_names_compiled_ops() -> None:
    sources = (ROOT / 'zs3_mmseg').rglob('*.py')
    users = [path for path in sources if 'mmcv.ops' in path.read_text(encoding='utf-8')]
    assert users == []
