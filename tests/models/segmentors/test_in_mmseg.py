"""The segmentor of real parts, driven by mmseg's and mmengine's own machinery."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import distributed as dist

import mmcv
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmseg.apis import MMSegInferencer, inference_model, init_model

from zs3_mmseg.datasets.splits import resolve_split
from zs3_mmseg.models.segmentors import ZeroShotEncoderDecoder

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 32), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]


@pytest.fixture
def config(tiny_config):
    tower = dict(arch=tiny_config(), pretrained=None)
    return Config(
        dict(
            default_scope='mmseg',
            test_pipeline=PIPELINE,
            test_dataloader=dict(dataset=dict(pipeline=PIPELINE)),
            visualizer=dict(type='SegLocalVisualizer'),
            model=dict(
                type='ZeroShotEncoderDecoder',
                split='shapes_a',
                setting='inductive',
                data_preprocessor=dict(
                    type='SegDataPreProcessor',
                    mean=[123.0, 117.0, 104.0],
                    std=[69.0, 67.0, 70.0],
                    bgr_to_rgb=True,
                    size_divisor=8,
                ),
                class_embeddings=dict(
                    type='ClassEmbeddingBank', source=dict(type='clip_text', **tower)
                ),
                backbone=dict(type='OpenCLIPViT', out_global=True, **tower),
                decode_head=dict(type='TextPixelHead'),
                calibrators=[dict(type='ImageLevelGate', weight=0.5)],
                test_cfg=dict(mode='whole'),
            ),
        )
    )


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)


def test_a_saved_model_predicts_the_same_in_a_new_one(config, picture, tmp_path):
    """The random text tower gives other rows each time: those of the file count."""
    model = init_model(config, device='cpu')
    result = inference_model(model, picture)
    assert result.pred_sem_seg.data.shape == (1, 30, 50)
    assert result.seg_logits.data.shape == (20, 30, 50)
    path = str(tmp_path / 'model.pth')
    meta = dict(dataset_meta=dict(model.dataset_meta, split='shapes_a'))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    again = inference_model(init_model(config, path, device='cpu'), picture)
    assert torch.equal(again.seg_logits.data, result.seg_logits.data)


@pytest.mark.parametrize('saved', ['everything', 'no_names', 'nothing'])
def test_mmsegs_inferencer_draws_our_classes(config, picture, tmp_path, log, saved):
    """Where it knows no names it takes those of Cityscapes; the segmentor does not."""
    mmcv.imwrite(picture, str(tmp_path / 'a.png'))
    weights = None
    if saved != 'nothing':
        weights = str(tmp_path / 'model.pth')
        model = init_model(config, device='cpu')
        meta = dict(dataset_meta=dict(model.dataset_meta, split='shapes_a'))
        meta = meta if saved == 'everything' else {}
        torch.save(dict(state_dict=model.state_dict(), meta=meta), weights)
    inferencer = MMSegInferencer(config, weights, device='cpu', show_progress=False)
    output = inferencer(str(tmp_path / 'a.png'), out_dir=str(tmp_path))
    assert output['predictions'].shape == (30, 50)
    assert (tmp_path / 'vis' / 'a.png').is_file()
    assert inferencer.visualizer.dataset_meta['classes'][0] == 'star'
    assert len(inferencer.visualizer.dataset_meta['palette']) == 20
    told = [r.getMessage() for r in log if 'dataset_meta' in r.getMessage()]
    assert bool(told) == (saved != 'everything')
    assert all('keeps its 20 classes (star, ...)' in line for line in told)


@pytest.mark.parametrize('split', ['shapes_a', 'voc12_15_5'])
def test_names_of_the_training_in_a_checkpoint_are_nothing_to_talk_of(
    config, log, split
):
    model = init_model(config, device='cpu')
    model.set_classes(['moon', 'two words'])
    classes = list(resolve_split(split).classes)
    model.dataset_meta = dict(classes=classes, palette=[[1, 2, 3]] * len(classes))
    assert model.dataset_meta['classes'] == ('moon', 'two words')
    told = [r for r in log if 'dataset_meta' in r.getMessage()]
    assert len(told) == (split != 'shapes_a')


def test_one_step_under_distributed_training(config, make_samples, tmp_path):
    init_default_scope('mmseg')
    options = config.model.copy()
    options.pop('type')
    model = ZeroShotEncoderDecoder(**options)
    dist.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    try:
        wrapped = MMDistributedDataParallel(model, device_ids=None)
        optimizer = torch.optim.SGD(
            [p for p in model.parameters() if p.requires_grad], lr=0.1
        )
        before = model.decode_head.projection.weight.clone()
        data = dict(
            inputs=[torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8)] * 2,
            data_samples=make_samples(torch.randint(0, 20, (2, 24, 24))),
        )
        wrapped.train()
        logged = wrapped.train_step(data, OptimWrapper(optimizer))
        assert logged['loss'] == logged['decode.loss_ce']
        assert not torch.equal(model.decode_head.projection.weight, before)
        assert len(wrapped.state_dict()['module._extra_state']['classes']) == 20
    finally:
        dist.destroy_process_group()


def test_only_the_head_is_trained_and_saved_names_are_plain(config):
    init_default_scope('mmseg')
    options = config.model.copy()
    options.pop('type')
    model = ZeroShotEncoderDecoder(**options)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {
        'decode_head.projection.weight',
        'decode_head.projection.bias',
        'decode_head.log_scale',
    }
    assert not any('text' in name or 'token' in name for name in model.state_dict())


def test_the_network_compiles_without_a_break(config):
    init_default_scope('mmseg')
    options = config.model.copy()
    options.pop('type')
    model = ZeroShotEncoderDecoder(**options).eval()
    image = torch.randn(1, 3, 32, 32)
    model.current_queries()  # made once, by the text tower
    with torch.no_grad():
        compiled = torch.compile(model._forward, fullgraph=True, backend='eager')
        first = compiled(image)
        torch.testing.assert_close(first, model(image, mode='tensor'))
