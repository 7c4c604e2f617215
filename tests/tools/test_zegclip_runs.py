"""Configs of ZegCLIP and its family through the tools: self-training, resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from zs3_mmseg.utils.checkpoint import safe_load

pytestmark = pytest.mark.slow
CONFIGS = Path(__file__).resolve().parents[2] / 'configs/zegclip'

#: A few small batches, with all that draws random numbers left on.
SMALL: dict[str, Any] = {
    'train_dataloader': {
        'batch_size': 2,
        'num_workers': 0,
        'persistent_workers': False,
        'dataset': {'dataset': {'num_images': 6, 'workers': 1}},
    },
    'test_dataloader': {
        'num_workers': 0,
        'persistent_workers': False,
        'dataset': {'dataset': {'num_images': 4, 'workers': 1}},
    },
    'val_dataloader': None,
    'val_cfg': None,
    'val_evaluator': None,
    'default_hooks': {
        'logger': {'interval': 1},
        'checkpoint': {'interval': 2},
    },
}
PROTOCOL = {'type': 'ProtocolCheckHook'}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


@pytest.fixture(scope='module')
def train(run_tool, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return ``train(name, config, iterations, **changes) -> its work directory``."""
    root = tmp_path_factory.mktemp('zegclip')

    def run(
        name: str,
        config: str,
        iterations: int,
        *arguments: object,
        status: int = 0,
        processes: int = 1,
        **changes: Any,
    ) -> Path:
        length = {'train_cfg': {'max_iters': iterations, 'val_interval': iterations}}
        lines = merged(merged(SMALL, length), changes)
        lines['_base_'] = str(CONFIGS / f'{config}.py')
        folder = root / name
        folder.mkdir(exist_ok=True)
        file = folder / 'config.py'
        file.write_text(''.join(f'{key} = {value!r}\n' for key, value in lines.items()))
        finished = run_tool(
            'train.py',
            file,
            '--work-dir',
            folder,
            *arguments,
            folder=root,  # so that all runs share data/shapes
            processes=processes,
        )
        assert finished.status == status, finished.output
        (folder / 'output.txt').write_text(finished.output)
        return folder

    return run


def differing(first: Path, second: Path) -> list[str]:
    """Return the names of the tensors that two checkpoints hold differently."""
    one, other = safe_load(first), safe_load(second)
    names = []
    for part in ('state_dict', 'ema_teacher'):
        assert one.get(part, {}).keys() == other.get(part, {}).keys()
        names += [
            key
            for key, value in one.get(part, {}).items()
            if isinstance(value, torch.Tensor)
            and not torch.equal(value, other[part][key])
        ]
    return names


@pytest.fixture(scope='module')
def inductive(train) -> Path:
    return train('inductive', 'shapes_tiny', 4)


def test_inductive_training_ends_in_a_checkpoint_that_can_be_tested(
    run_tool, inductive: Path, tmp_path: Path
) -> None:
    arguments = [inductive / 'config.py', inductive / 'iter_4.pth']
    tested = run_tool(
        'test.py', *arguments, '--work-dir', tmp_path, folder=inductive.parent
    )
    assert tested.status == 0, tested.output
    assert 'hIoU' in json.loads((tmp_path / 'metrics.json').read_text())


@pytest.mark.parametrize('config', ['shapes_tiny_ce', 'shapes_tiny_fully'])
def test_other_settings_learn(train, config: str) -> None:
    folder = train(config, config, 2)
    assert (folder / 'iter_2.pth').is_file()


@pytest.mark.parametrize('method', ['otseg', 'cascade_clip'])
def test_the_family_trains_itself_and_is_tested(
    train, run_tool, tmp_path: Path, method: str
) -> None:
    config = f'../{method}/shapes_tiny_transductive'
    folder = train(method, config, 2, load_from=None)
    arguments = [folder / 'config.py', folder / 'iter_2.pth', '--work-dir', tmp_path]
    tested = run_tool('test.py', *arguments, folder=folder.parent)
    assert tested.status == 0, tested.output
    assert 'hIoU' in json.loads((tmp_path / 'metrics.json').read_text())


def test_two_processes_have_no_unused_parameters(train) -> None:
    """The iteration after would fail if a parameter had got no gradient."""
    hooks = [PROTOCOL, {'type': 'SelfTrainingHook', 'begin': 2}]
    config = 'shapes_tiny_transductive_onerun'
    folder = train('two', config, 4, processes=2, custom_hooks=hooks)
    assert (folder / 'iter_4.pth').is_file()


