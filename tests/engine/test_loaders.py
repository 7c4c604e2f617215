"""Data loaders: options that only workers read, ends, and images left out."""

from __future__ import annotations

from typing import Any

import pytest

from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from zs3_mmseg.engine.loaders import WORKER_OPTIONS, require_suitable
from zs3_mmseg.engine.runner import SafeRunner
from zs3_mmseg.utils.config_check import ConfigError

DATA = [0, 1, 2, 3, 4]
SAMPLERS = ('DefaultSampler', 'EpochDrawSampler', 'InfiniteSampler', 'DrawSampler')


@pytest.fixture(autouse=True, scope='module')
def _scope() -> None:
    init_default_scope('mmseg')


def loader_of(sampler: str = 'DefaultSampler', **options: Any):
    options = {'batch_size': 2, **options}
    return SafeRunner.build_dataloader(
        dict(dataset=DATA, sampler=dict(type=sampler, shuffle=False), **options), seed=0
    )


@pytest.mark.parametrize('workers', [{}, {'num_workers': 0}])
def test_options_of_workers_are_nothing_without_workers(workers: dict) -> None:
    given = dict(
        persistent_workers=True,
        prefetch_factor=4,
        multiprocessing_context='fork',
        timeout=3,
    )
    assert given.keys() == set(WORKER_OPTIONS)
    loader = loader_of(collate_fn=pseudo_collate_config(), **given, **workers)
    assert not loader.persistent_workers
    assert sum(len(batch) for batch in loader) == len(DATA)


def pseudo_collate_config() -> dict:
    return dict(type=pseudo_collate)


def test_options_of_workers_reach_workers() -> None:
    loader = loader_of(num_workers=1, persistent_workers=True, prefetch_factor=4)
    assert loader.persistent_workers
    assert loader.prefetch_factor == 4


@pytest.mark.parametrize('sampler', SAMPLERS)
@pytest.mark.parametrize('endless', [True, False])
def test_loops_that_wait_for_an_end_need_one(sampler: str, endless: bool) -> None:
    ends = sampler in ('DefaultSampler', 'EpochDrawSampler')
    loader = loader_of(sampler)
    if ends or endless:
        require_suitable('k', loader, endless=endless, complete=False)
        return
    with pytest.raises(ConfigError, match=rf'k\.sampler: {sampler} never .*use Epoch'):
        require_suitable('k', loader, endless=endless, complete=False)
    with pytest.raises(ConfigError, match='use DefaultSampler'):
        require_suitable('k', loader, endless=endless, complete=True)


@pytest.mark.parametrize(
    ('batch_size', 'complete', 'message'),
    [
        (6, False, r'k\.drop_last leaves nothing: 5 images .*k\.batch_size=6'),
        (6, True, 'leaves nothing'),
        (2, True, r'k\.drop_last leaves 1 of 5 images out of the scores'),
        (2, False, None),
        (5, True, None),
    ],
)
def test_images_that_drop_last_leaves_out(
    batch_size: int, complete: bool, message: str | None
) -> None:
    loader = loader_of(batch_size=batch_size, drop_last=True)
    if message is None:
        require_suitable('k', loader, endless=True, complete=complete)
        return
    with pytest.raises(ConfigError, match=message):
        require_suitable('k', loader, endless=True, complete=complete)


def test_an_endless_sampler_fills_every_batch() -> None:
    loader = loader_of('DrawSampler', batch_size=6, drop_last=True)
    require_suitable('k', loader, endless=True, complete=False)
