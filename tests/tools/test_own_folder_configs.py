"""The shipped configs for own data: trained, tested and used on a drawn folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zs3_mmseg.apis import shipped_configs
from zs3_mmseg.models.towers import load_clip

pytestmark = pytest.mark.slow
DATA = 'drawn'
#: Stands in for ViT-B/16: as many blocks, a text tower and a joint space as wide.
TOWER = dict(
    embed_dim=512,
    quick_gelu=True,
    vision_cfg=dict(image_size=64, patch_size=16, width=16, head_width=8, layers=12),
    text_cfg=dict(width=512, heads=8, layers=1),
)
SMALL = 64
#: Sizes, so that 512 pixels need not be computed.
PHOTOS = f"""
crop_size = ({SMALL}, {SMALL})
train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(type='RandomCrop', crop_size=crop_size),
    *_base_.train_pipeline[-1:],
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='ResizeShortestEdge', scale=crop_size[0], max_size=9999),
    *_base_.test_pipeline[2:],
]
train = dict(pipeline=train_pipeline)
test = dict(pipeline=test_pipeline)
"""
BACKBONE = 'model.backbone'
TEXT = 'model.class_embeddings.source'
HOOK = 'custom_hooks.1.class_embeddings.source'
SHORT = ['custom_hooks.1.segmentor_iters=1', 'custom_hooks.1.generator_iters=1']
NO_STEPS = ['param_scheduler=[]']


def tower_at(*places: str) -> list[str]:
    return [
        f'{place}.{key}={file}'
        for place in places
        for key, file in (('arch', 'tower.json'), ('pretrained', 'tower.pt'))
    ]


TIMM = f'{BACKBONE}.backbone.pretrained=False'
WORDS = 'path=words.txt'
IMAGE_SIZE = f'{BACKBONE}.image_size=[{SMALL},{SMALL}]'
#: Config -> what replaces the weights, and what else a small run changes.
RUNS: dict[str, list[str]] = {
    'baselines/own_folder_linear': [],
    'clip_dense/own_folder': [],
    'clip_dense/own_folder_vitb16': tower_at(BACKBONE, TEXT),
    'esda/own_folder': [],
    'esda/own_folder_vitb16': [*tower_at(BACKBONE, TEXT), IMAGE_SIZE],
    'guided/own_folder': [],
    'guided/own_folder_vitb16': [*tower_at(BACKBONE, TEXT), IMAGE_SIZE],
    'openseg/own_folder': [],
    'openseg/own_folder_vitb16': [
        *tower_at(BACKBONE, TEXT),
        'model.decode_head.in_channels=[16,16,16,16]',
    ],
    'zegclip/own_folder': [],
    'zegclip/own_folder_vitb16': [*tower_at(BACKBONE, TEXT), IMAGE_SIZE],
    'zs3net/own_folder': [*SHORT, *NO_STEPS],
    'zs3net/own_folder_vitb16': [*tower_at(BACKBONE, HOOK), *SHORT, *NO_STEPS],
    'zs3net/own_folder_timm': [TIMM, f'{HOOK}.{WORDS}', *SHORT, *NO_STEPS],
    'zs3net/own_folder_timm_cosine': [TIMM, f'{TEXT}.{WORDS}'],
}


def test_every_config_for_own_data_is_run() -> None:
    names = {
        name for name in shipped_configs() if Path(name).name.startswith('own_folder')
    }
    assert names == RUNS.keys()


@pytest.fixture(scope='module')
def folder(run_tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder data set of Shapes, a CLIP, and vectors of the words."""
    folder = tmp_path_factory.mktemp('own_folder')
    arguments = (DATA, '--train', 6, '--val', 2)
    finished = run_tool('misc/export_shapes.py', *arguments, folder=folder)
    assert finished.status == 0, finished.output
    (folder / 'tower.json').write_text(json.dumps(TOWER))
    torch.save(load_clip(TOWER).model.state_dict(), folder / 'tower.pt')
    names = (folder / DATA / 'classes.txt').read_text().split('\n')
    words = sorted({word for name in names for word in name.split()})
    rows = np.random.default_rng(0).normal(size=(len(words), 300))
    lines = (
        ' '.join([word, *(f'{number:.2f}' for number in row)])
        for word, row in zip(words, rows, strict=True)
    )
    (folder / 'words.txt').write_text('\n'.join(lines) + '\n')
    return folder


