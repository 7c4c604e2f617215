"""The page and the file that the demo ends with."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.utils.experiments import Outcome

TOOL = Path(__file__).resolve().parents[2] / 'tools/_demo_report.py'


@pytest.fixture(scope='module')
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location('_demo_report', TOOL)
    module = importlib.util.module_from_spec(spec)
    # Its dataclass looks itself up there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def outcome(seen: float, unseen: float, both: float, seconds: float) -> Outcome:
    scores = {'mIoU_seen': seen, 'mIoU_unseen': unseen, 'hIoU': both, 'mIoU': 1.0}
    scores['hBIoU'] = both / 2
    return Outcome({'test': scores}, seconds, 3.0, None, 'hash')


def test_every_figure_is_in_both_files(tool: ModuleType, tmp_path: Path) -> None:
    report = tool.DemoReport(
        outcomes={
            'dense_clip': outcome(42.71, 46.04, 44.31, 0.0),
            'finetune_ce': outcome(60.66, 22.14, 32.44, 81.6),
        },
        iterations={'finetune_ce': 160},
        split=get_split('shapes_a'),
        seconds={'data': 12.4, 'training': 81.6},
        gate=0.125,
        seed=7,
    )
    page = report.write(tmp_path).read_text()
    rows = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in page.splitlines()
        if line.startswith('| `')
    ]
    assert [row[0] for row in rows] == ['`dense_clip`', '`finetune_ce`']
    assert rows[0][2:] == ['42.7', '46.0', '**44.3**', '22.2', '0', '0']
    assert rows[1][2:] == ['60.7', '22.1', '**32.4**', '16.2', '160', '82']
    assert 'car, mushroom, butterfly, rocket, bricks' in page
    assert '| training | 82 |' in page
    found = json.loads((tmp_path / 'report.json').read_text())
    assert found['methods']['finetune_ce'] == {
        'mIoU_seen': 60.66,
        'mIoU_unseen': 22.14,
        'hIoU': 32.44,
        'hBIoU': 16.22,
        'train_seconds': 81.6,
        'iterations': 160,
    }
    assert (found['split'], found['gate_weight'], found['seed']) == (
        'shapes_a',
        0.125,
        7,
    )
    assert found['environment']['cpus'] >= 1


def test_chance_is_that_of_random_guesses(tool: ModuleType, tmp_path: Path) -> None:
    # Of K classes of equal size, guessed evenly, each has 1 / K^2 of all pixels right,
    # and a union of 1 / K + 1 / K - 1 / K^2.
    split = get_split('shapes_a')
    share = 1 / len(split.classes)
    chance = share**2 / (2 * share - share**2)
    page = tool.DemoReport({}, {}, split, {}, 0.0, 0).page()
    assert f'{100 * chance:.1f} where all classes' in page