#: Every option of self-training at once.
ALL_OPTIONS: dict[str, Any] = {
    'model': {
        'pseudo_label_threshold': 0.001,
        'decode_head': {
            'deep_supervision': True,
            'identical_layers': False,
            'loss_decode': {'ignore_void': True},
        },
    },
    'custom_hooks': [PROTOCOL, {'type': 'EMATeacherHook', 'momentum': 0.5}],
}


def killing(hooks: list[dict[str, Any]], iteration: int) -> dict[str, Any]:
    return {
        'custom_imports': {'imports': ['zs3_mmseg', 'tiny_run_parts']},
        'custom_hooks': [*hooks, {'type': 'KillAfter', 'iteration': iteration}],
    }


def test_self_training_with_a_teacher_resumes_exactly(train, inductive: Path) -> None:
    start = {'load_from': str(inductive / 'iter_2.pth')}
    config = 'shapes_tiny_transductive'
    whole = train('teacher', config, 4, **start, **ALL_OPTIONS)
    output = (whole / 'output.txt').read_text()
    assert 'decode.d0.loss_mask' in output
    assert 'unlabelled' in output
    kill = merged({**start, **ALL_OPTIONS}, killing(ALL_OPTIONS['custom_hooks'], 3))
    train('resumed', config, 4, status=-9, **kill)
    resumed = train('resumed', config, 4, '--resume', **start, **ALL_OPTIONS)
    assert 'iter: 2' in (resumed / 'output.txt').read_text()
    assert not differing(whole / 'iter_4.pth', resumed / 'iter_4.pth')
    average = safe_load(whole / 'iter_4.pth')['ema_teacher']
    assert average['steps'] == 5  # the start and four iterations


#: No randomness, and every batch is the whole data set in its order.
FIXED: dict[str, Any] = {
    'model': {
        'backbone': {'prompts': {'dropout': 0.0}},
        'decode_head': {'dropout': 0.0},
    },
    'train_dataloader': {
        'batch_size': 6,
        'sampler': {'shuffle': False},
        'dataset': {
            'pipeline': [
                {'type': 'LoadImageFromFile'},
                {'type': 'LoadAnnotations'},
                {'type': 'PackSegInputs'},
            ]
        },
    },
}
SCHEDULE = {
    'type': 'WarmupPolyLR',
    'warmup_steps': 2,
    'warmup_ratio': 0.1,
    'by_epoch': False,
}
HALVES = {
    'param_scheduler': [
        {**SCHEDULE, 'end': 2, 'total_steps': 4},
        {**SCHEDULE, 'begin': 2, 'end': 5},
    ],
    'custom_hooks': [PROTOCOL, {'type': 'SelfTrainingHook', 'begin': 2}],
}


def test_one_run_equals_the_two_stages(train) -> None:
    first = train('first', 'shapes_tiny', 4, **FIXED, param_scheduler=[SCHEDULE])
    second = train(
        'second',
        'shapes_tiny_transductive',
        3,
        **FIXED,
        param_scheduler=[SCHEDULE],
        load_from=str(first / 'iter_2.pth'),
    )
    both = train('both', 'shapes_tiny_transductive_onerun', 5, **FIXED, **HALVES)
    assert 'Self-training begins' in (both / 'output.txt').read_text()
    assert not differing(first / 'iter_2.pth', both / 'iter_2.pth')
    assert not differing(second / 'iter_3.pth', both / 'iter_5.pth')
    assert differing(first / 'iter_4.pth', both / 'iter_4.pth')


WITH_TEACHER = {
    **HALVES,
    'custom_hooks': [
        *HALVES['custom_hooks'],
        {'type': 'EMATeacherHook', 'momentum': 0.5, 'begin': 2},
    ],
}


@pytest.fixture(scope='module')
def uninterrupted(train) -> Path:
    return train('onerun', 'shapes_tiny_transductive_onerun', 5, **WITH_TEACHER)


@pytest.mark.parametrize('iteration', [2, 4])
def test_one_run_resumes_exactly(train, uninterrupted: Path, iteration: int) -> None:
    """Killed right before self-training begins, and after it has begun."""
    config, name = 'shapes_tiny_transductive_onerun', f'killed{iteration}'
    kill = {**WITH_TEACHER, **killing(WITH_TEACHER['custom_hooks'], iteration)}
    train(name, config, 5, status=-9, **kill)
    resumed = train(name, config, 5, '--resume', **WITH_TEACHER)
    assert not differing(uninterrupted / 'iter_5.pth', resumed / 'iter_5.pth')
