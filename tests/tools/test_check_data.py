"""tools/check_data.py on small folders with one planted fault each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = ['sky', 'tree', 'road', 'cat', 'car']
CONFIG = """
custom_imports = dict(imports=['zs3_mmseg'])
default_scope = 'mmseg'
split = dict(classes={classes}, unseen=['car'])
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
model = dict(type='ZeroShotEncoderDecoder', split=split, setting='inductive')


def part(name):
    return dict(
        type='BaseSegDataset',
        metainfo=dict(classes=split['classes']),
        data_root='data',
        ann_file=name + '.txt',
        data_prefix=dict(img_path='images', seg_map_path='masks'),
        img_suffix='.jpg',
        pipeline=pipeline,
    )


train_dataloader = dict(
    dataset=dict(
        type='ZeroShotDataset', phase='train', split=split, dataset=part('train')
    )
)
test_dataloader = dict(
    dataset=dict(
        type='ZeroShotDataset', phase='test', split=split, dataset=part('test')
    )
)
val_dataloader = test_dataloader
"""


def mask_of(index: int) -> np.ndarray:
    """All five classes, in bands that move with the index, and some void."""
    bands = (np.arange(24)[:, None] // 4 + index) % 6
    labels = np.broadcast_to(bands, (24, 30)).astype(np.uint8)
    return np.where(labels == 5, 255, labels).astype(np.uint8)


def change_masks(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in (root / 'data/masks').iterdir():
        with Image.open(path) as image:
            labels = np.asarray(image)
        Image.fromarray(change(labels)).save(path)


def change_one(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = root / 'data/masks/3.png'
    with Image.open(path) as image:
        labels = np.asarray(image)
    Image.fromarray(change(labels)).save(path)


def edit(root: Path, old: str, new: str) -> None:
    text = (root / 'config.py').read_text()
    assert old in text
    (root / 'config.py').write_text(text.replace(old, new))


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Six training and three test images, without any fault."""
    for name in ('images', 'masks'):
        (tmp_path / 'data' / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(9):
        pixels = rng.integers(0, 256, (24, 30, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'data/images/{index}.jpg')
        Image.fromarray(mask_of(index)).save(tmp_path / f'data/masks/{index}.png')
    (tmp_path / 'data/train.txt').write_text('\n'.join('012345'))
    (tmp_path / 'data/test.txt').write_text('\n'.join('678'))
    (tmp_path / 'config.py').write_text(CONFIG.format(classes=CLASSES))
    return tmp_path


def check(run_tool, world: Path, *flags: str) -> tuple[int, dict, str]:
    finished = run_tool(
        'check_data.py', 'config.py', '--out', 'out', *flags, folder=world
    )
    assert 'Traceback' not in finished.output, finished.output
    assert (world / 'out/report.json').is_file(), finished.output
    report = json.loads((world / 'out/report.json').read_text())
    return finished.status, report, finished.output


def test_data_without_faults_pass(run_tool, world: Path) -> None:
    status, report, output = check(run_tool, world)
    assert (status, report['verdict'], report['findings']) == (0, 'pass', []), output
    assert 'PASS' in output
    share = {row['name']: row for row in report['classes']['train']}
    pixels = np.stack([mask_of(index) for index in range(6)])
    assert share['car']['group'] == 'unseen'
    assert share['car']['percent'] == pytest.approx(100 * (pixels == 4).mean())
    assert share['']['percent'] == pytest.approx(100 * (pixels == 255).mean())
    for phase in ('train', 'test'):
        with Image.open(world / f'out/contact_sheet_{phase}.png') as sheet:
            assert sheet.width > 300


def shift(root: Path) -> None:
    change_masks(root, lambda m: np.where(m == 255, 255, m + 1).astype(np.uint8))


def keep_background(root: Path) -> None:
    change_masks(root, lambda m: np.where(m == 255, 0, m + 1).astype(np.uint8))


def name_background_in_a_file(root: Path) -> None:
    names = ['background', *CLASSES]
    (root / 'data/classes.txt').write_text('\n'.join(names))


def colour(root: Path) -> None:
    table = np.random.default_rng(1).integers(0, 256, (256, 3), np.uint8)
    change_masks(root, lambda m: table[m])


def deepen(root: Path) -> None:
    change_one(root, lambda m: m.astype(np.uint16) * 257)


def lose_mask(root: Path) -> None:
    (root / 'data/masks/2.png').unlink()


def lose_image(root: Path) -> None:
    (root / 'data/images/2.jpg').unlink()


def truncate(root: Path) -> None:
    path = root / 'data/images/4.jpg'
    path.write_bytes(path.read_bytes()[:-300])


def truncate_mask(root: Path) -> None:
    path = root / 'data/masks/4.png'
    path.write_bytes(path.read_bytes()[:-40])


def swap_by_file(root: Path) -> None:
    names = ['tree', 'sky', *CLASSES[2:]]
    (root / 'data/classes.txt').write_text('\n'.join(names))


def swap_by_palette(root: Path) -> None:
    colours = [[10, 20, 30], [40, 50, 60], [70, 80, 90], [9, 8, 7], [1, 2, 3]]
    names = "metainfo=dict(classes=split['classes']"
    edit(root, names, f'{names}, palette={colours}')
    stored = [colours[index] for index in (0, 2, 1, 3, 4)] + [[0, 0, 0]] * 251
    for path in (root / 'data/masks').iterdir():
        with Image.open(path) as image:
            image.putpalette(np.ravel(stored).tolist())
            image.save(path)


def evaluate_training_images(root: Path) -> None:
    edit(root, "dataset=part('test')", "dataset=part('train')")


def list_other_files(root: Path) -> None:
    (root / 'data/train.txt').write_text('2007_000027\n2007_000032\n0')


def list_twice(root: Path) -> None:
    (root / 'data/train.txt').write_text('\n'.join('0123452'))


def empty(root: Path) -> None:
    change_one(root, lambda m: np.full_like(m, 255))


def label_200(root: Path) -> None:
    change_one(root, lambda m: np.where(m == 2, 200, m).astype(np.uint8))


def resize(root: Path) -> None:
    change_one(root, lambda m: m[:-2])


def forget_wrapper(root: Path) -> None:
    old = """dataset=dict(
        type='ZeroShotDataset', phase='train', split=split, dataset=part('train')
    )"""
    edit(root, old, "dataset=part('train')")


def load_again(root: Path) -> None:
    old = "    dict(type='LoadAnnotations'),\n"
    edit(root, old, old + "    dict(type='LoadAnnotations'),\n")


def supervise(root: Path) -> None:
    edit(root, "phase='train', split", "phase='train', setting='supervised', split")


def reduce_twice(root: Path) -> None:
    edit(root, "img_suffix='.jpg',", "img_suffix='.jpg', reduce_zero_label=True,")


def wrong_phase(root: Path) -> None:
    edit(root, "phase='test'", "phase='train'")


def no_such_list(root: Path) -> None:
    edit(root, "part('train')", "part('trian')")


@pytest.mark.parametrize(
    ('plant', 'kind', 'words'),
    [
        (shift, 'shifted_labels', ['label 5', 'reduce_zero_label=True']),
        (keep_background, 'background_kept', ['reduce_zero_label=True']),
        (name_background_in_a_file, 'background_kept', ['classes.txt']),
        (colour, 'colour_mask', ['masks/0.png']),
        (deepen, 'deep_mask', ['masks/3.png', '65535']),
        (lose_mask, 'missing_mask', ['masks/2.png', 'seg_map_path']),
        (lose_image, 'missing_image', ['images/2.jpg', 'ann_file']),
        (truncate, 'unreadable_image', ['images/4.jpg']),
        (truncate_mask, 'unreadable_mask', ['masks/4.png']),
        (swap_by_file, 'swapped_class_order', ["'sky'", "'tree'"]),
        (swap_by_palette, 'swapped_class_order', ["'tree'", "'road'"]),
        (evaluate_training_images, 'wrong_split_file', ['6 of its 6', 'ann_file']),
        (list_other_files, 'wrong_split_file', ['2007_000027', 'train.txt']),
        (list_twice, 'duplicate_ids', ['images/2.jpg']),
        (empty, 'empty_mask', ['masks/3.png']),
        (label_200, 'label_out_of_range', ['200', 'masks/3.png']),
        (resize, 'size_mismatch', ['30 x 22 against 30 x 24', 'masks/3.png']),
        (forget_wrapper, 'unseen_in_training', ["'car' (4)", 'ZeroShotDataset']),
        (supervise, 'unseen_in_training', ["'car' (4)"]),
        (reduce_twice, 'reduced_twice', ['reduce_zero_label=False']),
        (wrong_phase, 'protocol', ["phase='test'"]),
        (no_such_list, 'cannot_build', ['trian.txt', 'ann_file']),
    ],
)
def test_planted_faults_are_found_and_named(
    run_tool, world: Path, plant: Callable, kind: str, words: list[str]
) -> None:
    plant(world)
    status, report, output = check(run_tool, world)
    assert status == 1, output
    faults = [one for one in report['findings'] if one['fault']]
    named = [one for one in faults if one['kind'] == kind]
    assert named, output
    text = json.dumps(named)
    for word in words:
        assert word in text, text
    # Nothing else is blamed, but for what follows from the same mistake.
    follows = {'deep_mask': {'label_out_of_range', 'empty_mask'}}
    others = {one['kind'] for one in faults} - {kind} - follows.get(kind, set())
    assert not others, output
    assert f'FAULT {kind}' in output.replace('\n', ' ')


def ask_by_name(root: Path) -> None:
    """Make it a fold: pairs of an image and a name, validated on held-out images."""
    for index in range(4):  # the others hold the unseen class and are not trained on
        path = root / f'data/masks/{index}.png'
        Image.fromarray(np.where(mask_of(index) == 4, 255, mask_of(index))).save(path)
    edit(root, "type='ZeroShotEncoderDecoder'", "type='ClassPromptedSegmentor'")
    for phase in ('train', 'test'):
        edit(
            root,
            f"type='ZeroShotDataset', phase='{phase}'",
            f"type='ClassPromptDataset', min_pixels=100, phase='{phase}'",
        )
    edit(root, "dataset=part('train')", "held_out=apart('rest'), dataset=part('train')")
    edit(
        root,
        'def part(',
        'def apart(part):\n    return dict(every=2, part=part)\n\n\ndef part(',
    )
    text = (root / 'config.py').read_text()
    validation = """val_dataloader = dict(
    dataset=dict(
        type='ClassPromptDataset', phase='test', split=split, min_pixels=100,
        selection='held_out', unseen_policy='drop_image', sampling='exhaustive',
        held_out=apart('held_out'), dataset=part('train'),
    )
)
"""
    text = text.replace('val_dataloader = test_dataloader\n', validation)
    (root / 'config.py').write_text(text)


def test_pairs_of_image_and_name_pass(run_tool, world: Path) -> None:
    ask_by_name(world)
    status, report, output = check(run_tool, world)
    assert (status, report['verdict'], report['findings']) == (0, 'pass', []), output
    groups = {row['name']: row['group'] for row in report['classes']['test']}
    assert (groups['car'], groups['cat'], groups['']) == ('unseen', 'seen', 'void')


def ask_for_large_objects(root: Path) -> None:
    edit(root, "min_pixels=100, phase='train'", "min_pixels=999, phase='train'")


def choose_by_unseen(root: Path) -> None:
    edit(root, "selection='held_out', unseen_policy='drop_image',", '')


def validate_on_training_images(root: Path) -> None:
    edit(root, "held_out=apart('rest'), ", '')


def ask_without_reading(root: Path) -> None:
    edit(root, "type='ClassPromptedSegmentor'", "type='ZeroShotEncoderDecoder'")


@pytest.mark.parametrize(
    ('plant', 'kind', 'words'),
    [
        (ask_for_large_objects, 'cannot_build', ['at least 999 pixels', 'min_pixels']),
        (label_200, 'label_out_of_range', ['200', 'masks/3.png']),
        (choose_by_unseen, 'protocol', ["selection='held_out'"]),
        (validate_on_training_images, 'wrong_split_file', ['2 of its', 'held_out']),
        (ask_without_reading, 'protocol', ['does not read the name']),
    ],
)
def test_faults_of_pairs_are_named(
    run_tool, world: Path, plant: Callable, kind: str, words: list[str]
) -> None:
    ask_by_name(world)
    plant(world)
    status, report, output = check(run_tool, world)
    assert status == 1, output
    named = [one for one in report['findings'] if one['fault'] and one['kind'] == kind]
    assert all(word in json.dumps(named) for word in words), output
