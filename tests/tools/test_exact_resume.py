"""A run that is killed and resumed ends with the weights of one that is not."""

from pathlib import Path

import pytest
import torch

from zs3_mmseg.utils.checkpoint import safe_load

pytestmark = pytest.mark.slow


def final_state(folder: Path) -> dict[str, torch.Tensor]:
    """Return every tensor a finished run left: weights, average, optimiser."""
    checkpoint = safe_load(folder / 'work_dirs/tiny_run/iter_12.pth')
    tensors = {
        f'{part}.{key}': value
        for part in ('state_dict', 'ema_state_dict')
        for key, value in checkpoint[part].items()
    }
    for number, moments in checkpoint['optimizer']['state'].items():
        tensors |= {f'optimizer.{number}.{key}': v for key, v in moments.items()}
    return tensors


def differing(first: Path, second: Path) -> list[str]:
    one, other = final_state(first), final_state(second)
    assert one.keys() == other.keys()
    return [key for key in one if not torch.equal(one[key], other[key])]


def train(run_tool, config: Path, folder: Path, *arguments: object, **kwargs):
    folder.mkdir(exist_ok=True)
    return run_tool('train.py', config, *arguments, folder=folder, **kwargs)


def write_killing(
    config: Path, folder: Path, iteration: int, **changes: object
) -> Path:
    """Write a config that inherits and kills itself after an iteration."""
    file = folder / 'killing.py'
    hooks = [
        {'type': 'EMAHook', 'momentum': 0.1},
        {'type': 'KillAfter', 'iteration': iteration},
    ]
    lines = {'_base_': str(config), 'custom_hooks': hooks}
    file.write_text(''.join(f'{key} = {value!r}\n' for key, value in lines.items()))
    return file


# Checkpoints are written after 4, 8 and 12 iterations, and once more after a
# validation that found a new best score.
@pytest.mark.parametrize('iteration', [5, 10])
def test_killed_and_resumed(
    run_tool, tiny_config, trained, tmp_path, iteration
) -> None:
    killing = write_killing(tiny_config, tmp_path, iteration)
    killed = train(run_tool, killing, tmp_path, '--work-dir', 'work_dirs/tiny_run')
    assert killed.status == -9
    resumed = train(run_tool, tiny_config, tmp_path, '--resume')
    assert resumed.status == 0
    assert f'iter: {iteration // 4 * 4}' in resumed.output
    assert not differing(tmp_path, trained)


def test_workers_and_validations_do_not_matter(
    run_tool, tiny_config, trained, tmp_path
) -> None:
    options = [
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'train_cfg.val_interval=5',
    ]
    other = train(run_tool, tiny_config, tmp_path, '--cfg-options', *options)
    assert other.status == 0
    assert not differing(tmp_path, trained)


def test_two_processes_with_random_states_of_their_own(
    run_tool, tiny_config, tmp_path
) -> None:
    options = ['--cfg-options', 'randomness.diff_rank_seed=True']
    for name in ('whole', 'resumed'):
        (tmp_path / name).mkdir()
    finished = train(run_tool, tiny_config, tmp_path / 'whole', *options, processes=2)
    assert finished.status == 0
    folder = tmp_path / 'resumed'
    killing = write_killing(tiny_config, folder, 7)
    work_dir = ['--work-dir', 'work_dirs/tiny_run']
    killed = train(run_tool, killing, folder, *work_dir, *options, processes=2)
    assert killed.status == -9
    again = ['--resume', *options]
    resumed = train(run_tool, tiny_config, folder, *again, processes=2)
    assert resumed.status == 0
    states = safe_load(folder / 'work_dirs/tiny_run/iter_8.pth')['random_state']
    first, second = (state['torch'] for state in states['ranks'])
    assert not torch.equal(first, second)
    assert not differing(folder, tmp_path / 'whole')
