"""Runs of methods through the tools; stand-ins here, that write what they got."""

from pathlib import Path

import pytest

from mmengine.config import Config

from zs3_mmseg.utils.experiments import (
    CommandFailed,
    ExperimentRunner,
    Method,
    shortened,
)

TRAIN = """
import sys
from pathlib import Path
config, flag, folder, *rest = sys.argv[1:]
folder = Path(folder)
with Path('calls.txt').open('a') as calls:
    calls.write('resume\\n' if '--resume' in rest else 'train\\n')
if 'stop=now' in rest:
    sys.exit('out of paper')
(folder / 'iter_1.pth').write_text('weights')
(folder / 'last_checkpoint').write_text(str(folder / 'iter_1.pth'))
"""
TEST = """
import json, sys
from pathlib import Path
config, checkpoint, flag, folder, options, *pairs = sys.argv[1:]
assert Path(checkpoint).read_text() == 'weights'
subset = dict(pair.split('=', 1) for pair in pairs)
with Path('calls.txt').open('a') as calls:
    calls.write('test\\n')
scores = {'subset': subset['test_dataloader.dataset.dataset.subset']}
(Path(folder) / 'metrics.json').write_text(json.dumps(scores))
"""


@pytest.fixture
def method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Method:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'train.py').write_text(TRAIN)
    (tmp_path / 'test.py').write_text(TEST)
    config = tmp_path / 'config.py'
    config.write_text('width = 1\n')
    return Method('net', config, trained=True)


@pytest.fixture
def runner(tmp_path: Path) -> ExperimentRunner:
    return ExperimentRunner(tmp_path, tmp_path / 'runs')


def test_a_shorter_training_keeps_its_proportions() -> None:
    config = Config(
        dict(
            train_cfg=dict(max_iters=160),
            param_scheduler=[dict(end=80, total_steps=160), dict(begin=80, end=160)],
            custom_hooks=[dict(type='A'), dict(type='B', begin=80)],
        )
    )
    assert shortened(config, 4) == {
        'train_cfg.max_iters': 4,
        'param_scheduler.0.end': 2,
        'param_scheduler.0.total_steps': 4,
        'param_scheduler.1.begin': 2,
        'param_scheduler.1.end': 4,
        'custom_hooks.1.begin': 2,
    }


def test_a_warm_up_of_a_very_short_training_is_one_iteration() -> None:
    config = Config(
        dict(
            train_cfg=dict(max_iters=160),
            param_scheduler=[dict(begin=0, end=20), dict(begin=20, end=160)],
        )
    )
    options = shortened(config, 2)
    assert options['param_scheduler.0.end'] == options['param_scheduler.1.begin'] == 1
    assert options['param_scheduler.1.end'] == 2


def calls() -> list[str]:
    return Path('calls.txt').read_text().split()


def test_what_was_found_is_kept(runner: ExperimentRunner, method: Method) -> None:
    first = runner.run(method, options={'seed': 3})
    assert first.metrics == {'test': {'subset': 'test'}}
    assert runner.run(method, options={'seed': 3}) == first
    assert calls() == ['train', 'test']


def test_another_option_or_config_is_another_training(
    runner: ExperimentRunner, method: Method
) -> None:
    runner.run(method, options={'seed': 3})
    runner.run(method, options={'seed': 4})
    method.config.write_text('width = 2\n')
    runner.run(method, options={'seed': 4})
    assert calls() == ['train', 'test'] * 3


def test_another_subset_only_needs_tests(
    runner: ExperimentRunner, method: Method
) -> None:
    runner.run(method)
    found = runner.run(method, subsets=('test', 'test_hard'))
    assert list(found.metrics) == ['test', 'test_hard']
    assert calls() == ['train', 'test', 'resume', 'test', 'test']


def test_weights_of_another_training_are_another_test(
    runner: ExperimentRunner, method: Method
) -> None:
    second_look = Method('second_look', method.config)
    for seed in (3, 3, 4):
        trained = runner.run(method, options={'seed': seed})
        found = runner.run(second_look, weights=trained)
        assert found.checkpoint == trained.checkpoint
    assert calls() == ['train', 'test', 'test'] * 2


def test_a_tool_that_fails_is_told_with_its_last_words(
    runner: ExperimentRunner, method: Method
) -> None:
    with pytest.raises(CommandFailed, match=r'exited with 1.*\n(.*\n)*out of paper'):
        runner.run(method, options={'stop': 'now'})
    log = Path('runs/net/train.txt')
    assert log.read_text().strip() == 'out of paper'
    assert not Path('runs/net/outcome.json').exists()
