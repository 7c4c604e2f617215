"""Calibrators that learn from the test images, through the tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

CONFIG = Path(__file__).resolve().parents[2] / 'configs/clip_dense/shapes_tiny.py'
LOADER = dict(num_workers=0, persistent_workers=False)
CHAIN = [
    dict(type='EMPriorShift'),
    dict(type='GroupTemperature', seen=1.2),
    dict(type='UnseenMassMatch', mass=0.01),
    dict(type='VocabularyPruner', keep=8),
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    dataset = dict(dataset=dict(num_images=3, workers=1))
    lines = dict(
        _base_=str(CONFIG),
        custom_imports=dict(imports=['zs3_mmseg']),
        model=dict(calibrators=CHAIN),
        test_dataloader=dict(LOADER, dataset=dataset),
    )
    file = tmp_path / 'chain.py'
    file.write_text(''.join(f'{key} = {value!r}\n' for key, value in lines.items()))
    return file


def test_they_are_fitted_before_the_test(run_tool, config: Path) -> None:
    folder = config.parent
    flags = ['--fit-calibrators', '--work-dir', 'fitted']
    tested = run_tool('test.py', config, *flags, folder=folder)
    assert tested.status == 0, tested.output
    said = (
        'EMPriorShift, UnseenMassMatch learned from 3 images: results are transductive'
    )
    assert said in tested.output
    metrics = json.loads((folder / 'fitted/metrics.json').read_text())
    assert metrics['mIoU_seen'] > 10
    # Hardly a pixel may be unseen.
    assert metrics['mIoU_unseen'] < metrics['mIoU_seen']


def test_they_learn_from_every_view_of_augmentation(run_tool, config: Path) -> None:
    folder = config.parent
    flags = ['--fit-calibrators', '--tta', '--work-dir', 'views']
    tested = run_tool('test.py', config, *flags, folder=folder)
    assert tested.status == 0, tested.output
    assert 'learned from 3 images' in tested.output
    metrics = json.loads((folder / 'views/metrics.json').read_text())
    assert metrics['mIoU_seen'] > 10
    assert metrics['mIoU_unseen'] < metrics['mIoU_seen']


def test_without_a_fit_it_is_said(run_tool, config: Path) -> None:
    refused = run_tool('test.py', config, folder=config.parent)
    assert refused.status != 0
    message = 'EMPriorShift is not fitted: call segmentor.fit_calibrators'
    assert message in refused.output
