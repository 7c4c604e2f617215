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


def save_as_jpeg(root: Path) -> None:
    """Under the old name: what counts is in the file."""
    for path in (root / 'data/masks').iterdir():
        with Image.open(path) as image:
            image.save(path, 'JPEG')


def smooth(root: Path) -> None:
    def resized(labels: np.ndarray) -> np.ndarray:
        small = Image.fromarray(labels).resize((15, 12), Image.Resampling.BILINEAR)
        return np.asarray(small.resize((30, 24), Image.Resampling.BILINEAR))

    change_masks(root, lambda m: resized(np.where(m == 255, 0, m).astype(np.uint8)))


def give_all_one_mask(root: Path) -> None:
    change_masks(root, lambda _: mask_of(0))


def black_and_white(root: Path) -> None:
    change_masks(root, lambda m: np.where(m == 2, 255, 0).astype(np.uint8))


def grey_levels(root: Path) -> None:
    table = np.array([0, 85, 170, 255, 0, *[0] * 251], np.uint8)
    change_masks(root, lambda m: table[m])


def only_trees(root: Path) -> None:
    change_masks(root, lambda m: np.full_like(m, 1))


def void_after_the_last_class(root: Path) -> None:
    change_masks(root, outlined)


def outlined(labels: np.ndarray) -> np.ndarray:
    """Large areas of all classes, and thin void between them."""
    areas = np.arange(30)[None] // 6 + 0 * labels.astype(int)
    areas[:, ::6] = 5
    areas[int(labels[0, 0]) % 24] = 5
    return areas.astype(np.uint8)


def turn_by_exif(root: Path) -> None:
    path = root / 'data/images/3.jpg'
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(path, exif=exif)


def exchange(root: Path) -> None:
    for index in range(9):
        image, mask = (root / f'data/{n}/{index}' for n in ('images', 'masks'))
        picture, labels = image.with_suffix('.jpg'), mask.with_suffix('.png')
        kept = picture.read_bytes()
        picture.write_bytes(labels.read_bytes())
        labels.write_bytes(kept)


def give_alpha(root: Path) -> None:
    path = root / 'data/masks/3.png'
    with Image.open(path) as image:
        image.putalpha(Image.fromarray(mask_of(1)))
        image.save(path)


def drop_seen(root: Path) -> None:
    change_masks(root, lambda m: np.where(m == 4, 4, 255).astype(np.uint8))


def list_names_twice(root: Path) -> None:
    edit(root, "'cat'", "'Sky'")


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
        (save_as_jpeg, 'smeared_mask', ['masks/0.png', 'JPEG']),
        (smooth, 'smeared_mask', ['between those of their neighbours']),
        (give_all_one_mask, 'identical_masks', ['6 of 6 masks']),
        (black_and_white, 'one_label', ['only 0 and 255', '255 means ignore', 'tree']),
        (grey_levels, 'label_out_of_range', ['85, 170', 'grey levels']),
        (only_trees, 'one_label', ["1 ('tree') is the only label"]),
        (
            void_after_the_last_class,
            'void_kept',
            ['ignore_index=5', 'reduce_zero_label=True', 'second is likelier'],
        ),
        (turn_by_exif, 'size_mismatch', ['EXIF', 'images/3.jpg']),
        (exchange, 'exchanged_files', ['masks/0.png', 'img_path', 'seg_map_path']),
        (give_alpha, 'unusual_mask', ['masks/3.png', 'alpha']),
        (drop_seen, 'absent_class', ['none of the 4 seen classes']),
        (list_names_twice, 'inconsistent_folder', ['Sky more than once']),
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
    follows = {
        'deep_mask': {'label_out_of_range', 'empty_mask'},
        'absent_class': {'protocol', 'one_label'},
        'one_label': {'identical_masks', 'protocol'},
        'exchanged_files': {'cannot_build'},
    }
    others = {one['kind'] for one in faults} - {kind} - follows.get(kind, set())
    assert not others, output
    assert f'FAULT {kind}' in output.replace('\n', ' ')


def copy_an_image(root: Path) -> None:
    (root / 'data/images/7.jpg').write_bytes((root / 'data/images/1.jpg').read_bytes())


def turn_upside_down(root: Path) -> None:
    path = root / 'data/images/3.jpg'
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = 3
        image.save(path, exif=exif)


def drop_unseen(root: Path) -> None:
    change_masks(root, lambda m: np.where(m == 4, 255, m).astype(np.uint8))


def spread_one_class(root: Path) -> None:
    def spread(labels: np.ndarray) -> np.ndarray:
        grown = np.full((240, 300), 3, np.uint8)
        grown[0, :24] = labels[:, 0]
        return grown

    for path in (root / 'data/images').iterdir():
        with Image.open(path) as image:
            image.resize((300, 240)).save(path)
    change_masks(root, spread)


@pytest.mark.parametrize(
    ('plant', 'kind', 'words'),
    [
        (copy_an_image, 'copied_images', ['1 of the 3 images', 'images/7.jpg']),
        (turn_upside_down, 'turned_image', ['images/3.jpg', 'orientation 3']),
        (drop_unseen, 'absent_class', ['none of the 1 unseen classes', 'hIoU']),
        (spread_one_class, 'dominant_class', ["'cat' covers 99."]),
    ],
)
def test_what_may_be_right_is_a_note(
    run_tool, world: Path, plant: Callable, kind: str, words: list[str]
) -> None:
    plant(world)
    status, report, output = check(run_tool, world)
    assert status == 0, output
    named = [one for one in report['findings'] if one['kind'] == kind]
    assert named, output
    assert all(word in json.dumps(named) for word in words), output


