"""Official ESDA checkpoints of full size through the converter."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from registry import GoldenFile, check

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from zs3_mmseg.apis.init import find_config
from zs3_mmseg.engine.converters import ESDAConverter
from zs3_mmseg.utils.checkpoint import load_into

#: Position embeddings to the config of such a training.
CONFIGS = {
    901: 'esda/pascal5i_vitb16_fold0',
    485: 'esda/coco20i_vitb16_fold0',
}
#: Kept as rows, and in a file of its own if asked for.
TEXT_TOWER = re.compile(r'text_encoder\..*')
TRAINED = re.compile(r'decoder\..*|image_encoder\.(text_cls_proj|prompt)\..*')


@check('esda_vitb16_keys')
def full_size(golden: GoldenFile) -> None:
    # Each weight is filled with a number of its own, small enough for a text tower.
    state = {
        key: torch.tensor(1e-3 * number).expand(shape)
        for number, (key, shape) in enumerate(golden.json['keys'].items(), start=1)
    }
    positions = len(state['image_encoder.positional_embedding'])
    config = Config.fromfile(find_config(CONFIGS[positions]))
    with TemporaryDirectory() as folder:
        source = Path(folder) / 'official.pth'
        torch.save(dict(epoch=1, state_dict=state), source)
        parser = argparse.ArgumentParser()
        ESDAConverter.add_arguments(parser)
        arguments = parser.parse_args(['--split', config.model.split])
        arguments.trust = False
        conversion = ESDAConverter().convert(source, arguments)
    assert conversion.complete, str(conversion)
    assert set(conversion.dropped) == {key for key in state if TEXT_TOWER.match(key)}

    init_default_scope(config.default_scope)
    config.model.backbone.pretrained = None
    config.model.class_embeddings.source.pretrained = None
    model = MODELS.build(config.model)
    extra = {'_extra_state': conversion.extra_state}
    assert load_into(model, conversion.state | extra).clean
    loaded = model.state_dict()
    for new, old in conversion.sources.items():
        assert torch.equal(loaded[new], state[old]), (new, old)

    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert learning == sum(state[k].numel() for k in state if TRAINED.fullmatch(k))
    assert learning == 39_191_938
