"""Folders of images and masks, as people have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from mmengine.registry import DefaultScope

from zs3_mmseg.datasets import FolderSegDataset, ZeroShotDataset
from zs3_mmseg.datasets.folder import ColourTable
from zs3_mmseg.datasets.splits import resolve_split

NAMES = ['sky', 'potted plant', 'cat']
COLOURS = [(1, 2, 3), (200, 0, 0), (0, 0, 255)]
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadFolderMasks'),
    dict(type='PackSegInputs'),
]
MASK = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)
VOID = (9, 9, 9)


@pytest.fixture(autouse=True)
def _mmseg_scope() -> None:
    if DefaultScope.get_current_instance() is None:
        DefaultScope.get_instance('folder', scope_name='mmseg')


def write(root: Path, name: str, mask: np.ndarray = MASK, suffix: str = '.png') -> None:
    for kind in ('images', 'masks'):
        (root / kind / name).parent.mkdir(parents=True, exist_ok=True)
    picture = np.zeros((*mask.shape[:2], 3), np.uint8)
    Image.fromarray(picture).save(root / f'images/{name}{suffix}')
    Image.fromarray(mask).save(root / f'masks/{name}.png')


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with names and nothing else."""
    (tmp_path / 'classes.txt').write_text('# my classes\nsky\n\npotted plant\ncat\n')
    (tmp_path / 'unseen.txt').write_text('potted_plant\n')
    return tmp_path


def labels(root: Path, **options: Any) -> list[list[list[int]]]:
    made = ZeroShotDataset(
        dict(
            type='FolderSegDataset', data_root=str(root), pipeline=PIPELINE, **options
        ),
        phase='test',
        split=dict(folder=str(root)),
    )
    return [
        made[i]['data_samples'].gt_sem_seg.data[0].tolist() for i in range(len(made))
    ]


def test_split_comes_from_the_text_files(root: Path) -> None:
    split = resolve_split(dict(folder=root))
    assert split.classes == tuple(NAMES)
    assert split.unseen == ('potted plant',)
    assert split.name == root.name
    (root / 'unseen.txt').unlink()
    assert resolve_split(dict(folder=root, name='mine')).unseen == ()
    # What travels in metainfo and checkpoints needs the folder no more.
    assert resolve_split(split.as_dict()) == split


def test_any_suffix_and_depth(root: Path) -> None:
    write(root, 'train/a/one', suffix='.JPG')
    write(root, 'train/two', MASK[::-1], suffix='.webp')
    write(root, 'val/three')
    (root / 'images/train/notes.txt').write_text('no picture')
    (root / 'images/train/._two.webp').write_text('macOS leaves such files')
    assert labels(root, subset='train') == [MASK.tolist(), MASK[::-1].tolist()]
    assert len(labels(root, subset='val')) == 1
    assert len(labels(root)) == 3


def test_lists_choose_among_all(root: Path) -> None:
    for name in ('a', 'b/c', 'd'):
        write(root, name)
    (root / 'train.txt').write_text('b/c\nd\n')
    made = FolderSegDataset(root, 'train', serialize_data=False)
    found = [Path(made.get_data_info(i)['img_path']).stem for i in range(len(made))]
    assert found == ['c', 'd']


def test_suffixes_choose_among_files_of_one_picture(root: Path) -> None:
    write(root, 'a_photo')
    (root / 'masks/a_photo.png').rename(root / 'masks/a_labels.png')
    Image.fromarray(MASK).save(root / 'images/a_depth.png')
    options = dict(img_suffix='_photo.png', seg_map_suffix='_labels.png')
    assert labels(root, **options) == [MASK.tolist()]


@pytest.mark.parametrize('form', ['ordered', 'named', 'json'])
def test_drawn_colours_are_read_by_the_palette(root: Path, form: str) -> None:
    table = np.zeros((256, 3), np.uint8)
    table[:3], table[255] = COLOURS, VOID
    write(root, 'a', table[MASK])
    entries = [*zip(NAMES, COLOURS, strict=True), ('void', VOID)]
    if form == 'json':
        content = {name: list(colour) for name, colour in entries[::-1]}
        (root / 'palette.json').write_text(json.dumps(content))
    else:
        lines = [
            f'{r} {g},{b} {name if form == "named" or name == "void" else ""}'
            for name, (r, g, b) in (entries[::-1] if form == 'named' else entries)
        ]
        (root / 'palette.txt').write_text('\n'.join(lines))
    assert labels(root) == [MASK.tolist()]
    assert FolderSegDataset(root).metainfo['palette'] == [list(c) for c in COLOURS]


