"""FC-CLIP's checkpoints of full size, its recipe, and its names."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from checks_schedules import values_over
from checks_zegformer_keys import check_groups
from registry import GoldenFile, assert_close, check, longest_prefix
from torch import nn

from mmengine.config import Config

from zs3_mmseg.apis.init import find_config
from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.engine.converters import Conversion, FCCLIPConverter
from zs3_mmseg.engine.converters.core import empty_model
from zs3_mmseg.engine.converters.fcclip import fcclip_rules
from zs3_mmseg.models.class_embeddings.clip_text import resolve_templates
from zs3_mmseg.models.decode_heads import FCCLIPHead
from zs3_mmseg.models.losses import MaskClassificationLoss

#: A config of this size, and the CLIP that the file was trained with.
CONFIGS = {
    'fcclip_convnext_large_keys': 'fcclip/cocostuff_convnext_l',
    'fcclip_r50_keys': 'fcclip/cocostuff_r50',
}


def converted(keys: Mapping[str, list[int]], arch: str) -> Conversion:
    """Run the converter on a file with these keys."""
    with TemporaryDirectory() as folder:
        source = Path(folder) / 'official.pth'
        state = {
            # One value, seen everywhere: the file stays small.
            key: torch.tensor(1e-4 * number).expand(shape)
            for number, (key, shape) in enumerate(keys.items())
        }
        torch.save(dict(model=state, iteration=1), source)
        parser = argparse.ArgumentParser()
        FCCLIPConverter.add_arguments(parser)
        arguments = parser.parse_args(['--arch', arch])
        arguments.trust = False
        return FCCLIPConverter().convert(source, arguments)


def empty(name: str) -> nn.Module:
    """Build backbone and head of a config without memory for them."""
    config = Config.fromfile(find_config(name)).model
    for part in (config.backbone, config.decode_head.region_classifier):
        part.pretrained = None
    width = 1024 if 'r50' in name else 768
    return empty_model(config, embed_dim=width)


@check(*CONFIGS)
def full_size(golden: GoldenFile) -> None:
    content = golden.json
    name = CONFIGS[longest_prefix(golden.name, CONFIGS)]
    arch = Config.fromfile(find_config(name)).model.backbone.arch
    conversion = converted(content['keys'], arch)
    assert conversion.complete, str(conversion)
    text = {'the text tower is loaded from its own weights', 'decode_head.loss_masks'}
    assert set(conversion.dropped.values()) == text
    model = empty(name)
    ours = {k: v.shape for k, v in model.state_dict().items()}
    assert ours == {k: v.shape for k, v in conversion.state.items()}
    sizes = {True: 0, False: 0}
    for parameter in model.parameters():
        sizes[parameter.requires_grad] += parameter.numel()
    assert sizes[True] == content['trainable_parameters']
    # CLIP's scale is a buffer of ours.
    assert sizes[False] + 1 == content['frozen_without_text_tower']
    with pytest.raises(ValueError, match='no official FC-CLIP checkpoint'):
        converted({k: v for k, v in content['keys'].items() if 'void' not in k}, arch)


@check('fcclip_optimizer')
def recipe(golden: GoldenFile) -> None:
    content = golden.json
    name = 'fcclip/cocostuff_convnext_l'
    config = Config.fromfile(find_config(name))
    check_recipe(content['recipe'], content['optimizer'], config)
    check_rates(content['lr_at_iteration'], config)
    check_groups(
        content['groups'], content['optimizer'], name, empty(name), fcclip_rules()
    )
    released = content['released_configurations']
    for official, ours in (
        ('convnext_large_eval_ade20k', 'coco_convnext_l_folder'),
        ('convnext_large_eval_pc59', 'cocostuff_convnext_l'),
        ('convnext_large_eval_ade20k_r50', 'coco_r50_folder'),
    ):
        config = Config.fromfile(find_config(f'fcclip/{ours}'))
        check_released(released[f'fcclip_{official}.yaml'], config)


def check_recipe(
    recorded: Mapping[str, Any], optimizer: Mapping[str, Any], config: Config
) -> None:
    wrapper, loop = config.optim_wrapper, config.train_cfg
    assert config.auto_scale_lr.base_batch_size == recorded['batch']
    assert loop.max_iters == recorded['max_iter']
    assert wrapper.clip_grad == dict(
        max_norm=optimizer['clip']['max_norm'], norm_type=2
    )
    assert wrapper.optimizer.lr == recorded['base_lr']
    assert wrapper.optimizer.weight_decay == recorded['weight_decay']
    parts = {part.type: part for part in config.train_pipeline}
    crop = (recorded['image_size'],) * 2
    assert parts['RandomCrop'].crop_size == parts['Pad'].size == crop
    assert parts['RandomResize'].scale == crop
    assert parts['RandomResize'].ratio_range == tuple(recorded['scale'])
    preprocessor = config.model.data_preprocessor
    assert_close(preprocessor.mean, recorded['pixel_mean'])
    assert_close(preprocessor.std, recorded['pixel_std'])
    losses = MaskClassificationLoss(**FCCLIPHead.LOSS_MASKS)
    theirs = recorded['loss']
    assert losses.class_weight == theirs['ce']
    assert losses.mask_weight == theirs['mask']
    assert losses.dice_weight == theirs['dice']
    assert losses.no_object_weight == theirs['no_object']
    assert losses.num_points == theirs['points']
    assert losses.oversampling == theirs['oversample']
    assert losses.importance_share == theirs['importance']


def check_rates(rates: Mapping[str, float], config: Config) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=config.optim_wrapper.optimizer.lr)
    values = values_over(config.param_scheduler, optimizer, config.train_cfg.max_iters)
    for iteration, recorded in rates.items():
        found = torch.as_tensor(values[int(iteration)]).flatten()[0]
        assert_close(found, recorded, what=f'rate at {iteration}')


def check_released(theirs: Mapping[str, Any], config: Config) -> None:
    """Compare the switches of a released configuration."""
    model = config.model
    defaults = inspect.signature(FCCLIPHead).parameters

    def option(name: str) -> Any:
        return model.decode_head.get(name, defaults[name].default)

    assert model.backbone.arch.removesuffix('-quickgelu') == theirs['clip']
    assert model.backbone.pretrained == theirs['clip_weights']
    assert option('seen_weight') == theirs['alpha']
    assert option('unseen_weight') == theirs['beta']
    assert option('skip_uncovered') == theirs['valid_mask']
    assert option('num_queries') == theirs['queries']
    (resize,) = (p for p in config.test_pipeline if 'Resize' in p.type)
    assert resize.scale == theirs['min_size_test']
    assert resize.max_size == theirs['max_size_test']
    at_original = model.test_cfg.get('mask_sums') == 'original'
    assert at_original == theirs['resize_masks_before_inference']


#: Our name of each recorded list.
VOCABULARIES = {
    'openvocab_coco_2017_train_panoptic_with_sem_seg': 'fcclip_coco_133',
    'openvocab_ade20k_panoptic_val': 'fcclip_ade20k_150',
    'openvocab_pascal20_sem_seg_val': 'fcclip_voc12_20',
    'openvocab_pascal21_sem_seg_val': 'fcclip_voc12_21',
    'openvocab_pascal_ctx59_sem_seg_val': 'fcclip_context_59',
}


@check('fcclip_vocabularies')
def vocabularies(golden: GoldenFile) -> None:
    content = golden.json
    assert [*resolve_templates('vild')] == content['templates']
    for name, recorded in content['vocabularies'].items():
        split = get_split(VOCABULARIES[name])
        # A synonym that is listed twice stands once in ours.
        theirs = [[*dict.fromkeys(n.split(','))] for n in recorded['classes']]
        assert [each.split('|') for each in split.classes] == theirs
        flags = [bool(flag) for flag in recorded['seen_in_training_names']]
        assert [each in split.seen for each in split.classes] == flags
