"""Every config of LSeg builds, without weights and without data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from zs3_mmseg.datasets.splits import resolve_split
from zs3_mmseg.models.segmentors import ClassPromptedSegmentor

CONFIGS = Path(__file__).parents[1] / 'configs'
FILES = sorted(CONFIGS.glob('lseg/*.py'))
#: The other folds differ from the first by their split alone.
OTHER_FOLDS = [path for path in FILES if path.stem[-5:] in ('fold1', 'fold2', 'fold3')]


@pytest.mark.parametrize('path', OTHER_FOLDS, ids=lambda path: path.stem)
def test_a_fold_changes_every_split(path: Path) -> None:
    first = Config.fromfile(path.with_stem(f'{path.stem[:-1]}0'))
    config = Config.fromfile(path)
    split = f'{path.stem.split("_")[0]}_{path.stem[-1]}'
    first.split = first.model.split = split
    for phase in ('train', 'val', 'test'):
        first[f'{phase}_dataloader'].dataset.split = split
    assert first.to_dict() == config.to_dict()


@pytest.mark.parametrize(
    'path', sorted({*FILES} - {*OTHER_FOLDS}), ids=lambda path: path.stem
)
def test_parts_of_a_config_fit(path: Path) -> None:
    config = Config.fromfile(path)
    init_default_scope('mmseg')
    # Weights are files, or are fetched.
    resnet = config.model.backbone.type == 'ResNet'
    config.model.backbone['init_cfg' if resnet else 'pretrained'] = None
    config.model.class_embeddings.source.pretrained = None
    with torch.device('meta'):
        model = MODELS.build(config.model)
    trained, tested = (
        getattr(config, f'{phase}_dataloader').dataset for phase in ('train', 'test')
    )
    splits = (resolve_split(data.split) for data in (trained, tested))
    assert {*splits} == {model.split}
    assert trained.get('setting', 'inductive') == model.setting
    folds = any(kind in path.stem for kind in ('fold', 'fss', 'things'))
    assert isinstance(model, ClassPromptedSegmentor) == folds
    assert model.decode_head.void_pixels == ('background' if folds else 'ignore')
    # Images with unseen objects stay in the two-word training.
    assert trained.get('unseen_policy') == ('ignore' if folds else None)
    if folds and 'shapes' not in path.stem:
        assert trained.min_pixels == tested.min_pixels == 0
        assert config.train_dataloader.batch_size == 40
    assert config.default_hooks.checkpoint.get('save_best') is None
    divisor = config.model.data_preprocessor.test_cfg.size_divisor
    for part, key in (('data_preprocessor', 'size'), ('test_cfg', 'crop_size')):
        sides = config.model[part].get(key) or ()
        assert all(side % divisor == 0 for side in sides)


@pytest.mark.parametrize(
    ('name', 'rate'),
    [
        ('ade20k_vitl16', 1e-3),
        ('pascal5i_rn101_fold0', 5e-3),
        ('coco20i_vitl16_fold3', 5e-3),
        ('voc_vitl16_gzs3', 1e-3),
    ],
)
def test_what_is_new_learns_ten_times_as_fast(name: str, rate: float) -> None:
    config = Config.fromfile(CONFIGS / f'lseg/{name}.py')
    parts = ('backbone.blocks', 'decode_head.reassemble_blocks', 'decode_head.convs')
    model = torch.nn.Module()
    for part in parts:
        owner, child = part.split('.')
        if not hasattr(model, owner):
            model.add_module(owner, torch.nn.Module())
        getattr(model, owner).add_module(child, torch.nn.Linear(1, 1))
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    rates = {id(p): g['lr'] for g in optimizer.param_groups for p in g['params']}
    found = [rates[id(model.get_submodule(part).weight)] for part in parts]
    assert found == pytest.approx([rate, rate, 10 * rate])
    assert {group['weight_decay'] for group in optimizer.param_groups} == {1e-4}
