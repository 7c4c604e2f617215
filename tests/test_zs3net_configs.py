"""Every published config of ZS3Net builds, without weights and without data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import HOOKS, MODELS, TRANSFORMS

from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.engine.generative import classifier

CONFIGS = Path(__file__).parents[1] / 'configs'
FILES = sorted(CONFIGS.glob('zs3net/*_r101_deeplabv3plus_*.py'))
FIRST = [path for path in FILES if path.stem.endswith('_step1')]
#: Epochs, images and length of a step in the official scripts.
RECIPES = {
    ('voc', 'step1'): (200, 16),
    ('voc', 'zs5'): (30, 16),
    ('context', 'zs5'): (30, 10),
    ('voc', 'step2'): (30, 8),
    ('context', 'step1'): (200, 10),
    ('context', 'step2'): (20, 8),
    ('context', 'step2_graph'): (100, 8),
}


def read(path: Path) -> tuple[Config, str, int, str]:
    """Return a config with what its name says: data set, K and step."""
    data, _, _, unseen, step = path.stem.replace('voc12_train', 'voc').split('_', 4)
    return Config.fromfile(path), data, int(unseen.removesuffix('unseen')), step


def build(config: Config) -> Any:
    init_default_scope('mmseg')
    with torch.device('meta'):
        return MODELS.build(config.model)


def test_there_is_one_of_each() -> None:
    found = {read(path)[1:] for path in FILES}
    for data, step in RECIPES:
        unseen = (2,) if step == 'zs5' else (2, 4, 6, 8, 10)
        assert {(data, k, step) for k in unseen} <= found
    for k in (2, 4):
        for step in (1, 2):
            name = f'voc12_train_r101_deeplabv3plus_{k}unseen_step{step}'
            assert CONFIGS / f'zs3net/{name}.py' in FILES


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_parts_of_a_config_fit(path: Path) -> None:
    config, data, unseen, step = read(path)
    split = get_split(config.test_dataloader.dataset.split)
    assert len(split.unseen) == unseen
    trained = config.train_dataloader.dataset
    assert trained.split == config.val_dataloader.dataset.split == split.name
    head = build(config).decode_head
    classifier.require_classes(head, split.classes)

    epochs, images = RECIPES[data, step]
    assert config.train_cfg.max_epochs == epochs
    assert config.train_dataloader.batch_size == images
    assert classifier.find_criterion(head).loss_weight == 1 / images
    if step == 'step1':
        assert trained.unseen_policy == 'drop_image'
        return
    # The second step starts from the last checkpoint that the first one writes.
    name, file = Path(config.load_from).parts[2:]
    first = Config.fromfile(path.with_name(f'{name}.py'))
    assert name == f'{path.stem.removesuffix(step)}step1'
    assert file == f'epoch_{first.train_cfg.max_epochs}.pth'
    assert first.train_dataloader.dataset.split == split.name
    sets = {'voc': 2, 'voc12_train': 1, 'context': 1}[path.stem.partition('_r101')[0]]
    assert len(trained.dataset.get('datasets', [trained.dataset])) == sets
    if step == 'zs5':
        assert trained.pseudo_label_dir
        return
    hook = HOOKS.build(config.custom_hooks[1])
    assert hook.setting == trained.setting == 'layout_oracle'
    assert len(hook.synthesisers) == 1 + (step == 'step2_graph')


@pytest.mark.parametrize('path', FIRST[:1], ids=lambda path: path.stem)
def test_the_decode_head_learns_ten_times_as_fast(path: Path) -> None:
    config = Config.fromfile(path)
    model = build(config)
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    rates = {id(p): g for g in optimizer.param_groups for p in g['params']}
    for name, parameter in model.named_parameters():
        group = rates[id(parameter)]
        factor = 1 if name.startswith('backbone.') else 10
        assert group['lr'] == pytest.approx(0.007 * factor)
        assert (group['momentum'], group['weight_decay']) == (0.9, 5e-4)
        assert not group['nesterov']


@pytest.mark.parametrize('shape', [(100, 200), (700, 90), (500, 375)])
def test_training_images_are_crops_of_312_pixels(shape: tuple[int, int]) -> None:
    """Sizes and margins, for pictures smaller and larger than the crop."""
    init_default_scope('mmseg')
    pipeline = Config.fromfile(FIRST[0]).zs3_train_pipeline[2:-1]
    steps = [TRANSFORMS.build(step) for step in pipeline]
    scales = []
    for _ in range(8):
        results: dict[str, Any] = dict(
            img=np.full((*shape, 3), 200, dtype=np.uint8),
            gt_seg_map=np.ones(shape, dtype=np.uint8),
            img_shape=shape,
            seg_fields=['gt_seg_map'],
        )
        for step in steps:
            results = step(results)
            if type(step).__name__ == 'RandomResize':
                scales.append(min(results['img'].shape[:2]))
        image, labels = results['img'], results['gt_seg_map']
        assert image.shape == (312, 312, 3)
        margin = labels == 255
        assert ((labels == 1) | margin).all()
        # Black, where a blur has not mixed it with the picture beside it.
        far = margin.copy()
        far[:, 4:] &= margin[:, :-4]
        far[4:] &= margin[:-4]
        far[4:, 4:] &= margin[:-4, :-4]  # beyond the picture's corner
        far[:4] = far[:, :4] = False
        assert not image[far].any()
        if min(scales[-1:]) >= 312:
            assert not margin.any()
    assert all(156 <= scale <= 624 for scale in scales)
    assert len(set(scales)) > 4
