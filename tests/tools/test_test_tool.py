"""tools/test.py with and without weights, and what it writes."""

import json
from pathlib import Path

import pytest
import torch

WEIGHTS = 'work_dirs/tiny_run/iter_12.pth'


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / 'metrics.json').read_text())


@pytest.fixture(scope='module')
def alone(run_tool, tiny_config, trained: Path) -> dict:
    finished = run_tool(
        'test.py', tiny_config, WEIGHTS, '--work-dir', 'alone', folder=trained
    )
    assert finished.status == 0, finished.output
    return metrics_of(trained / 'alone')


def test_metrics_are_written(alone: dict) -> None:
    assert 0 < alone['mIoU'] <= 100


def test_two_processes_agree_with_one(run_tool, tiny_config, trained, alone) -> None:
    flags = ['--work-dir', 'several']
    finished = run_tool(
        'test.py', tiny_config, WEIGHTS, *flags, folder=trained, processes=2
    )
    assert finished.status == 0, finished.output
    several = metrics_of(trained / 'several')
    assert {key: several[key] for key in ('aAcc', 'mIoU', 'mAcc')} == {
        key: alone[key] for key in ('aAcc', 'mIoU', 'mAcc')
    }


def test_predictions_and_pictures_are_kept(run_tool, tiny_config, trained) -> None:
    flags = ['--out', 'maps', '--show-dir', 'painted', '--tta', '--work-dir', 'tta']
    finished = run_tool('test.py', tiny_config, *flags, WEIGHTS, folder=trained)
    assert finished.status == 0, finished.output
    assert len(list((trained / 'maps').glob('*.png'))) == 7
    assert list((trained / 'painted').rglob('*.png'))


def test_learnt_model_without_weights_is_refused(
    run_tool, tiny_config, trained
) -> None:
    finished = run_tool('test.py', tiny_config, folder=trained)
    assert finished.status == 2
    assert 'parameters of this model learn (backbone.' in finished.output
    assert 'CHECKPOINT' in finished.output


@pytest.mark.parametrize('processes', [1, 2])
def test_nothing_learnt_needs_no_weights(
    run_tool, tiny_config, trained, tmp_path, processes
) -> None:
    options = ['--cfg-options', 'model.type=FrozenEncoderDecoder', 'custom_hooks=[]']
    finished = run_tool(
        'test.py', tiny_config, *options, folder=tmp_path, processes=processes
    )
    assert finished.status == 0, finished.output
    assert 'mIoU' in metrics_of(tmp_path / 'work_dirs/tiny_run')


def test_weights_must_fit_unless_allowed(run_tool, tiny_config, trained) -> None:
    state = torch.load(trained / WEIGHTS, weights_only=False)['state_dict']
    state['decode_head.conv_seg.weight'] = torch.zeros(4, 8, 1, 1)
    torch.save(state, trained / 'other.pth')
    refused = run_tool('test.py', tiny_config, 'other.pth', folder=trained)
    assert refused.status == 2
    assert '1 of another shape: decode_head.conv_seg.weight' in refused.output
    flags = ['--allow-missing', '--work-dir', 'allowed']
    allowed = run_tool('test.py', tiny_config, 'other.pth', *flags, folder=trained)
    assert allowed.status == 0
