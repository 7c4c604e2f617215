"""SAZS's whole networks against the official code: evaluation, one training step."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from checks_esda import samples_of
from checks_schedules import sgd, values_over
from registry import GoldenFile, assert_close, check
from torch import Tensor, nn

from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS

from zs3_mmseg.apis.init import find_config
from zs3_mmseg.datasets.class_edges import GenerateClassEdges
from zs3_mmseg.engine.converters import Conversion, SAZSConverter
from zs3_mmseg.engine.schedulers import WarmupPolyLR
from zs3_mmseg.models.class_embeddings import ClassQueries

#: Our losses, the official ones, and the weights of these in the total.
LOSSES = {
    'loss_seg': ('loss_seg', 1.0),
    'loss_edge': ('loss_edge', 0.3),
    'loss_attention': ('loss_att', 0.1),
}
VOID = 255


def converted(state: dict[str, Tensor], *flags: str) -> Conversion:
    """Put official weights through the converter, as a file of the official trainer."""
    with TemporaryDirectory() as folder:
        source = Path(folder) / 'official.pth'
        torch.save(dict(epoch=1, arch='', state_dict=state, best_prec1=0.0), source)
        parser = argparse.ArgumentParser()
        SAZSConverter.add_arguments(parser)
        arguments = parser.parse_args(flags)
        arguments.trust = False
        conversion = SAZSConverter().convert(source, arguments)
    assert conversion.complete, str(conversion)
    return conversion


def parts_of(conversion: Conversion) -> dict[str, Any]:
    """Return the model config in the notes of a conversion."""
    text = conversion.notes[conversion.notes.index('model = ') :]
    return Config.fromstring(text, '.py').model


def model_of(conversion: Conversion, **backbone: Any) -> nn.ModuleDict:
    """Build backbone and head from the config that the converter tells."""
    config = parts_of(conversion)
    width = conversion.state['decode_head.edge.weight'].shape[1]
    model = nn.ModuleDict(
        dict(
            backbone=MODELS.build({**config.backbone, **backbone}),
            decode_head=MODELS.build({**config.decode_head, 'in_channels': width}),
        )
    )
    return model


def pair_queries(tensors: dict[str, Tensor], key: str) -> ClassQueries:
    """Return the two rows of each image, as the segmentor gives them to the head."""
    rows = tensors['text_rows'][tensors[key].long()]
    return ClassQueries(rows, torch.arange(2), torch.ones(2, dtype=torch.bool))


def check_evaluation(model: nn.ModuleDict, tensors: dict[str, Tensor]) -> None:
    model.eval()
    with torch.no_grad():
        maps = model['backbone'](tensors['x'])
        logits = model['decode_head'].forward(
            maps, queries=pair_queries(tensors, 'class_id')
        )
        edges = model['decode_head'].edge(maps[0])
    assert_close(maps[0], tensors['eval.features'], what='features')
    assert_close(edges, tensors['eval.edge'], what='edge logits')
    assert_close(logits.log_softmax(dim=1), tensors['eval.logprob'], what='scores')


def check_edge_targets(tensors: dict[str, Tensor]) -> None:
    """Compare the edge maps, if they were made by the rules of the data set."""
    for label, edges in zip(tensors['label'], tensors['edge_map'], strict=True):
        results: Any = dict(gt_seg_map=label.numpy())
        step = GenerateClassEdges(border=True, void_edges='contour')
        found = step(results)['gt_edge_map']
        listed = [value for value in label.unique().tolist() if value < VOID]
        if len(listed) and max(listed) < 20:
            assert torch.equal(torch.from_numpy(found).float(), edges)


def check_training(
    model: nn.ModuleDict, conversion: Conversion, golden: GoldenFile
) -> None:
    tensors, config = golden.tensors(), golden.json['config']
    check_edge_targets(tensors)
    model.train()
    head = model['decode_head']
    labels, wanted = tensors['label'].long(), tensors['class_id_train'].long()
    # A data set of pairs keeps void; the head makes it what it is for the losses.
    binary = (
        (labels == wanted[:, None, None] + 1).long().masked_fill_(labels == VOID, VOID)
    )
    samples = samples_of(binary)
    for sample, edges in zip(samples, tensors['edge_map'], strict=True):
        sample.set_data(dict(gt_edge_map=PixelData(data=edges[None].long())))
    outputs = head.training_outputs(
        model['backbone'](tensors['x_train']),
        queries=pair_queries(tensors, 'class_id_train'),
    )
    scores = outputs.logits.log_softmax(dim=1)
    assert_close(scores, tensors['train.logprob'], what='training scores')
    assert_close(outputs.edges, tensors['train.edge'], what='training edges')
    losses = head.loss_by_feat(outputs, samples)
    for ours, (theirs, weight) in LOSSES.items():
        assert_close(losses[ours], weight * tensors[f'train.{theirs}'][0], what=ours)
    total = sum(losses[name] for name in LOSSES)
    assert_close(total, tensors['train.loss'][0], what='total loss')

    rate = config['lr']
    optimizer = torch.optim.SGD(
        model.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4
    )
    scheduler = WarmupPolyLR(optimizer, power=0.9, end=config['epochs'], by_epoch=True)
    for _ in range(config['epoch']):
        optimizer.step()
        scheduler.step()
    assert_close(optimizer.param_groups[0]['lr'], golden.json['lr_in_force'][0])
    total.backward()
    official = {old: new for new, old in conversion.sources.items()}
    parameters = dict(model.named_parameters())
    for key in [k for k in tensors if k.startswith('grad.')]:
        gradient = parameters[official[key.removeprefix('grad.')]].grad
        assert_close(gradient, tensors[key], 'gradient', what=key)
    idle = set(golden.json['parameters_without_gradient'])
    assert idle <= set(conversion.dropped)
    optimizer.step()
    state = model.state_dict()
    for key in [k for k in tensors if k.startswith('after.')]:
        name = key.removeprefix('after.')
        if name in official:
            assert_close(state[official[name]], tensors[key], what=key)


@check('sazs_whole_vit')
def vit(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    flags = ('--last-block', str(config['hooks'][1]), '--heads', str(config['heads']))
    conversion = converted(golden.state(), *flags)
    model = model_of(conversion)
    model.load_state_dict(conversion.state)
    check_evaluation(model, tensors)
    check_training(model, conversion, golden)


@check('sazs_whole_drn')
def drn(golden: GoldenFile) -> None:
    tensors = golden.tensors()
    conversion = converted(golden.state())
    # Dropout was off in the recorded step.
    model = model_of(conversion, dropout_ratio=0.0)
    model.load_state_dict(conversion.state)
    check_evaluation(model, tensors)
    check_training(model, conversion, golden)


@check('sazs_vitl16_keys', 'sazs_drn105_keys')
def full_size(golden: GoldenFile) -> None:
    keys = golden.json['keys']
    state = {
        key: torch.tensor(float(number)).expand(shape)
        for number, (key, shape) in enumerate(keys.items(), start=1)
    }
    conversion = converted(state)
    assert {*conversion.sources.values(), *conversion.dropped} == set(keys)
    if 'used' in golden.json:
        assert {*conversion.sources.values()} == set(golden.json['used'])
    parallel = converted({f'module.{key}': value for key, value in state.items()})
    assert parallel.state.keys() == conversion.state.keys()
    with torch.device('meta'):
        parameters = sum(p.numel() for p in model_of(conversion).parameters())
    counts = golden.json['parameters']
    idle = sum(
        state[key].numel()
        for key in conversion.dropped
        if not key.endswith(('running_mean', 'running_var', 'num_batches_tracked'))
    )
    assert parameters + idle == counts['total']
    assert parameters == counts.get('reaching_the_outputs', parameters)


#: Config of ours for each recorded training script.
CONFIGS = {
    'pascal_vit': 'pascal5i_vitl16_fold0',
    'coco_vit': 'coco20i_vitl16_fold0',
    'pascal_drn': 'pascal5i_drn105_fold0',
    'coco_drn': 'coco20i_drn105_fold0',
}
STEP = dict(type='StepLR', by_epoch=True, gamma=0.1)


@check('sazs_optimizer')
def optimizer(golden: GoldenFile) -> None:
    for case in golden.json['cases']:
        config = Config.fromfile(find_config(f'sazs/{CONFIGS[case["script"]]}'))
        settings = config.optim_wrapper.optimizer
        assert 'paramwise_cfg' not in config.optim_wrapper
        assert (settings.type, settings.momentum) == ('SGD', 0.9)
        assert settings.weight_decay == 1e-4
        schedule = config.param_scheduler
        if case['mode'] == 'step':
            schedule = [dict(STEP, step_size=case['step'])]
        elif golden.name == 'sazs_optimizer':
            ours = (settings.lr, config.train_cfg.max_epochs)
            assert ours == (case['lr'], case['epochs']), case['name']
        # The schedule sets one rate for all groups, whatever they began with.
        rates = values_over(schedule, sgd(case['lr']), case['epochs'])
        for epoch, recorded in case['lr_by_epoch'].items():
            if epoch.isdigit():
                np.testing.assert_allclose(
                    rates[int(epoch)] * len(recorded), recorded, rtol=1e-9
                )
