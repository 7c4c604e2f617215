"""Official ZS3Net segmentors of full size through the converter."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from registry import GoldenFile, check

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from zs3_mmseg.apis.init import find_config
from zs3_mmseg.datasets.splits import find_name, get_split
from zs3_mmseg.engine.converters import ZS3NetConverter
from zs3_mmseg.engine.converters.zs3net import CONTEXT_ORDER
from zs3_mmseg.utils.checkpoint import load_into

#: Number of classes to a config with as many and their official order.
CONFIGS = {
    21: ('voc_r101_deeplabv3plus_2unseen_step1', get_split('voc12_zs3_2').classes),
    60: ('context_r101_deeplabv3plus_2unseen_step1', CONTEXT_ORDER),
}


@check('zs3_deeplab_keys')
def full_size(golden: GoldenFile) -> None:
    # Each weight is filled with a number of its own, each class of the classifier too.
    state = {
        key: torch.tensor(float(number)).expand(shape)
        for number, (key, shape) in enumerate(golden.json['keys'].items())
    }
    classifier = state['decoder.pred_conv.weight']
    rows = torch.arange(float(len(classifier)))[:, None, None, None]
    state['decoder.pred_conv.weight'] = rows.expand_as(classifier)
    state['decoder.pred_conv.bias'] = rows.flatten()
    name, order = CONFIGS[len(classifier)]
    config = Config.fromfile(find_config(f'zs3net/{name}'))
    split = get_split(config.train_dataloader.dataset.split)
    with TemporaryDirectory() as folder:
        source = Path(folder) / 'official.pth.tar'
        torch.save(dict(epoch=1, state_dict=state, best_pred=0.0), source)
        parser = argparse.ArgumentParser()
        ZS3NetConverter.add_arguments(parser)
        arguments = parser.parse_args(['--split', split.name])
        arguments.trust = False
        conversion = ZS3NetConverter().convert(source, arguments)
    assert conversion.complete, str(conversion)
    assert not conversion.dropped

    init_default_scope(config.default_scope)
    config.model.backbone.init_cfg = None
    with torch.device('meta'):
        model = MODELS.build(config.model)
    model.to_empty(device='cpu')
    assert load_into(model, conversion.state).clean
    loaded = model.state_dict()
    assert set(loaded) == set(conversion.sources)
    classifiers = {'decode_head.conv_seg.weight', 'decode_head.conv_seg.bias'}
    for new, old in conversion.sources.items():
        if new not in classifiers:
            assert torch.equal(loaded[new], state[old]), (new, old)
    official = torch.tensor([find_name(name, order) for name in split.classes])
    for new in classifiers:
        assert torch.equal(
            loaded[new].flatten(1)[:, 0] if loaded[new].ndim > 1 else loaded[new],
            official.float(),
        ), new
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert learning == sum(
        value.numel()
        for key, value in state.items()
        if not key.endswith(('running_mean', 'running_var', 'num_batches_tracked'))
    )
