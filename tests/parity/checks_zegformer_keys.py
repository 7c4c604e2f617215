"""ZegFormer's checkpoints of full size, its recipes, and its order of classes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from checks_lseg_keys import numbered
from checks_schedules import values_over
from registry import GoldenFile, assert_close, check, longest_prefix
from torch import Tensor, nn

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from zs3_mmseg.apis.init import find_config
from zs3_mmseg.datasets.splits import find_name, get_split
from zs3_mmseg.engine.converters import (
    Conversion,
    KeyRule,
    ZegFormerConverter,
    apply_rules,
)
from zs3_mmseg.engine.converters.core import empty_model
from zs3_mmseg.engine.converters.zegformer import zegformer_rules

#: The config of a training of this size.
CONFIGS = {
    'zegformer_r50_keys': 'zegformer/cocostuff_r50',
    'zegformer_r101_keys': 'zegformer/cocostuff_r101',
}
#: The scalar that the file holds: the logarithm of the scale.
SCALE = 'sem_seg_head.predictor.logit_scale'


def converted(keys: Mapping[str, Any]) -> Conversion:
    with TemporaryDirectory() as folder:
        source = Path(folder) / 'official.pth'
        state = numbered(keys)
        state[SCALE] = torch.full(keys[SCALE], 100.0).log()
        torch.save(dict(model=state, iteration=1), source)
        parser = argparse.ArgumentParser()
        ZegFormerConverter.add_arguments(parser)
        arguments = parser.parse_args([])
        arguments.trust = False
        return ZegFormerConverter().convert(source, arguments)


def empty(name: str) -> nn.Module:
    """Build backbone and head of a config without memory for them."""
    config = Config.fromfile(find_config(name)).model
    config.backbone.init_cfg = None
    return empty_model(config, embed_dim=512)


@check(*CONFIGS)
def full_size(golden: GoldenFile) -> None:
    content = golden.json
    extra = content.get('eval_config_extra_keys', {})
    for keys in (content['keys'], {**content['keys'], **extra}):
        conversion = converted(keys)
        assert conversion.complete, str(conversion)
        constants = {*content['buffers'], *content['not_trainable']}
        assert set(conversion.dropped) == constants | (extra.keys() & keys.keys())
        assert 'scale=100.0' in conversion.notes
    model = empty(CONFIGS[longest_prefix(golden.name, CONFIGS)])
    ours = {k: v.shape for k, v in model.state_dict().items()}
    assert ours == {k: v.shape for k, v in conversion.state.items()}
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == content['trainable_parameters']
    with pytest.raises(ValueError, match='no official ZegFormer checkpoint'):
        converted({key: v for key, v in keys.items() if 'query_embed' not in key})


#: Our config for each recorded recipe, and what of ``lr_at_iteration`` it tells.
RECIPES = {'coco_stuff': 'cocostuff_r101', 'voc_10k': 'voc_r101_10k'}
#: Our configs for the released ones that have one.
RELEASED = {
    'R101_bs32_60k_vit16_coco-stuff_gzss_eval': 'cocostuff_r101_single',
    'R50_bs32_60k_vit16_coco-stuff_gzss_eval': 'cocostuff_r50',
    'R101_bs32_10k_vit16_voc_gzss_eval': 'voc_r101_10k',
    'R50_bs32_10k_vit16_voc_gzss_eval': 'voc_r50',
    'R101_bs32_60k_vit16_coco-stuff': 'cocostuff_r101_seg',
    'R101_bs32_30k_vit16_voc': 'voc_r101_seg',
    'R50_bs32_10k_vit16_voc': 'voc_r50_seg',
    'R101_bs32_60k_vit16_coco-stuff_gzss_eval_847_classes': 'cocostuff_r101_folder',
}
TEMPLATES = {'single': 'zegformer'}


@check('zegformer_optimizer')
def recipes(golden: GoldenFile) -> None:
    content = golden.json
    for key, name in RECIPES.items():
        check_recipe(content['recipes'][key], name)
        check_groups(
            content['groups'],
            content['optimizer'],
            f'zegformer/{name}',
            empty('zegformer/cocostuff_r50'),
            zegformer_rules(),
        )
    for official, name in RELEASED.items():
        theirs = content['released_configurations'][f'zegformer_{official}.yaml']
        check_released(theirs, Config.fromfile(find_config(f'zegformer/{name}')))


def check_recipe(recipe: Mapping[str, Any], name: str) -> None:
    config = Config.fromfile(find_config(f'zegformer/{name}'))
    wrapper, loop = config.optim_wrapper, config.train_cfg
    assert config.auto_scale_lr.base_batch_size == recipe['batch']
    assert loop.max_iters == recipe['max_iter']
    assert wrapper.clip_grad == dict(max_norm=recipe['clip']['max_norm'], norm_type=2)
    rates = recipe['lr_at_iteration']['0']
    groups = [dict(params=[nn.Parameter(torch.zeros(1))], lr=rate) for rate in rates]
    optimizer = torch.optim.SGD(groups, lr=rates[0])
    values = values_over(config.param_scheduler, optimizer, loop.max_iters)
    for iteration, recorded in recipe['lr_at_iteration'].items():
        assert_close(values[int(iteration)], recorded, what=f'rate at {iteration}')
    parts = {part.type: part for part in config.train_pipeline}
    crop = tuple(recipe['crop'])
    assert parts['RandomCrop'].crop_size == parts['Pad'].size == crop
    assert (
        parts['RandomCrop'].get('cat_max_ratio', 1.0)
        == (recipe['single_category_max_area'])
    )
    resize = parts['RandomChoiceResize']
    assert list(resize.scales) == recipe['min_size_train']
    assert resize.max_size == recipe['max_size_train']
    (resize,) = (p for p in config.test_pipeline if 'Resize' in p.type)
    assert (resize.scale, resize.max_size) == (
        recipe['min_size_test'],
        recipe['max_size_test'],
    )
    preprocessor = config.model.data_preprocessor
    assert preprocessor.mean == recipe['pixel_mean']
    assert preprocessor.std == recipe['pixel_std']


def check_groups(
    groups: Mapping[str, Any],
    optimizer: Mapping[str, Any],
    name: str,
    model: nn.Module,
    rules: Sequence[KeyRule],
) -> None:
    """Compare rate and decay of each weight, by a config's optimiser on a model."""
    config = Config.fromfile(find_config(name))
    wrapper = build_optim_wrapper(model, config.optim_wrapper).optimizer
    assert type(wrapper).__name__ == optimizer['type']
    for key in ('betas', 'eps'):
        assert_close(wrapper.defaults[key], optimizer[key])
    names = {id(p): key for key, p in model.named_parameters()}
    ours = {
        names[id(p)]: (group['lr'], group['weight_decay'])
        for group in wrapper.param_groups
        for p in group['params']
        if p.requires_grad
    }
    state: dict[str, Tensor] = {key: torch.empty(0) for key in groups}
    sources = apply_rules(state, rules, model.state_dict()).sources
    theirs = {
        key: (groups[old]['lr'], groups[old]['weight_decay'])
        for key, old in sources.items()
    }
    assert len(theirs) == len(groups)
    assert ours.keys() == theirs.keys()
    for key, values in theirs.items():
        assert ours[key] == pytest.approx(values), key