def test_both_readings_of_a_label_too_many_are_drawn(run_tool, world: Path) -> None:
    void_after_the_last_class(world)
    check(run_tool, world)
    for phase in ('train', 'test'):
        with Image.open(world / f'out/readings_{phase}.png') as sheet:
            assert sheet.width > 900
    edit(world, "img_suffix='.jpg',", "img_suffix='.jpg', ignore_index=5,")
    (world / 'out/readings_train.png').unlink()
    status, report, output = check(run_tool, world)
    assert (status, report['findings']) == (0, []), output
    assert not (world / 'out/readings_train.png').exists()


FOLDER = """
_base_ = 'zs3_mmseg::baselines/own_folder_linear.py'
data_root = 'own'
split = dict(folder=data_root)
model = dict(split=split)
inner = dict(data_root=data_root)
train_dataloader = dict(dataset=dict(split=split, dataset=inner))
val_dataloader = test_dataloader = train_dataloader
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of drawn data, 16 images to train on and 4 to test, without fault."""
    rng = np.random.default_rng(0)
    for index in range(20):
        subset = 'train' if index < 16 else 'val'
        for name, pixels in (
            ('images', rng.integers(0, 256, (24, 30, 3), np.uint8)),
            ('masks', mask_of(index)),
        ):
            path = tmp_path / f'own/{name}/{subset}/{index}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (tmp_path / 'own/classes.txt').write_text('\n'.join(CLASSES))
    (tmp_path / 'own/unseen.txt').write_text('car')
    (tmp_path / 'config.py').write_text(FOLDER)
    return tmp_path


def test_ten_faults_of_one_folder_are_all_named(run_tool, own: Path) -> None:
    status, report, output = check(run_tool, own)
    assert (status, report['findings']) == (0, []), output
    root = own / 'own'
    images, masks = root / 'images/train', root / 'masks/train'

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-40])

    def redraw(index: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
        Image.fromarray(change(mask_of(index))).save(masks / f'{index}.png')

    (root / 'classes.txt').write_text('\n'.join([*CLASSES, 'Tree']))
    (masks / '0.png').unlink()
    (images / '1.png').unlink()
    cut(images / '2.png')
    cut(masks / '3.png')
    redraw(4, lambda m: m.T)
    redraw(5, lambda m: np.where(m == 2, 200, m).astype(np.uint8))
    redraw(6, lambda m: np.stack([m, m + 1, m], axis=-1))
    redraw(7, lambda m: np.dstack([m, m]))
    redraw(8, lambda m: np.full_like(m, 255))
    Image.open(images / '9.png').save(images / '9.bmp')
    Image.open(masks / '10.png').save(masks / '10.png', 'JPEG')
    (images / '11.png').write_bytes((root / 'images/val/16.png').read_bytes())
    status, report, output = check(run_tool, own)
    assert status == 1, output
    for kind, word in {
        'inconsistent_folder': "classes.txt, line 6: 'Tree' is listed more than once",
        'missing_mask': 'masks/train/0.png',
        'unpaired_mask': 'masks/train/1.png',
        'unreadable_image': 'images/train/2.png',
        'unreadable_mask': 'masks/train/3.png',
        'size_mismatch': 'masks/train/4.png',
        'label_out_of_range': 'masks/train/5.png',
        'colour_mask': 'masks/train/6.png',
        'unusual_mask': 'masks/train/7.png',
        'empty_mask': 'masks/train/8.png',
        'smeared_mask': 'masks/train/10.png',
        'copied_images': 'images/val/16.png',
    }.items():
        named = [one for one in report['findings'] if one['kind'] == kind]
        assert word in json.dumps(named), (kind, output)
    assert '9.bmp and ' in output
    # Advice names what the user of a folder has: files, no keys of a data set's names.
    assert 'metainfo' not in output, output


@pytest.mark.parametrize(
    ('name', 'content', 'words'),
    [
        ('classes.txt', b'sky\ntree\nroad\ncat\ncar\nSky', ['line 6', 'line 1']),
        ('classes.txt', b'sky\ntree\nroad\nc\xe4t\ncar', ['line 4', 'UTF-8']),
        ('unseen.txt', b'cart', ["'cart' is no class", 'Did you mean']),
        ('palette.txt', b'1 2 3 sky\n1 2', ['palette.txt, line 2']),
    ],
)
def test_wrong_lists_of_a_folder_are_named_beside_other_faults(
    run_tool, own: Path, name: str, content: bytes, words: list[str]
) -> None:
    (own / 'own' / name).write_bytes(content)
    (own / 'own/masks/val/17.png').unlink()
    status, report, output = check(run_tool, own)
    assert status == 1, output
    assert all(word in output for word in (name, *words)), output
    if (
        name != 'classes.txt' or b'\xe4' not in content
    ):  # without names, nothing can be read
        assert 'missing_mask' in {one['kind'] for one in report['findings']}, output


def test_a_missing_mask_hides_no_leak(run_tool, world: Path) -> None:
    lose_mask(world)
    supervise(world)
    _, report, output = check(run_tool, world)
    kinds = {one['kind'] for one in report['findings'] if one['fault']}
    assert kinds == {'missing_mask', 'unseen_in_training'}, output


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
