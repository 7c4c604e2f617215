"""At every instant of a training there is a checkpoint to go on from."""

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from zs3_mmseg.utils.checkpoint import safe_load

IMPORTS = ['zs3_mmseg', 'tiny_run_parts', 'file_events']
# As ESDA's published schedule has it, and without processes that only load data.
KEEP_ONE = (
    'default_hooks.checkpoint.max_keep_ckpts=1',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
)
RUN = 'work_dirs/tiny_run'


def train(
    run_tool,
    config: Path,
    folder: Path,
    *flags: str,
    hooks: Sequence[dict] = (),
    processes: int = 1,
):
    watched = folder / 'tiny_run.py'
    hooks = [{'type': 'EMAHook', 'momentum': 0.1}, *hooks]
    watched.write_text(
        f'_base_ = {str(config)!r}\ncustom_imports = dict(imports={IMPORTS})\n'
        f'custom_hooks = {hooks}\n'
    )
    options = ('--cfg-options', *KEEP_ONE)
    arguments = ('train.py', watched, *flags, *options)
    return run_tool(*arguments, folder=folder, processes=processes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safe_load(folder / RUN / 'iter_12.pth')['state_dict']


@pytest.fixture(scope='module')
def whole(run_tool, tiny_config, tmp_path_factory) -> tuple[Path, list[str]]:
    """Return the folder of a watched run, and what happened to its checkpoints."""
    folder = tmp_path_factory.mktemp('whole')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('FILE_EVENTS', str(folder / 'events.txt'))
        assert train(run_tool, tiny_config, folder).status == 0
    return folder, (folder / 'events.txt').read_text().splitlines()


def test_one_checkpoint_is_always_loadable(whole) -> None:
    folder, events = whole
    removed = [event for event in events if event.startswith('os.remove iter_')]
    assert len(removed) == 2  # iter_4 and iter_8
    first = next(n for n, event in enumerate(events) if event.endswith(' 1'))
    assert not any(event.endswith(' 0') for event in events[first:])
    assert [path.name for path in (folder / RUN).glob('iter_*')] == ['iter_12.pth']


def test_killed_before_the_old_one_goes(
    run_tool, tiny_config, whole, tmp_path, monkeypatch
) -> None:
    folder, events = whole
    place = next(n for n, e in enumerate(events, 1) if e.startswith('os.remove iter_4'))
    monkeypatch.setenv('KILL_AT', str(place))
    assert train(run_tool, tiny_config, tmp_path).status == -signal.SIGKILL
    assert {p.name for p in (tmp_path / RUN).glob('iter_*')} == {
        'iter_4.pth',
        'iter_8.pth',
    }
    monkeypatch.delenv('KILL_AT')
    resumed = train(run_tool, tiny_config, tmp_path, '--resume')
    assert resumed.status == 0
    assert 'iter: 8' in resumed.output
    found, expected = weights(tmp_path), weights(folder)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends(
    run_tool, tiny_config, whole, tmp_path, number
) -> None:
    stop = dict(type='KillAfter', iteration=6, number=int(number))
    stopped = train(run_tool, tiny_config, tmp_path, hooks=[stop])
    assert stopped.status == 128 + number
    assert f'Stopped by {number.name} after iteration 6' in stopped.output
    assert 'Traceback' not in stopped.output
    resumed = train(run_tool, tiny_config, tmp_path, '--resume')
    assert 'iter: 6' in resumed.output
    found, expected = weights(tmp_path), weights(whole[0])
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_signal_to_one_of_two_processes_ends_both(
    run_tool, tiny_config, tmp_path
) -> None:
    folders = [tmp_path / name for name in ('whole', 'stopped')]
    for folder in folders:
        folder.mkdir()
    assert train(run_tool, tiny_config, folders[0], processes=2).status == 0
    stop = dict(type='KillAfter', iteration=6, number=int(signal.SIGTERM), rank=1)
    stopped = train(run_tool, tiny_config, folders[1], hooks=[stop], processes=2)
    assert stopped.status == 128 + signal.SIGTERM
    # Processes ask each other after every tenth iteration.
    assert 'Stopped by SIGTERM after iteration 10' in stopped.output
    assert 'Traceback' not in stopped.output
    resumed = train(run_tool, tiny_config, folders[1], '--resume', processes=2)
    assert 'iter: 10' in resumed.output
    expected, found = map(weights, folders)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_full_disk(run_tool, tiny_config, whole, tmp_path, monkeypatch) -> None:
    saves = [n for n, e in enumerate(whole[1], 1) if e.startswith('open .checkpoint')]
    monkeypatch.setenv('FULL_AT', str(saves[3]))  # iter_8
    stopped = train(run_tool, tiny_config, tmp_path)
    assert stopped.status == 2
    assert 'iter_8.pth could not be saved (File too large)' in stopped.output
    assert 'Traceback' not in stopped.output
    assert {p.name for p in (tmp_path / RUN).glob('*iter_*')} == {
        'best_mIoU_iter_4.pth',
        'iter_4.pth',
    }
    assert not [*(tmp_path / RUN).glob('.*')]


def test_a_best_checkpoint_that_is_gone(run_tool, tiny_config, whole, tmp_path) -> None:
    stop = dict(type='KillAfter', iteration=5)
    train(run_tool, tiny_config, tmp_path, hooks=[stop])
    (tmp_path / RUN / 'best_mIoU_iter_4.pth').unlink()
    resumed = train(run_tool, tiny_config, tmp_path, '--resume')
    assert resumed.status == 0
    assert resumed.output.count('best_mIoU_iter_4.pth of this run is gone') == 1
    assert len([*(tmp_path / RUN).glob('best_*')]) == 1


def test_a_run_that_left_nothing_is_told(run_tool, tiny_config, tmp_path) -> None:
    stop = dict(type='KillAfter', iteration=2)
    train(run_tool, tiny_config, tmp_path, hooks=[stop])
    time.sleep(1)  # runs are told apart by the second they began in
    again = train(run_tool, tiny_config, tmp_path, '--resume', hooks=[stop])
    assert 'has left none, so training starts from the beginning' in again.output
