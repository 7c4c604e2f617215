"""Official checkpoints of full size through the converter into the published model."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from registry import GoldenFile, check
from torch import Tensor, nn

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from zs3_mmseg.apis.init import find_config
from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.engine.converters import CONVERTERS, Conversion
from zs3_mmseg.utils.checkpoint import load_into

#: Rows of ``empty_weight`` to the data of a training, and whether it has all classes.
TRAININGS = {
    16: ('voc_vitb16', False),
    21: ('voc_vitb16', True),
    157: ('cocostuff_vitb16', False),
    172: ('cocostuff_vitb16', True),
}
#: Recordings to the converter, which is called as the folder of configs, and to the end
#: of its configs that train all classes.
METHODS = {
    'zegclip': ('zegclip', '_fully'),
    'otseg': ('otseg', '_fully'),
    'cascade': ('cascade_clip', '_transductive'),
}
EMPTY_WEIGHT = 'decode_head.loss_decode.criterion.empty_weight'
#: What the official code stores and never uses, of a decoder with layers 0..2.
DEAD = re.compile(
    r'text_encoder\..*|decode_head\.loss_decode\.criterion\.empty_weight'
    r'|decode_head\.(decoder_1|cascade_decoders\.\d)\.layers\.'
    r'(\d\.(self_attn|norm1)|2\.(multihead_attn\.(v|proj)|linear\d|norm\d))\..*'
)
TRAINED = re.compile(r'decode_head\..*|backbone\..*prompt.*')


def numbered(keys: dict[str, list[int]]) -> dict[str, Tensor]:
    """Return weights of these shapes, each filled with a number of its own."""
    return {
        key: torch.tensor(float(number)).expand(shape)
        for number, (key, shape) in enumerate(keys.items())
    }


def converted(
    method: str, prompts: int, state: dict[str, Tensor], split: str, setting: str
) -> Conversion:
    """Run the converter on files as a release has them."""
    with TemporaryDirectory() as folder:
        source, rows = Path(folder) / 'official.pth', Path(folder) / 'rows.npy'
        torch.save(dict(meta={}, state_dict=state), source)
        generator = np.random.default_rng(0)
        count = len(get_split(split).classes)
        shape = (count, prompts, 512) if prompts > 1 else (count, 512)
        np.save(rows, generator.normal(size=shape).astype(np.float16))
        converter = CONVERTERS[method]()
        parser = argparse.ArgumentParser()
        converter.add_arguments(parser)
        flags = ['--split', split, '--setting', setting, '--text-rows', str(rows)]
        arguments = parser.parse_args(flags)
        arguments.trust = False
        return converter.convert(source, arguments)


def published(config: Config) -> nn.Module:
    """Build the model of a config, without reading any weights of CLIP."""
    init_default_scope(config.default_scope)
    config.model.backbone.pretrained = None
    config.model.class_embeddings.source.pretrained = None
    return MODELS.build(config.model)


@check(*(f'{name}_vitb16_keys' for name in METHODS))
def full_size(golden: GoldenFile) -> None:
    keys: dict[str, Any] = golden.json['keys']
    method, ending = METHODS[golden.name.partition('_')[0]]
    data, every = TRAININGS[keys[EMPTY_WEIGHT][0]]
    path = f'{method}/{data}{ending if every else ""}'
    config = Config.fromfile(find_config(path))
    model = published(config)
    state = numbered(keys)
    prompts = model.vocabulary.prompts_per_row
    where = config.model.split, config.model.setting
    conversion = converted(method, prompts, state, *where)
    assert conversion.complete, str(conversion)
    assert set(conversion.dropped) == {key for key in keys if DEAD.fullmatch(key)}

    extra = {'_extra_state': conversion.extra_state}
    assert load_into(model, conversion.state | extra).clean
    loaded = model.state_dict()
    for new, old in conversion.sources.items():
        assert torch.equal(loaded[new], state[old]), (new, old)

    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert learning == sum(
        state[key].numel()
        for key in keys
        if TRAINED.fullmatch(key) and not DEAD.fullmatch(key)
    )
    if path == 'zegclip/voc_vitb16':
        assert round(learning / 1e6, 2) == 8.04