def check_released(theirs: Mapping[str, Any], config: Config) -> None:
    """Compare the switches of a released configuration."""
    model = config.model
    look = model.decode_head.region_classifier
    assert (look is not None) == theirs['clip_classification']
    assert model.backbone.depth == theirs['depth']
    assert model.decode_head.get('scale', 100.0) == 1 / theirs['temperature']
    shifts = [part.shift for part in model.calibrators]
    # What is not above 0 is off.
    assert shifts == [gamma for gamma in [theirs['gzero_calibrate']] if gamma > 0]
    if look is not None:
        weights = [model.decode_head.get(f'{g}_weight') for g in ('seen', 'unseen')]
        assert weights == ([None, None] if theirs['ensembling'] else [1.0, 1.0])
        assert look.get('style', 'cropmask') == theirs['clip_cls_style']
        assert look.arch.startswith(theirs['clip_pretrained'].replace('/', '-'))
    kind = theirs['prompt_ensemble_type']
    assert model.class_embeddings.templates == TEMPLATES.get(kind, kind)
    if config.get('train_dataloader') is not None:
        assert config.crop_size == tuple(theirs['crop'])


@check('zegformer_labels')
def labels(golden: GoldenFile) -> None:
    for key, name in (('voc', 'voc12_15_5'), ('coco_stuff', 'cocostuff_156_15')):
        table, split = golden.json[key], get_split(name)
        theirs = table['order']
        places = [find_name(each, split.classes) for each in theirs]
        assert sorted(places) == [*range(len(split.classes))], name
        # Ours follow the data set, theirs have the seen ones first.
        by_id = sorted(range(len(theirs)), key=table['dataset_id'].__getitem__)
        assert [places[index] for index in by_id] == [*range(len(split.classes))]
        assert table.get('index_in_id_order', places) == places
        seen = [split.classes[place] for place in places[: table['num_seen']]]
        assert sorted(seen) == sorted(split.seen), name
        unseen = [split.classes[find_name(n, split.classes)] for n in table['unseen']]
        assert sorted(unseen) == sorted(split.unseen), name