def write_config(folder: Path, name: str) -> str:
    """Write the config of a user who has a folder of pictures."""
    shipped = shipped_configs()[name]
    photos = 'vitb16' in name or 'timm' in name
    lines = [
        f"_base_ = 'zs3_mmseg::{name}.py'",
        PHOTOS if photos and shipped.parent.name != 'clip_dense' else 'train = {}',
        '' if photos and shipped.parent.name != 'clip_dense' else 'test = {}',
        f'data_root = {DATA!r}',
        'split = dict(folder=data_root)',
        'inner = dict(data_root=data_root)',
        'test_dataloader = dict(',
        '    num_workers=0, persistent_workers=False,',
        '    dataset=dict(split=split, dataset=inner, **test))',
        'val_dataloader = test_dataloader',
    ]
    if shipped.parent.name != 'zs3net' or 'cosine' in name:
        lines.append('model = dict(split=split)')
    if shipped.parent.name != 'clip_dense':
        lines += [
            'train_dataloader = dict(',
            '    batch_size=2, num_workers=0, persistent_workers=False,',
            '    dataset=dict(split=split, dataset=inner, **train))',
        ]
    file = f'{name.replace("/", "_")}.py'
    (folder / file).write_text('\n'.join(lines) + '\n')
    return file


@pytest.mark.parametrize('name', RUNS)
def test_it_runs_from_training_to_a_picture(name: str, run_tool, folder: Path) -> None:
    config, work_dir = write_config(folder, name), folder / 'runs' / name
    options = ['--cfg-options', 'log_level=INFO', *RUNS[name]]
    checkpoint = None
    if not name.startswith('clip_dense'):
        by_epoch = name == 'esda/own_folder_vitb16'
        unit, length = ('epoch', 1) if by_epoch else ('iter', 3)
        ends = [f'train_cfg.max_{unit}s={length}', f'train_cfg.val_interval={length}']
        call = (config, '--work-dir', work_dir, *options, *ends)
        finished = run_tool('train.py', *call, folder=folder)
        assert finished.status == 0, finished.output
        checkpoint = work_dir / f'{unit}_{length}.pth'
    trained = [] if checkpoint is None else [checkpoint]
    call = (config, *trained, '--work-dir', work_dir, *options)
    finished = run_tool('test.py', *call, folder=folder)
    assert finished.status == 0, finished.output
    metrics = json.loads((work_dir / 'metrics.json').read_text())
    assert {'mIoU_seen', 'mIoU_unseen', 'hIoU'} <= metrics.keys()
    picture = next((folder / DATA / 'images/val').iterdir())
    trained = [] if checkpoint is None else ['--checkpoint', checkpoint]
    call = (picture, '--config', config, '--out-dir', work_dir, *trained, *options)
    finished = run_tool('segment.py', *call, folder=folder)
    assert finished.status == 0, finished.output
    with Image.open(work_dir / f'{picture.stem}_labels.png') as labels:
        assert labels.size == Image.open(picture).size


@pytest.mark.parametrize(
    'name', ['clip_dense/own_folder', 'clip_dense/own_folder_vitb16']
)
def test_sizes_are_averaged(name: str, run_tool, folder: Path) -> None:
    options = ['--cfg-options', 'log_level=INFO', *RUNS[name]]
    call = (write_config(folder, name), '--tta', '--work-dir', 'tta', *options)
    finished = run_tool('test.py', *call, folder=folder)
    assert finished.status == 0, finished.output


