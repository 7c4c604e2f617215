"""LSeg through the command-line tools: Shapes, and an official checkpoint in small."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from official_layouts import fss1000
from PIL import Image
from test_esda_runs import write_coco, write_voc
from torch import Tensor

from mmengine.config import Config
from mmseg.registry import MODELS

from zs3_mmseg.models.towers import load_clip, release_towers, text_features
from zs3_mmseg.utils.checkpoint import load_into, safe_load

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/lseg'
RECORDED = Path(__file__).parents[1] / 'data/golden'
SHORT = [
    'train_cfg.max_iters=2',
    'train_cfg.val_interval=2',
    'train_dataloader.batch_size=4',
    *(
        f'{phase}_dataloader.{key}'
        for phase in ('train', 'val', 'test')
        for key in ('num_workers=0', 'persistent_workers=False')
    ),
    *(
        f'{phase}_dataloader.dataset.dataset.num_images={number}'
        for phase, number in (('train', 24), ('val', 4), ('test', 4))
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'score'),
    [
        ('shapes_tiny', 'hIoU'),
        ('shapes_tiny_clip', 'hIoU'),
        ('shapes_tiny_fold', 'FB_IoU'),
    ],
)
def test_training_and_test_on_shapes(
    run_tool, tmp_path: Path, name: str, score: str
) -> None:
    config = CONFIGS / f'{name}.py'
    options = ['--cfg-options', *SHORT]
    trained = run_tool('train.py', config, *options, folder=tmp_path)
    assert trained.status == 0, trained.output
    checkpoint = tmp_path / f'work_dirs/lseg/{name}/iter_2.pth'
    tested = run_tool('test.py', config, checkpoint, *options, folder=tmp_path)
    assert tested.status == 0, tested.output
    scores = json.loads((tmp_path / f'work_dirs/lseg/{name}/metrics.json').read_text())
    assert score in scores


@pytest.mark.slow
def test_scales_and_windows_are_added_up(run_tool, tmp_path: Path) -> None:
    config, options = CONFIGS / 'shapes_tiny.py', ['--cfg-options', *SHORT]
    run_tool('train.py', config, *options, folder=tmp_path)
    own = tmp_path / 'windows.py'
    own.write_text(
        f"_base_ = ['{config}']\n"
        'view = [[dict(type="LoadAnnotations")], [dict(type="PackSegInputs")]]\n'
        'tta_pipeline = [\n'
        '    dict(type="LoadImageFromFile"),\n'
        '    dict(type="TestTimeAug", transforms=view),\n'
        ']\n'
        'tta_model = dict(\n'
        '    type="MultiScaleWindowTTAModel", base_size=128, crop_size=96, stride=64,\n'
        '    scales=(0.5, 1.0), summed="logit",\n'
        ')\n'
    )
    tested = run_tool(
        'test.py',
        own,
        tmp_path / 'work_dirs/lseg/shapes_tiny/iter_2.pth',
        '--tta',
        *options,
        folder=tmp_path,
    )
    assert tested.status == 0, tested.output
    assert 'hIoU' in tested.output


TINY_FOLD = """
_base_ = ['{config}']

