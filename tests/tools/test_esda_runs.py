"""ESDA through the command-line tools: Shapes, and PASCAL-5i in miniature."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zs3_mmseg.datasets.preparation import prepare

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/esda'
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
        for phase, number in (('train', 24), ('val', 4), ('test', 6))
    ),
]


def metrics_of(folder: Path) -> dict[str, float]:
    return json.loads((folder / 'metrics.json').read_text())


@pytest.mark.slow
def test_shapes_by_name_and_all_at_once(run_tool, tmp_path: Path) -> None:
    config = CONFIGS / 'shapes_tiny.py'
    options = ['--cfg-options', *SHORT]
    trained = run_tool('train.py', config, *options, folder=tmp_path)
    assert trained.status == 0, trained.output
    assert "selection='held_out'" in trained.output
    checkpoint = tmp_path / 'work_dirs/esda/shapes_tiny/iter_2.pth'

    tested = run_tool(
        'test.py',
        config,
        checkpoint,
        *('--out', 'masks', '--show-dir', 'painted'),
        *options,
        folder=tmp_path,
    )
    assert tested.status == 0, tested.output
    scores = metrics_of(tmp_path / 'work_dirs/esda/shapes_tiny')
    assert {'mIoU', 'FB_IoU'} <= {*scores}
    report = json.loads((tmp_path / 'masks/fold_iou.json').read_text())
    unseen = {'car', 'mushroom', 'butterfly', 'rocket', 'bricks'}
    assert {row['name'] for row in report['classes']} == unseen
    assert report['mIoU'] == scores['mIoU']
    masks = [*(tmp_path / 'masks').glob('*__*.png')]
    assert (
        len(masks)
        == report['episodes']
        == sum(row['episodes'] for row in report['classes'])
    )

    # The same weights answer for all classes at once.
    config = CONFIGS / 'shapes_tiny_gzs3.py'
    tested = run_tool('test.py', config, checkpoint, *options, folder=tmp_path)
    assert tested.status == 0, tested.output
    assert 'hIoU' in metrics_of(tmp_path / 'work_dirs/esda/shapes_tiny_gzs3')
    picture = next((tmp_path / 'data/shapes').rglob('images/*.png'))
    asked = ['--classes', 'star', 'a yellow boat', '--config', config]
    asked += ['--checkpoint', checkpoint, '--out-dir', 'out']
    segmented = run_tool('segment.py', picture, *asked, folder=tmp_path)
    assert segmented.status == 0, segmented.output


TOWER = dict(
    embed_dim=16,
    quick_gelu=True,
    vision_cfg=dict(image_size=64, patch_size=16, width=16, head_width=8, layers=3),
    text_cfg=dict(context_length=8, vocab_size=49408, width=16, heads=2, layers=1),
)
TINY = """
_base_ = ['{config}']