RESIZED = """
test_pipeline = [*_base_.test_pipeline]
test_pipeline[1] = dict(type='Resize', scale=(2048, 64), keep_ratio=True)
"""
HANDED_ON = """
test = dict(pipeline=test_pipeline)
val_dataloader = test_dataloader = dict(dataset=dict(**test))
"""


def test_all_tools_test_at_one_size(run_tool, folder: Path) -> None:
    file = write_config(folder, 'clip_dense/own_folder')
    (folder / 'alone.py').write_text(f'_base_ = {file!r}\n{RESIZED}')
    (folder / 'both.py').write_text(f'_base_ = {file!r}\n{RESIZED}{HANDED_ON}')
    picture = next((folder / DATA / 'images/val').iterdir())
    calls = {
        'test.py': ['--work-dir', 'sizes'],
        'segment.py': ['--out-dir', 'sizes'],
        'check_data.py': [],
    }
    for tool, arguments in calls.items():
        for config, status in (('alone.py', 2), ('both.py', 0)):
            start = [picture, '--config'] if tool == 'segment.py' else []
            finished = run_tool(tool, *start, config, *arguments, folder=folder)
            assert finished.status == status, finished.output
            if status:
                places = 'test_dataloader.dataset.pipeline, val_dataloader.dataset'
                assert places in finished.output
                assert 'Traceback' not in finished.output
    finished = run_tool('test.py', 'both.py', '--tta', folder=folder)
    assert finished.status == 2
    assert 'tta_pipeline, which was made for the former sizes' in finished.output


@pytest.mark.parametrize('weights', ['', '_laion2b'])
def test_photographs_need_words_and_nothing_else(
    weights: str, run_tool, folder: Path
) -> None:
    photo = folder / 'photo.png'
    Image.effect_noise((90, 60), 50).convert('RGB').save(photo)
    finished = run_tool(
        'segment.py',
        *(photo, '--classes', 'dog', 'wet grass', '--out-dir', 'photo'),
        *('--config', f'clip_dense/photo_vitb16{weights}'),
        *('--cfg-options', *tower_at(BACKBONE, TEXT)),
        folder=folder,
    )
    assert finished.status == 0, finished.output
    # Two names in 80 sentences, and not those of the config.
    assert 'encoding' not in finished.output
    assert (folder / 'photo/photo_labels.png').is_file()


WITHOUT_WEIGHTS = {
    'clip_dense/photo_vitb16': 'ViT-B-16.pt here and give the path',
    'clip_dense/photo_vitb16_laion2b': 'open_clip_pytorch_model.bin here',
    'clip_dense/own_folder_vitb16': 'ViT-B-16.pt here',
    'esda/own_folder_vitb16': 'ViT-B-16.pt here',
    'zegclip/own_folder_vitb16': 'ViT-B-16.pt here',
    'zs3net/own_folder_vitb16': 'ViT-B-16.pt here',
    'zs3net/own_folder_timm': 'here and set model.backbone.backbone.pretrained_cfg',
}


@pytest.mark.parametrize('name', WITHOUT_WEIGHTS)
def test_weights_out_of_reach_are_one_line(name: str, run_tool, folder: Path) -> None:
    photo = next((folder / DATA / 'images/val').iterdir())
    if name.startswith('clip_dense'):
        config = name if 'photo' in name else write_config(folder, name)
        call = (photo, '--classes', 'dog', '--out-dir', 'x', '--config', config)
        finished = run_tool('segment.py', *call, folder=folder)
    else:
        vectors = [f'{HOOK}.{WORDS}'] if 'timm' in name else ['log_level=INFO']
        call = (write_config(folder, name), '--work-dir', 'x', '--cfg-options')
        finished = run_tool('train.py', *call, *vectors, folder=folder)
    assert finished.status == 2, finished.output
    assert WITHOUT_WEIGHTS[name] in finished.output
    assert 'Traceback' not in finished.output