one_process = dict(num_workers=0, persistent_workers=False)
width = 16
model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmViT',
        model='vit_tiny_patch16_224',
        img_size=64,
        embed_dim=width,
        depth=4,
        num_heads=2,
        out_indices=(0, 1, 2, 3),
    ),
    class_embeddings=dict(source=dict(arch='zs3-shapes-tiny', pretrained='shapes')),
    decode_head=dict(
        in_channels=[width] * 4, post_process_channels=[4] * 4, channels=8
    ),
)
train_cfg = dict(max_epochs=1, val_interval=1)
train_dataloader = dict(**one_process, batch_size=2)
val_dataloader = one_process
test_dataloader = dict(**one_process, dataset=dict(num_episodes=5))
"""


@pytest.mark.slow
def test_pascal_fold_with_two_words(run_tool, tmp_path: Path) -> None:
    write_voc(tmp_path / 'data/VOCdevkit/VOC2012')
    config = tmp_path / 'tiny_fold.py'
    config.write_text(TINY_FOLD.format(config=CONFIGS / 'pascal5i_vitl16_fold0.py'))
    trained = run_tool('train.py', config, folder=tmp_path)
    assert trained.status == 0, trained.output
    # The image with the boat, which is unseen, holds no class of the training.
    assert re.search(r'\(train\): 6 of 9 images with seen classes', trained.output)
    checkpoint = tmp_path / 'work_dirs/tiny_fold/epoch_1.pth'
    tested = run_tool('test.py', config, checkpoint, '--out', 'masks', folder=tmp_path)
    assert tested.status == 0, tested.output
    assert '5 episodes' in tested.output
    # Scored as the network sees them, not at 40 x 60.
    masks = [*(tmp_path / 'masks').glob('*.png')]
    assert {Image.open(path).size for path in masks} == {(480, 480)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'folder', 'write', 'seen'),
    [
        ('coco20i_vitl16_fold0', 'coco2014', write_coco, '3 of 5'),
        # All folders, and two pictures of each subset.
        ('fss1000_vitl16', 'FSS-1000', fss1000, '2 of 2'),
    ],
)
def test_other_data_of_pairs(
    run_tool, tmp_path: Path, name: str, folder: str, write: Any, seen: str
) -> None:
    write(tmp_path / 'data' / folder)
    config = tmp_path / 'tiny_fold.py'
    config.write_text(TINY_FOLD.format(config=CONFIGS / f'{name}.py'))
    options = ['test_dataloader.dataset.num_episodes=None'] if 'fss' in name else []
    options = ['--cfg-options', *options] if options else []
    trained = run_tool('train.py', config, *options, folder=tmp_path)
    assert trained.status == 0, trained.output
    assert f'(train): {seen} images with seen classes' in trained.output
    checkpoint = tmp_path / 'work_dirs/tiny_fold/epoch_1.pth'
    tested = run_tool('test.py', config, checkpoint, *options, folder=tmp_path)
    assert tested.status == 0, tested.output
    assert 'FB_IoU' in tested.output


#: A text tower with room for CLIP's words.
ARCH: dict[str, Any] = {
    'embed_dim': 512,
    'quick_gelu': True,
    'vision_cfg': {'image_size': 32, 'patch_size': 16, 'width': 64, 'layers': 1},
    'text_cfg': {
        'context_length': 8,
        'vocab_size': 49408,
        'width': 8,
        'heads': 2,
        'layers': 2,
    },
}


@pytest.fixture
def official(tmp_path: Path) -> dict[str, Tensor]:
    """Random weights under the keys of a recorded two-word network, in a file."""
    tensors = json.loads((RECORDED / 'lseg_zs_vit.json').read_text())['tensors']
    shapes = {
        key.removeprefix('state.'): value['shape']
        for key, value in tensors.items()
        if key.startswith('state.')
    } | {'clip_pretrained.token_embedding.weight': [49408, 8]}
    generator = torch.Generator().manual_seed(0)
    state = {
        key: torch.randn(shape, generator=generator) / math.sqrt((shape or [1])[-1])
        for key, shape in shapes.items()
    }
    lightning = {f'net.{key}': value for key, value in state.items()}
    torch.save(dict(epoch=3, state_dict=lightning), tmp_path / 'official.ckpt')
    (tmp_path / 'arch.json').write_text(json.dumps(ARCH))
    (tmp_path / 'gelu.json').write_text(json.dumps({**ARCH, 'quick_gelu': False}))
    yield state
    release_towers()


def convert(run_tool, folder: Path, *flags: str) -> Any:
    arguments = ['lseg', 'official.ckpt', 'ours.pth', '--split', 'pascal5i_1']
    return run_tool('convert_checkpoint.py', *arguments, *flags, folder=folder)


def test_a_converted_file_needs_no_text_tower(run_tool, tmp_path, official) -> None:
    flags = ['--arch', 'arch.json', '--two-words']
    flags += ['--text-tower-out', 'text.safetensors']
    finished = convert(run_tool, tmp_path, *flags)
    assert finished.status == 0, finished.output
    assert '0 UNKNOWN' in finished.output
    text = finished.output
    text = text[text.index('model = dict(') : text.index('\nFor text.safe')]
    (tmp_path / 'model.py').write_text(text)
    config = Config.fromfile(tmp_path / 'model.py').model
    config.class_embeddings.source.update(arch=ARCH, pretrained='nowhere.safetensors')
    model = MODELS.build(config).eval()
    assert load_into(model, safe_load(tmp_path / 'ours.pth')).clean
    head = model.decode_head
    for ours, theirs in (
        (model.backbone.vit.cls_token, 'pretrained.model.cls_token'),
        (head.convs[3].weight, 'scratch.layer4_rn.weight'),
        (head.fusion_blocks[3].project.conv.bias, 'scratch.refinenet1.out_conv.bias'),
    ):
        assert torch.equal(ours, official[theirs])
    clip = load_clip(ARCH, tmp_path / 'text.safetensors', need='text')
    with torch.no_grad():
        words = ['others', *model.class_names]
        rows = text_features(clip.model, clip.tokenizer(words))[0]
    rows = rows / rows.norm(dim=1, keepdim=True)
    pairs = model._pair_queries(model.current_queries(), [0, 3])
    for pair, name in enumerate((0, 3)):
        torch.testing.assert_close(
            pairs.embeddings[pair], rows[[0, 1 + name]], rtol=1e-4, atol=1e-5
        )
    with torch.no_grad():
        scores = model.encode_decode(torch.randn(1, 3, 64, 96), [{}])
    assert scores.shape == (1, 20, 64, 96)


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ([], 'width 512 with rows of 512 values, and the checkpoint one of 8'),
        (['--arch', 'ViT-B-16-quickgelu', '--split', 'nowhere'], 'nowhere'),
        (
            ['--arch', 'ViT-L-14-quickgelu'],
            'with rows of 768 values, and the checkpoint',
        ),
        (['--arch', 'gelu.json'], 'QuickGELU'),
    ],
)
@pytest.mark.usefixtures('official')
def test_flags_that_do_not_fit_end_in_one_line(
    run_tool, tmp_path, flags: list[str], message: str
) -> None:
    finished = convert(run_tool, tmp_path, *flags)
    assert finished.status != 0
    assert message in finished.output
    assert 'Traceback' not in finished.output