tower = dict(arch='{tower}', pretrained=None)
one_process = dict(num_workers=0, persistent_workers=False)
model = dict(
    backbone=dict(
        **tower, image_size=64, out_indices=(2,), replace_cls=(1,), priors=(0, 2)
    ),
    class_embeddings=dict(source=tower),
    decode_head=dict(conv_channels=(4, 4, 4)),
)
train_cfg = dict(max_epochs=2)
train_dataloader = dict(**one_process, batch_size=2, dataset=dict(min_pixels=99))
val_dataloader = dict(**one_process, dataset=dict(min_pixels=99))
test_dataloader = dict(**one_process, dataset=dict(min_pixels=99, num_episodes=5))
"""


def write_voc(root: Path) -> None:
    """A miniature of VOC 2012 with SBD: dogs and cats to train, a boat to test."""
    lists = {'train': [8, 12, 12, 8, 4], 'aug': [12, 8, 8, 12], 'val': [4, 4, 12]}
    for folder in ('ImageSets/Segmentation', 'JPEGImages'):
        (root / folder).mkdir(parents=True)
    for part, labels in lists.items():
        masks = root / f'SegmentationClass{"Aug" if part == "aug" else ""}'
        masks.mkdir(exist_ok=True)
        names = []
        for index, label in enumerate(labels):
            mask = np.zeros((40, 60), np.uint8)
            mask[5:25, 10:30] = label
            mask[30, :] = 255
            names.append(f'{part}_{index}')
            Image.fromarray(mask).save(masks / f'{names[-1]}.png')
            image = np.repeat(mask[..., None] * 7, 3, axis=2)
            Image.fromarray(image).save(root / f'JPEGImages/{names[-1]}.jpg')
        (root / f'ImageSets/Segmentation/{part}.txt').write_text('\n'.join(names))


def write_coco(root: Path) -> None:
    """A miniature of COCO 2014: bicycles and cars to train, persons to test."""
    subsets = {
        'train2014': ['bicycle', 'car', 'car', 'bicycle', 'person'],
        'val2014': ['person', 'person', 'car'],
    }
    numbers = {'person': 1, 'bicycle': 2, 'car': 3}
    corners = [10, 5, 30, 5, 30, 25, 10, 25]
    for subset, names in subsets.items():
        (root / f'images/{subset}').mkdir(parents=True)
        images, annotations = [], []
        for index, name in enumerate(names):
            image = np.full((40, 60, 3), 20 + 50 * numbers[name], np.uint8)
            image[5:25, 10:30] = 255
            file = f'{subset}_{index}.jpg'
            Image.fromarray(image).save(root / f'images/{subset}/{file}')
            images.append(dict(id=index, file_name=file, height=40, width=60))
            annotations.append(
                dict(
                    id=index,
                    image_id=index,
                    category_id=numbers[name],
                    segmentation=[corners],
                    iscrowd=0,
                )
            )
        content = dict(
            categories=[dict(id=number, name=name) for name, number in numbers.items()],
            images=images,
            annotations=annotations,
        )
        (root / f'instances_{subset}.json').write_text(json.dumps(content))
    prepare('coco20i', root, workers=1)


@pytest.mark.slow
def test_coco_fold_by_epochs(run_tool, tmp_path: Path) -> None:
    write_coco(tmp_path / 'data/coco2014')
    (tmp_path / 'tower.json').write_text(json.dumps(TOWER))
    config = tmp_path / 'tiny_fold.py'
    fold = CONFIGS / 'coco20i_vitb16_fold0.py'
    config.write_text(TINY.format(config=fold, tower=tmp_path / 'tower.json'))
    short = ['--cfg-options', 'train_cfg.max_epochs=1']
    trained = run_tool('train.py', config, *short, folder=tmp_path)
    assert trained.status == 0, trained.output
    assert re.search(r'\(train\): 3 of 5 images with seen classes', trained.output)
    best = next((tmp_path / 'work_dirs/tiny_fold').glob('best_mIoU_epoch_*.pth'))
    tested = run_tool('test.py', config, best, folder=tmp_path)
    assert tested.status == 0, tested.output
    assert '2 of 3 images with unseen classes' in tested.output


@pytest.mark.slow
def test_pascal_fold_by_epochs(run_tool, tmp_path: Path) -> None:
    write_voc(tmp_path / 'data/VOCdevkit/VOC2012')
    tower = tmp_path / 'tower.json'
    tower.write_text(json.dumps(TOWER))
    config = tmp_path / 'tiny_fold.py'
    fold = CONFIGS / 'pascal5i_vitb16_fold0.py'
    config.write_text(TINY.format(config=fold, tower=tower))
    trained = run_tool('train.py', config, folder=tmp_path)
    assert trained.status == 0, trained.output
    # Of nine images one holds a boat, and every 20th of each list is held out.
    assert re.search(r'\(train\): 6 of 9 images with seen classes', trained.output)
    assert re.search(r'\(test\): 2 of 9 images with seen classes', trained.output)
    # The official code counts from 1: the last step has learning rate 0.
    assert re.search(r'\[2\]\[3/3\] +lr: 0\.0000e\+00', trained.output)
    work_dir = tmp_path / 'work_dirs/tiny_fold'
    best = next(work_dir.glob('best_mIoU_epoch_*.pth'))
    tested = run_tool('test.py', config, best, folder=tmp_path)
    assert tested.status == 0, tested.output
    assert '5 episodes (5 drawn, seed 0)' in tested.output
    assert '(train)' not in tested.output  # testing needs no training data
    assert '2 of 3 images with unseen classes' in tested.output

    # The published selection looks at the unseen classes, and says so.
    leaking = CONFIGS / 'pascal5i_vitb16_fold0_novel_selection.py'
    config.write_text(TINY.format(config=leaking, tower=tower))
    short = ['--work-dir', 'novel', '--cfg-options', 'train_cfg.max_epochs=1']
    short += ['val_dataloader.dataset.num_episodes=2']
    trained = run_tool('train.py', config, *short, folder=tmp_path)
    assert trained.status == 0, trained.output
    assert 'chosen by its score on the UNSEEN classes' in trained.output
    assert "selection='novel_official'" in trained.output
