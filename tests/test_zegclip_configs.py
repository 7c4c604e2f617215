"""Every config of ZegCLIP and its family builds, without weights and without data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS, PARAM_SCHEDULERS

from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.engine.launch import count_parameters
from zs3_mmseg.utils.config_check import require_config_files

CONFIGS = Path(__file__).parents[1] / 'configs'
FILES = sorted(
    path
    for folder in (
        'zegclip',
        'otseg',
        'cascade_clip',
        'spt_seg',
        'clip_rc',
        'tagclip',
        'object_centric',
        'shapes/ablations',
    )
    for path in CONFIGS.glob(f'{folder}/*.py')
    if not path.stem.startswith('own_folder')  # their classes are in the folder
)
E, FFN = 512, 2048
LINEAR = E * E + E
#: What never gets a gradient in the official code: self-attention with its norm in all
#: three layers, and all but queries and keys in the last one.
NO_GRADIENT = 3 * (4 * LINEAR + 2 * E) + (
    2 * LINEAR + (E * FFN + FFN) + (FFN * E + E) + 4 * E
)


@pytest.fixture
def empty_towers() -> Iterator[None]:
    """Build towers of any size at once, without values."""
    init_default_scope('mmseg')
    with torch.device('meta'):
        yield


def build(path: Path) -> tuple[Any, Config]:
    config = Config.fromfile(path)
    config.merge_from_dict(
        {
            'model.backbone.pretrained': None,
            'model.class_embeddings.source.pretrained': None,
        }
    )
    extra = config.model.backbone.get('extra_tokens') or {}
    if isinstance(extra.get('features'), dict):
        extra.features.pretrained = False
    return MODELS.build(config.model), config


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(CONFIGS)))
@pytest.mark.usefixtures('empty_towers')
def test_parts_of_a_config_fit(path: Path) -> None:
    model, config = build(path)
    tested = config.test_dataloader.dataset
    assert model.class_names == get_split(tested.split).classes
    if config.train_dataloader is None:
        return
    trained = config.train_dataloader.dataset
    assert model.split == get_split(trained.split)
    assert model.setting == trained.setting
    assert config.default_hooks.checkpoint.get('save_best') is None
    # The second stage starts from a checkpoint that the first one writes.
    if config.get('load_from'):
        first = Config.fromfile(path.with_name(f'{Path(config.load_from).parts[2]}.py'))
        iteration = int(Path(config.load_from).stem.removeprefix('iter_'))
        assert 2 * iteration == first.train_cfg.max_iters
        assert iteration % first.default_hooks.checkpoint.interval == 0


@pytest.mark.parametrize(
    'path', sorted(CONFIGS.glob('zegclip/*_onerun.py')), ids=lambda p: p.stem
)
def test_one_run_follows_the_schedules_of_both_stages(path: Path) -> None:
    both = Config.fromfile(path)
    stem = path.stem.removesuffix('_onerun')
    second = Config.fromfile(path.with_name(f'{stem}.py'))
    first = Config.fromfile(path.with_name(f'{stem.removesuffix("_transductive")}.py'))
    hook = next(h for h in both.custom_hooks if h.type == 'SelfTrainingHook')
    change, length = hook.begin, both.train_cfg.max_iters
    rates = values_over(both, length)
    assert 2 * change == first.train_cfg.max_iters
    assert rates[:change] == values_over(first, 2 * change)[:change]
    assert rates[change:] == values_over(second, length - change)


def values_over(config: Config, length: int) -> list[float]:
    """Return the learning rate of every iteration."""
    weight = torch.nn.Parameter(torch.zeros(1))
    rate = config.optim_wrapper.optimizer.lr
    wrapper = OptimWrapper(torch.optim.SGD([weight], lr=rate))
    defaults = dict(begin=0, end=config.train_cfg.max_iters, optimizer=wrapper)
    schedulers = [
        PARAM_SCHEDULERS.build({**defaults, **part}) for part in config.param_scheduler
    ]
    values = []
    for _ in range(length):
        values.append(wrapper.get_lr()['lr'][0])
        for scheduler in schedulers:
            scheduler.step()
    return values


@pytest.mark.parametrize(
    ('name', 'official'),
    [('voc_vitb16', 13_821_184), ('cocostuff_vitb16', 14_650_624)],
)
@pytest.mark.usefixtures('empty_towers')
def test_what_learns_is_what_learns_officially(name: str, official: int) -> None:
    model, _ = build(CONFIGS / f'zegclip/{name}.py')
    assert count_parameters(model)[0] == official - NO_GRADIENT


def test_missing_files_are_named_with_their_keys(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = Config.fromfile(CONFIGS / 'zegclip/voc_vitb16_transductive.py')
    with pytest.raises(FileNotFoundError) as raised:
        require_config_files(config, ['train_dataloader'])
    text = str(raised.value)
    assert "load_from = 'work_dirs/zegclip/voc_vitb16/iter_10000.pth'" in text
    assert "data_root = 'data/VOCdevkit/VOC2012'" in text
