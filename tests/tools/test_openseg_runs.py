"""OpenSeg through the command-line tools, on captions of Shapes and of a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_lseg_runs import SHORT

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/openseg'
OPTIONS = ['--cfg-options', *SHORT, 'default_hooks.logger.interval=1']
pytestmark = pytest.mark.slow


def grounding_losses(folder: Path) -> list[float]:
    (log,) = folder.glob('work_dirs/**/vis_data/scalars.json')
    steps = [json.loads(line) for line in log.read_text().splitlines()]
    return [step['decode.loss_grounding'] for step in steps if 'loss' in step]


@pytest.mark.parametrize('name', ['shapes_tiny', 'shapes_tiny_superpixels'])
def test_captions_are_learned_from(run_tool, tmp_path: Path, name: str) -> None:
    config = CONFIGS / f'{name}.py'
    trained = run_tool('train.py', config, *OPTIONS, folder=tmp_path)
    assert trained.status == 0, trained.output
    losses = grounding_losses(tmp_path)
    assert len(losses) == 2
    assert all(0 < loss < 10 for loss in losses)
    checkpoint = tmp_path / f'work_dirs/openseg/{name}/iter_2.pth'
    tested = run_tool('test.py', config, checkpoint, *OPTIONS, folder=tmp_path)
    assert tested.status == 0, tested.output
    metrics = tmp_path / f'work_dirs/openseg/{name}/metrics.json'
    assert 'hIoU' in json.loads(metrics.read_text())


def test_all_words_are_a_choice_that_is_told(run_tool, tmp_path: Path) -> None:
    config = CONFIGS / 'shapes_tiny_unseen_words.py'
    trained = run_tool('train.py', config, *OPTIONS, folder=tmp_path)
    assert trained.status == 0, trained.output
    assert 'Results are weakly supervised' in trained.output


def test_captions_come_from_a_file(run_tool, tmp_path: Path) -> None:
    said = {f'{number:06d}': 'words that nobody looks for' for number in range(24)}
    (tmp_path / 'captions.json').write_text(json.dumps(said))
    (tmp_path / 'own.py').write_text(
        f"""
_base_ = ['{CONFIGS / 'shapes_tiny.py'}']
train_pipeline = [
    *_base_.train_pipeline[:-1],
    dict(type='LoadCaptions', path='captions.json'),
    _base_.train_pipeline[-1],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
"""
    )
    trained = run_tool('train.py', tmp_path / 'own.py', *OPTIONS, folder=tmp_path)
    assert trained.status == 0, trained.output
    # Those of Shapes itself would have told something.
    assert grounding_losses(tmp_path) == [0, 0]
