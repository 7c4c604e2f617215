"""A retraining that is killed in any phase and resumed equals one that is not."""

from pathlib import Path

import pytest
import torch
from retraining_runs import (
    Lost,
    build_runner,
    checkpoint_of,
    retraining,
    tensors_of,
)

EMA = dict(type='EMAHook', momentum=0.2)


def differing(one: Path, other: Path) -> list[str]:
    first, second = (tensors_of(checkpoint_of(folder)) for folder in (one, other))
    assert first.keys() == second.keys()
    assert any('generative_retraining' in key for key in first)
    return [key for key in first if not torch.equal(first[key], second[key])]


def run_whole(folder: Path, **options: object) -> Path:
    folder.mkdir()
    build_runner(folder, hook=retraining(folder, **options), hooks=[EMA]).train()
    return folder


@pytest.fixture(scope='module')
def in_phases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_whole(tmp_path_factory.mktemp('phases') / 'whole')


INTERLEAVED = dict(generator_iters=None, segmentor_mode='train', graph=dict())


@pytest.fixture(scope='module')
def interleaved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_whole(tmp_path_factory.mktemp('interleaved') / 'whole', **INTERLEAVED)


def kill_and_resume(folder: Path, iteration: int, **options: object) -> None:
    hook = retraining(folder, **options)
    lose = dict(type='LoseMachine', iteration=iteration)
    with pytest.raises(Lost):
        build_runner(folder, hook=hook, hooks=[EMA, lose]).train()
    resumed = build_runner(folder, hook=hook, hooks=[EMA], resume=True)
    resumed.train()


# Checkpoints are written every two iterations; phases begin at 4 and 8.
@pytest.mark.parametrize('iteration', [3, 4, 7, 9, 11])
def test_in_phases(in_phases: Path, tmp_path: Path, iteration: int) -> None:
    kill_and_resume(tmp_path, iteration)
    assert not differing(tmp_path, in_phases)


def test_interleaved_with_graph(interleaved: Path, tmp_path: Path) -> None:
    kill_and_resume(tmp_path, 7, **INTERLEAVED)
    assert not differing(tmp_path, interleaved)


def test_a_list_of_synthesisers_equals_the_options(
    interleaved: Path, tmp_path: Path
) -> None:
    hook = retraining(tmp_path, **{**INTERLEAVED, 'graph': None})
    adam = hook.pop('generator_optimizer')
    first = dict(generator=hook.pop('generator'), samples_per_class=16)
    del hook['samples_per_class']
    hook['synthesisers'] = [
        dict(type='PixelSynthesis', generator_optimizer=adam, **first),
        dict(type='GraphSynthesis', generator_optimizer=adam),
    ]
    # It goes on from the checkpoint of a run of the options, too.
    file = interleaved / 'run/iter_6.pth'
    for folder, options in (
        (tmp_path / 'whole', {}),
        (tmp_path / 'resumed', dict(load_from=str(file), resume=True)),
    ):
        build_runner(folder, hook=hook, hooks=[EMA], **options).train()
        ours, theirs = checkpoint_of(folder), checkpoint_of(interleaved)
        states = ours['generative_retraining'].pop('synthesisers')
        former = theirs['generative_retraining']
        pixels = states['PixelSynthesis'].pop('pixels')
        assert torch.equal(pixels, former.pop('pixels'))
        one = tensors_of({**ours, **states})
        other = tensors_of(
            {
                **theirs,
                'PixelSynthesis': former.pop('generator'),
                'GraphSynthesis': former.pop('graph'),
            }
        )
        assert one.keys() == other.keys()
        assert not [key for key in one if not torch.equal(one[key], other[key])]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(segmentor_iters=2, generator_iters=2), "was in phase 'generator'"),
        (dict(vector_names=dict(cat='cow', cow='cat')), 'other vectors'),
        (
            dict(generator=dict(type='GMMNGenerator', hidden_channels=3)),
            'PixelSynthesis of',
        ),
        (dict(graph=dict()), 'with PixelSynthesis, but .* and GraphSynthesis'),
    ],
)
def test_a_run_that_changed_is_refused(
    in_phases: Path, tmp_path: Path, changes: dict, message: str
) -> None:
    file = in_phases / 'run' / 'iter_6.pth'
    hook = retraining(tmp_path, **changes)
    runner = build_runner(
        tmp_path, hook=hook, hooks=[EMA], load_from=str(file), resume=True
    )
    with pytest.raises(ValueError, match=message):
        runner.train()


def test_a_checkpoint_without_generator_is_refused(tmp_path: Path) -> None:
    build_runner(tmp_path, hook=None).train()
    file = tmp_path / 'run' / 'iter_10.pth'
    hook = retraining(tmp_path)
    runner = build_runner(tmp_path, hook=hook, load_from=str(file), resume=True)
    with pytest.raises(ValueError, match='holds no generator'):
        runner.train()
