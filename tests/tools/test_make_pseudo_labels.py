"""Self-training: pseudo-labels of a model, and a training that reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from zs3_mmseg.apis import init_segmentor
from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.utils.checkpoint import safe_load

CONFIG = Path(__file__).resolve().parents[2] / 'configs/zs3net/shapes_convnet_zs5.py'
SPLIT = get_split('shapes_a')
SMALL = [
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'train_dataloader.dataset.dataset.num_images=6',
    'train_dataloader.dataset.dataset.workers=1',
    'train_dataloader.dataset.pseudo_label_dir=maps',
    'model.backbone.base_channels=4',
    'model.decode_head.in_channels=4',
    'model.decode_head.channels=6',
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that spreads its predictions over many classes."""
    folder = tmp_path_factory.mktemp('self_training')
    options = dict(option.split('=') for option in SMALL if option.startswith('model'))
    config = Config.fromfile(CONFIG)
    config.merge_from_dict({key: int(value) for key, value in options.items()})
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    meta = dict(dataset_meta=dict(classes=list(SPLIT.classes)))
    torch.save(dict(meta=meta, state_dict=model.state_dict()), folder / 'model.pth')
    return folder


def make(run_tool, folder: Path, *flags: str):
    return run_tool(
        'make_pseudo_labels.py',
        *(CONFIG, 'model.pth', '--out-dir', 'maps', *flags),
        *('--cfg-options', *SMALL),
        folder=folder,
    )


def test_maps_are_made_and_trained_on(run_tool, folder: Path, monkeypatch) -> None:
    finished = make(run_tool, folder, '--top', '40')
    assert finished.status == 0, finished.output

    sidecar = json.loads((folder / 'maps/pseudo_labels.json').read_text())
    assert sidecar['classes'] == list(SPLIT.classes)
    assert sidecar['settings']['top_percent'] == 40
    assert sidecar['model'] == 'shapes_convnet_zs5 with model.pth'
    maps = sorted((folder / 'maps').glob('*.png'))
    assert len(maps) == 6

    # Once more by hand, from the images as the tests of this config see them.
    monkeypatch.chdir(folder)
    options = {key: int(v) for key, v in (o.split('=') for o in SMALL[-3:])}
    model = init_segmentor(CONFIG, 'model.pth', cfg_options=options)
    found: set[int] = set()
    for path in maps:
        (picture,) = (folder / 'data/shapes').rglob(f'images/{path.stem}.*')
        preprocessor = model.cfg.model.data_preprocessor
        pixels = (np.array(Image.open(picture)) - preprocessor.mean) / preprocessor.std
        inputs = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
        with torch.no_grad():
            scores = model.encode_decode(inputs, [dict(img_shape=(112, 112))])
        sure, labels = scores[0].softmax(dim=0).max(dim=0)
        made = np.asarray(Image.open(path))
        for index in range(len(SPLIT.classes)):
            predicted = labels == index
            kept = made == index
            found |= {index} if kept.any() else set()
            assert not kept[~predicted.numpy()].any()
            if index not in SPLIT.unseen_indices:
                assert not kept.any()
            elif predicted.any():
                wanted = 0.4 * int(predicted.sum())
                assert wanted <= kept.sum() <= wanted + 2
                others = predicted.numpy() & ~kept
                if others.any():
                    assert sure[torch.from_numpy(others)].max() <= (
                        sure[torch.from_numpy(kept)].min() + 1e-6
                    )
    assert len(found) > 1

    trained = run_tool(
        'train.py',
        *(CONFIG, '--work-dir', 'run', '--cfg-options', *SMALL),
        *('train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'val_dataloader=None'),
        *('val_cfg=None', 'val_evaluator=None', 'load_from=model.pth'),
        'default_hooks.checkpoint.interval=2',
        folder=folder,
    )
    assert trained.status == 0, trained.output
    assert 'get labels made by shapes_convnet_zs5 with model.pth' in trained.output
    before = safe_load('model.pth')['state_dict']['decode_head.conv_seg.bias']
    after = safe_load('run/iter_2.pth')['state_dict']['decode_head.conv_seg.bias']
    assert not torch.equal(before, after)


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--top', '0'], 'top_percent must be above 0'),
        ([], 'pseudo_labels.json is there already; --force replaces it'),
    ],
)
def test_mistakes_are_named(flags: list, message: str, run_tool, folder: Path) -> None:
    (folder / 'maps').mkdir(exist_ok=True)
    (folder / 'maps/pseudo_labels.json').touch()
    finished = make(run_tool, folder, *flags)
    assert finished.status == 2
    assert message in finished.output