@given(
    npst.arrays(np.uint8, (4, 5), elements=st.sampled_from([0, 1, 2, 255])), st.data()
)
def test_colour_tables_invert_drawing(mask: np.ndarray, data: st.DataObject) -> None:
    drawn = data.draw(
        st.lists(
            st.tuples(*[st.integers(0, 255)] * 3), min_size=4, max_size=4, unique=True
        )
    )
    colours = dict(zip([0, 1, 2, 255], drawn, strict=True))
    pixels = np.array([[colours[v] for v in row] for row in mask.tolist()], np.uint8)
    table = ColourTable(drawn[:3], drawn[3:], 255, 'palette.txt')
    assert table.labels(pixels).tolist() == mask.tolist()


def test_more_than_254_classes_have_16_bits(root: Path) -> None:
    names = [f'class {index}' for index in range(300)]
    (root / 'classes.txt').write_text('\n'.join(names))
    (root / 'unseen.txt').write_text('class 299')
    wide = np.array([[0, 255, 299], [65535, 254, 1]], np.uint16)
    write(root, 'a', wide)
    assert labels(root) == [wide.tolist()]


@pytest.mark.parametrize(
    ('broken', 'message'),
    [
        (lambda r: (r / 'classes.txt').unlink(), r'classes\.txt is missing'),
        (lambda r: (r / 'classes.txt').write_text('# none'), 'holds no name'),
        (lambda r: (r / 'masks/a.png').unlink(), r'1 of 1 images have no mask'),
        (lambda r: write(r, 'a', suffix='.bmp'), r'a\.bmp and .*a\.png have one name'),
        (
            lambda r: (r / 'palette.txt').write_text('1 2 3\n1 2 3\n4 5 6'),
            r'gives the colour \(1, 2, 3\) to two classes',
        ),
        (lambda r: (r / 'palette.txt').write_text('1 2\n'), 'line 1: expected "R G B'),
        (lambda r: (r / 'palette.txt').write_text('1 2 3'), 'for 1 of 3 classes'),
        (lambda r: (r / 'palette.txt').write_text('1 2 999'), r'\[1, 2, 999\]'),
        (
            lambda r: (r / 'palette.json').write_text('{"dog": [1, 2, 3]}'),
            "'dog' is none of the classes",
        ),
        (lambda r: (r / 'palette.json').write_text('[1]'), 'expected {"name"'),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(
    root: Path, broken: Any, message: str
) -> None:
    write(root, 'a')
    broken(root)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        labels(root)


def test_a_missing_subset_is_named(root: Path) -> None:
    write(root, 'train/a')
    with pytest.raises(FileNotFoundError, match=r"'val' of .* neither a folder"):
        labels(root, subset='val')
    (root / 'val.txt').write_text('train/a\ntrain/b')
    with pytest.raises(FileNotFoundError, match=r"1 names without .*'train/b'"):
        labels(root, subset='val')


@pytest.mark.parametrize(
    ('palette', 'message'),
    [(None, 'neither palette'), ('0 0 0\n1 1 1\n2 2 2', r'\(200, 0, 0\)')],
)
def test_unknown_colours_name_the_mask(
    root: Path, palette: str | None, message: str
) -> None:
    write(root, 'a', np.full((2, 3, 3), COLOURS[1], np.uint8))
    if palette is not None:
        (root / 'palette.txt').write_text(palette)
    with pytest.raises(ValueError, match=r'masks/a\.png.*' + message):
        labels(root)


def test_a_cut_mask_is_named(root: Path) -> None:
    write(root, 'a', np.zeros((40, 30), np.uint8))
    path = root / 'masks/a.png'
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(OSError, match=r'masks/a\.png is no whole picture'):
        labels(root)


def test_the_loader_belongs_to_this_data_set(root: Path) -> None:
    write(root, 'a')
    plain = dict(
        type='BaseSegDataset',
        metainfo=dict(classes=NAMES),
        data_root=str(root),
        data_prefix=dict(img_path='images', seg_map_path='masks'),
        img_suffix='.png',
        pipeline=PIPELINE,
    )
    made = ZeroShotDataset(plain, phase='test', split=dict(folder=str(root)))
    with pytest.raises(ValueError, match='LoadFolderMasks belongs to FolderSegDataset'):
        made[0]


def test_another_palette_makes_drop_image_look_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('ZS3_MMSEG_CACHE', str(tmp_path / 'cache'))
    colours = np.array(COLOURS, np.uint8)
    write(root, 'of_sky', colours[np.zeros((2, 2), int)])
    write(root, 'of_plant', colours[np.ones((2, 2), int)])
    kept = []
    for order in ((0, 1, 2), (1, 0, 2)):
        lines = [' '.join(map(str, COLOURS[place])) for place in order]
        (root / 'palette.txt').write_text('\n'.join(lines) + '\n')
        dataset = ZeroShotDataset(
            dict(type='FolderSegDataset', data_root=str(root), pipeline=PIPELINE),
            phase='train',
            split=dict(folder=str(root)),
            unseen_policy='drop_image',
        )
        kept += [
            Path(dataset.get_data_info(i)['img_path']).stem for i in range(len(dataset))
        ]
    assert kept == ['of_sky', 'of_plant']


def _of_mode(mode: str) -> tuple[str, Image.Image]:
    grey, opaque = Image.fromarray(MASK), Image.fromarray(np.full_like(MASK, 255))
    if mode == 'F':
        return '.tif', Image.fromarray(MASK.astype(np.float32))
    bands = [opaque if band == 'A' else grey for band in mode]
    return '.png', Image.merge(mode, bands)


@pytest.mark.parametrize('mode', ['LA', 'RGB', 'RGBA', 'F'])
def test_masks_of_odd_modes_are_labels(root: Path, mode: str) -> None:
    write(root, 'a')
    (root / 'masks/a.png').unlink()
    suffix, image = _of_mode(mode)
    image.save(root / f'masks/a{suffix}')
    assert labels(root) == [MASK.tolist()]


def test_stock_loaders_are_told_of_alpha(root: Path) -> None:
    write(root, 'a')
    _of_mode('LA')[1].save(root / 'masks/a.png')
    plain = dict(
        type='BaseSegDataset',
        metainfo=dict(classes=NAMES),
        data_root=str(root),
        data_prefix=dict(img_path='images', seg_map_path='masks'),
        img_suffix='.png',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')],
    )
    made = ZeroShotDataset(plain, phase='test', split=dict(folder=str(root)))
    with pytest.raises(ValueError, match=r'masks/a\.png.*grey with alpha'):
        made[0]


def test_negative_labels_are_no_classes(root: Path) -> None:
    write(root, 'a')
    (root / 'masks/a.png').unlink()
    Image.fromarray(MASK.astype(np.int32) - 256).save(root / 'masks/a.tif')
    with pytest.raises(ValueError, match=r'label values -256, -255, -254, -1'):
        labels(root)


def test_void_may_follow_the_last_class(root: Path) -> None:
    write(root, 'a', np.where(MASK == 255, 3, MASK).astype(np.uint8))
    assert labels(root, ignore_index=3) == [MASK.tolist()]


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('palette.txt', '# R G B\n1 2 3 dog', r"palette\.txt, line 2: 'dog' is none"),
        ('palette.txt', '1 2 3 sky\n4 5 6 Sky', r"line 2: 'Sky' is listed twice"),
        (
            'palette.json',
            '{"sky": [1, 2, 3], "sky": [4, 5, 6]}',
            r"palette\.json: 'sky' is listed twice",
        ),
    ],
)
def test_palettes_name_the_line(
    root: Path, name: str, content: str, message: str
) -> None:
    write(root, 'a')
    (root / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        labels(root)


def test_captions_come_with_the_pictures_of_their_subset(root: Path) -> None:
    for name in ('train/a', 'train/deep/b', 'val/a'):
        write(root, name)
    (root / 'captions').mkdir()
    said = dict(a=['a cat', 'the sky'])
    (root / 'captions/train.json').write_text(json.dumps(said))
    trained, tested = (
        FolderSegDataset(root, subset, pipeline=[]) for subset in ('train', 'val')
    )
    assert [sample['caption'] for sample in trained] == ['a cat . the sky', '']
    assert 'caption' not in tested[0]
