"""Official LSeg checkpoints of full size through the converter."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from registry import GoldenFile, check, longest_prefix
from torch import Tensor

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from zs3_mmseg.apis.init import find_config
from zs3_mmseg.engine.converters import Conversion, LSegConverter
from zs3_mmseg.models.towers import load_clip, resolve_architecture

#: What nothing reads, and what is kept as rows.
DROPPED = re.compile(
    r'clip_pretrained\..*|pretrained\.model\.(norm|head)\..*'
    r'|scratch\.refinenet4\.resConfUnit1\..*'
)
#: The config of a training of this size, if there is one. Twenty names have their rows
#: in seconds.
CONFIGS = {
    'lseg_vitl16_keys': 'lseg/pascal5i_vitl16_fold0',
    'lseg_vitb32_keys': None,
    'lseg_rn101_zs_keys': 'lseg/pascal5i_rn101_fold0',
}
FLAGS = ['--split', 'pascal5i_0', '--two-words']


def clip_keys() -> dict[str, list[int]]:
    """Return the keys of CLIP, which some tables leave out, as they are."""
    with torch.device('meta'):
        tower = load_clip(resolve_architecture('ViT-B-32-quickgelu')).model
    return {
        f'clip_pretrained.{key}': list(value.shape)
        for key, value in tower.state_dict().items()
        if key != 'attn_mask'
    }


def numbered(keys: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return weights of these shapes, small and each of its own value."""
    return {
        key: torch.tensor(1e-4 * number).expand(shape)
        for number, (key, shape) in enumerate(keys.items(), start=1)
    }


def converted(keys: Mapping[str, Any]) -> Conversion:
    with TemporaryDirectory() as folder:
        source = Path(folder) / 'official.ckpt'
        state = {f'net.{key}': value for key, value in numbered(keys).items()}
        torch.save(dict(epoch=1, state_dict=state), source)
        parser = argparse.ArgumentParser()
        LSegConverter.add_arguments(parser)
        arguments = parser.parse_args(FLAGS)
        arguments.trust = False
        return LSegConverter().convert(source, arguments)


@check(*CONFIGS)
def full_size(golden: GoldenFile) -> None:
    name = CONFIGS[longest_prefix(golden.name, CONFIGS)]
    keys = golden.json['keys']
    if not any(key.startswith('clip_pretrained.') for key in keys):
        keys = {**clip_keys(), **keys}
    conversion = converted(keys)
    assert conversion.complete, str(conversion)
    assert set(conversion.dropped) == {key for key in keys if DROPPED.fullmatch(key)}
    parts = golden.json['parameters']
    assert parts['trunk'] + parts['decoder'] == sum(
        torch.Size(shape).numel()
        for key, shape in keys.items()
        if not key.startswith('clip_pretrained.')
        and not re.search(r'running_|num_batches', key)
    )
    if name is not None:
        fits(conversion, name)
    for extra in golden.json.get('extra_keys_with_arch_option', {}).values():
        with pytest.raises(ValueError, match='--spatial-block'):
            converted({**keys, **extra})


def fits(conversion: Conversion, name: str) -> None:
    """Compare with the model of a config, which needs no memory for it."""
    config = Config.fromfile(find_config(name))
    init_default_scope(config.default_scope)
    config.model.backbone.pretrained = None
    config.model.backbone.pop('init_cfg', None)
    config.model.class_embeddings.source.pretrained = None
    with torch.device('meta'):
        model = MODELS.build(config.model)
        model.vocabulary.load(conversion.extra_state)
        ours = model.state_dict()
    assert {k: v.shape for k, v in ours.items() if k != '_extra_state'} == {
        k: v.shape for k, v in conversion.state.items()
    }
    assert list(ours['_extra_state']) == list(conversion.extra_state)
