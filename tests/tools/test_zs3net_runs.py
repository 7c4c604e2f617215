"""ZS3Net's published configs through the tools: both steps on a few pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.utils.checkpoint import safe_load

pytestmark = pytest.mark.slow
CONFIGS = Path(__file__).resolve().parents[2] / 'configs/zs3net'
NAME = 'voc_r101_deeplabv3plus_2unseen'
SPLIT = get_split('voc12_zs3_2')
#: The network with a sixteenth of the width, and one epoch of two images at a time.
SMALL = [
    *('model.backbone.depth=50', 'model.backbone.init_cfg=None'),
    *('model.backbone.base_channels=4', 'model.backbone.stem_channels=4'),
    *('model.decode_head.in_channels=128', 'model.decode_head.c1_in_channels=16'),
    *('model.decode_head.channels=8', 'model.decode_head.c1_channels=4'),
    *('train_dataloader.batch_size=2', 'train_dataloader.num_workers=0'),
    'train_dataloader.persistent_workers=False',
    *('val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False'),
    *('train_cfg.max_epochs=1', 'train_cfg.val_interval=1'),
    'default_hooks.logger.interval=1',
]
VECTORS = 'custom_hooks.1.class_embeddings.source.path=words.txt'


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PASCAL VOC 2012 with a few pictures, and word vectors."""
    folder = tmp_path_factory.mktemp('zs3net')
    rng = np.random.default_rng(0)
    root = folder / 'data/VOCdevkit/VOC2012'
    cow = SPLIT.classes.index('cow')
    lists = {'train': 6, 'aug': 2, 'val': 2}
    for subset, number in lists.items():
        names = [f'2007_{subset}_{i}' for i in range(number)]
        masks = 'SegmentationClassAug' if subset == 'aug' else 'SegmentationClass'
        for i, name in enumerate(names):
            labels = np.zeros((90, 120), dtype=np.uint8)
            labels[20:60, 30:70] = 15
            labels[:8] = 255
            if i % 2:
                labels[30:80, 60:110] = cow
            image = rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)
            for kind, suffix, content in (
                ('JPEGImages', 'jpg', image),
                (masks, 'png', labels),
            ):
                (root / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(root / kind / f'{name}.{suffix}')
        (root / 'ImageSets/Segmentation').mkdir(parents=True, exist_ok=True)
        text = ''.join(f'{name}\n' for name in names)
        (root / f'ImageSets/Segmentation/{subset}.txt').write_text(text)
    words = {word for name in SPLIT.classes for word in name.split()}
    words |= {'table', 'plant', 'tv'}
    lines = [
        ' '.join([word, *(f'{v:.3f}' for v in rng.normal(size=5))])
        for word in sorted(words)
    ]
    (folder / 'words.txt').write_text('\n'.join(lines) + '\n')
    return folder


def train(run_tool, folder: Path, step: str, *options: str) -> str:
    finished = run_tool(
        'train.py',
        *(CONFIGS / f'{NAME}_{step}.py', '--cfg-options', *SMALL, *options),
        folder=folder,
    )
    assert finished.status == 0, finished.output
    return finished.output


def weights(folder: Path, step: str) -> dict[str, torch.Tensor]:
    path = folder / f'work_dirs/zs3net/{NAME}_{step}/epoch_1.pth'
    return safe_load(path)['state_dict']


def test_both_steps_of_the_published_recipe(run_tool, folder: Path) -> None:
    first = train(run_tool, folder, 'step1')
    # 4 of 8 training images have no cow.
    assert '[1][2/2]' in first
    before = weights(folder, 'step1')

    load = f'load_from=work_dirs/zs3net/{NAME}_step1/epoch_1.pth'
    second = train(run_tool, folder, 'step2', load, VECTORS)
    assert '[1][4/4]' in second
    assert 'the classifier learns from the TRUE layout of unseen classes' in second
    after = weights(folder, 'step2')
    for key, value in before.items():
        # Nothing learns but the classifier; statistics of batch norm move.
        moves = 'running' in key or 'tracked' in key or 'conv_seg' in key
        assert torch.equal(value, after[key]) != moves, key

    (log,) = (folder / f'work_dirs/zs3net/{NAME}_step2').glob('*/vis_data/scalars.json')
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    training = [entry for entry in entries if 'loss' in entry]
    assert all(np.isfinite(entry['loss']) for entry in training)
    rates = [0.007 * (1 - i / 4) ** 0.9 for i in range(4)]
    np.testing.assert_allclose([entry['lr'] for entry in training], rates)
    assert any('decode.mmd' in entry for entry in entries)
    assert 'hIoU' in entries[-1]
