"""FC-CLIP through the command-line tools: Shapes, and an official file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_lseg_runs import SHORT

from zs3_mmseg.utils.checkpoint import safe_load

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/fcclip'
RECORDED = Path(__file__).parents[1] / 'data/golden'


@pytest.mark.slow
def test_one_training_serves_both_forms(run_tool, tmp_path: Path) -> None:
    options = ['--cfg-options', *SHORT]
    config = CONFIGS / 'shapes_tiny.py'
    trained = run_tool('train.py', config, *options, folder=tmp_path)
    assert trained.status == 0, trained.output
    checkpoint = tmp_path / 'work_dirs/fcclip/shapes_tiny/iter_2.pth'
    for name, more in (
        ('shapes_tiny', ['model.test_cfg.mask_sums=original']),
        ('shapes_tiny_in', []),
    ):
        config = CONFIGS / f'{name}.py'
        given = [config, checkpoint, *options, *more]
        tested = run_tool('test.py', *given, folder=tmp_path)
        assert tested.status == 0, tested.output
        metrics = tmp_path / f'work_dirs/fcclip/{name}/metrics.json'
        assert 'hIoU' in json.loads(metrics.read_text())


NAMES = ['cat', 'dog', 'sky']
#: Without what only Shapes has, the number of scenes.
OWN = ['--cfg-options', *(option for option in SHORT if 'num_images' not in option)]
PANOPTIC = """
_base_ = [{base!r}]
names = dict(_delete_=True, classes=['cat', 'dog', 'sky'], unseen=['dog'])
inner = dict(
    type='PanopticDataset',
    data_root='data',
    ann_file='panoptic.json',
    data_prefix=dict(img_path='', seg_map_path=''),
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadPanopticAnnotations'),
        dict(type='PackPanopticInputs'),
    ],
)
model = dict(split=names)
train_dataloader = dict(
    dataset=dict(
        split=names, dataset=dict(_delete_=True, **inner), pipeline=None
    )
)
test_dataloader = dict(
    dataset=dict(
        split=names, dataset=dict(_delete_=True, **inner), pipeline=None
    )
)
val_dataloader = test_dataloader
"""


@pytest.mark.slow
def test_panoptic_masks_train_and_test(run_tool, tmp_path: Path) -> None:
    folder = tmp_path / 'data'
    folder.mkdir()
    numbers = np.repeat([[1, 2, 3, 0], [4, 4, 5, 5]], 56, axis=0).repeat(28, axis=1)
    places = range(1, 6)
    categories = dict(zip(places, (1, 1, 2, 3, 2), strict=True))
    listed = [dict(id=n, category_id=categories[n]) for n in places]
    images = [dict(id=n, file_name=f'{n}.jpg') for n in range(4)]
    for image in images:
        colours = np.stack([numbers, 0 * numbers, 0 * numbers], axis=-1)
        picture = (50 * colours + 10 * image['id']).astype(np.uint8)
        Image.fromarray(picture).save(folder / image['file_name'])
        Image.fromarray(colours.astype(np.uint8)).save(folder / f'{image["id"]}.png')
    content = dict(
        images=images,
        categories=[dict(id=n, name=name) for n, name in enumerate(NAMES, 1)],
        annotations=[
            dict(image_id=n, file_name=f'{n}.png', segments_info=listed)
            for n in range(4)
        ],
    )
    (folder / 'panoptic.json').write_text(json.dumps(content))
    (tmp_path / 'own.py').write_text(
        PANOPTIC.format(base=str(CONFIGS / 'shapes_tiny.py'))
    )
    trained = run_tool('train.py', 'own.py', *OWN, folder=tmp_path)
    assert trained.status == 0, trained.output
    checkpoint = tmp_path / 'work_dirs/own/iter_2.pth'
    tested = run_tool('test.py', 'own.py', checkpoint, *OWN, folder=tmp_path)
    assert tested.status == 0, tested.output
    metrics = json.loads((tmp_path / 'work_dirs/own/metrics.json').read_text())
    assert {'hIoU', 'mIoU'} <= {*metrics}


def test_an_official_file_is_converted(run_tool, tmp_path: Path) -> None:
    keys = json.loads((RECORDED / 'fcclip_r50_keys.json').read_text())['keys']
    official = {
        key: torch.tensor(1e-4 * number).expand(shape)
        for number, (key, shape) in enumerate(keys.items())
    }
    torch.save(dict(model=official, iteration=9), tmp_path / 'official.pth')
    arguments = ['fcclip', 'official.pth', 'ours.pth', '--arch', 'RN50-quickgelu']
    finished = run_tool('convert_checkpoint.py', *arguments, folder=tmp_path)
    assert finished.status == 0, finished.output
    assert '0 UNKNOWN' in finished.output
    assert "type='OpenCLIPResNet'" in finished.output
    state = safe_load(tmp_path / 'ours.pth')['state_dict']
    for ours, theirs in (
        ('backbone.visual.layer3.5.bn2.bias', 'layer3.5.bn2.bias'),
        ('decode_head.region_classifier.head.pool.q_proj.bias', 'attnpool.q_proj.bias'),
    ):
        theirs = f'backbone.clip_model.visual.{theirs}'
        assert torch.equal(state[ours], official[theirs]), ours
    name = 'sem_seg_head.predictor.class_embed.layers.2.bias'
    assert torch.equal(state['decode_head.class_embed.4.bias'], official[name])
