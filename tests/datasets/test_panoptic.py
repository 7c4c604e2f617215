"""Panoptic masks: what is read of them, and what leaves a zero-shot data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from mmengine.registry import DefaultScope

from zs3_mmseg.datasets import COCOPanopticDataset, PanopticDataset, ZeroShotDataset
from zs3_mmseg.datasets.panoptic import read_panoptic
from zs3_mmseg.datasets.splits import NameFinder, resolve_split
from zs3_mmseg.datasets.splits.classes import COCO80, COCO_GROUNDS53
from zs3_mmseg.models.losses import MaskTargets, mask_targets

VOID = 255
#: Of the categories below, whose ids have gaps and no order.
CAT, DOG, SKY = 0, 1, 2
CATEGORIES = [
    dict(id=40, name='sky'),
    dict(id=3, name='cat'),
    dict(id=17, name='dog'),
]
#: Two cats, of which one has a number that needs three bytes, a dog, a crowd and sky.
SEGMENTS = [
    dict(id=1, category_id=3, iscrowd=0),
    dict(id=2**16 + 5, category_id=3, iscrowd=0),
    dict(id=300, category_id=17, iscrowd=0),
    dict(id=7, category_id=17, iscrowd=1),
    dict(id=9, category_id=40),
]
NUMBERS = np.array(
    [[1, 1, 2**16 + 5, 2**16 + 5], [300, 300, 7, 7], [9, 9, 9, 0], [9, 9, 9, 0]]
)
LABELS = np.array(
    [
        [CAT, CAT, CAT, CAT],
        [DOG, DOG, VOID, VOID],
        [SKY, SKY, SKY, VOID],
        [SKY, SKY, SKY, VOID],
    ]
)
PLACES = np.array([[1, 1, 2, 2], [3, 3, 0, 0], [5, 5, 5, 0], [5, 5, 5, 0]])
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPanopticAnnotations'),
    dict(type='PackPanopticInputs'),
]


@pytest.fixture(autouse=True)
def _mmseg_scope() -> None:
    if DefaultScope.get_current_instance() is None:
        DefaultScope.get_instance('panoptic', scope_name='mmseg')


def save(path: Path, numbers: np.ndarray) -> None:
    parts = [numbers % 256, numbers // 256 % 256, numbers // 65536]
    Image.fromarray(np.stack(parts, axis=-1).astype(np.uint8)).save(path)


def content() -> dict[str, Any]:
    return dict(
        images=[dict(id=139, file_name='a.jpg')],
        categories=CATEGORIES,
        annotations=[dict(image_id=139, file_name='a.png', segments_info=SEGMENTS)],
    )


def write(root: Path, given: Any = None) -> dict[str, Any]:
    """Write one image, its mask and the file; return the config of the data set."""
    Image.fromarray(np.full((4, 4, 3), 90, np.uint8)).save(root / 'a.jpg')
    save(root / 'a.png', NUMBERS)
    (root / 'panoptic.json').write_text(
        json.dumps(content() if given is None else given)
    )
    return dict(
        type='PanopticDataset',
        data_root=str(root),
        ann_file='panoptic.json',
        data_prefix=dict(img_path='', seg_map_path=''),
        pipeline=PIPELINE,
    )


def test_labels_are_places_of_ascending_ids(tmp_path: Path) -> None:
    options = write(tmp_path)
    del options['type']
    dataset = PanopticDataset(**options)
    assert dataset.metainfo['classes'] == ('cat', 'dog', 'sky')
    sample = dataset[0]['data_samples']
    assert sample.gt_sem_seg.data[0].tolist() == LABELS.tolist()
    assert sample.gt_segments.data[0].tolist() == PLACES.tolist()
    # What tools/check_data.py calls in place of the pipeline.
    assert dataset.read_mask(str(tmp_path / 'a.png')).tolist() == LABELS.tolist()
    renamed = PanopticDataset(**options, metainfo=dict(classes=('puss', 'dog', 'air')))
    assert renamed.metainfo['classes'] == ('puss', 'dog', 'air')
    assert renamed[0]['data_samples'].gt_sem_seg.data[0].tolist() == LABELS.tolist()


@settings(max_examples=30, deadline=None)
@given(
    npst.arrays(np.int64, (3, 5), elements=st.integers(0, 4)),
    st.lists(st.integers(1, 2**24 - 1), min_size=4, max_size=4, unique=True),
    st.lists(st.sampled_from([0, 1, 299, 999]), min_size=4, max_size=4),
)
def test_reading_against_pixel_by_pixel(
    tmp_path_factory: Any, shown: np.ndarray, ids: list[int], labels: list[int]
) -> None:
    """999 is the label of crowds; 300 classes need more than 8 bits."""
    path = tmp_path_factory.mktemp('mask') / 'a.png'
    save(path, np.array([0, *ids])[shown])
    segments = np.array([*zip(ids, labels, strict=True)])
    found, places = read_panoptic(path, segments, 999)
    for spot in np.ndindex(shown.shape):
        place = shown[spot]
        label = labels[place - 1] if place else 999
        assert found[spot] == label
        assert places[spot] == (0 if label == 999 else place)


def test_every_class_of_coco_is_found_by_both_names() -> None:
    finder = NameFinder(COCOPanopticDataset.METAINFO['classes'])
    for names in (resolve_split('fcclip_coco_133').classes, (*COCO80, *COCO_GROUNDS53)):
        assert [finder.find(name) for name in names] == [*range(133)]


@pytest.mark.parametrize('setting', ['inductive', 'transductive', 'supervised'])
def test_outlines_of_unseen_things_stay_inside(setting: str, tmp_path: Path) -> None:
    split = dict(classes=['cat', 'dog', 'sky'], unseen=['cat'])
    dataset = ZeroShotDataset(
        write(tmp_path), phase='train', split=split, setting=setting
    )
    segments = dataset[0]['data_samples'].gt_segments.data[0].numpy()
    hidden = (LABELS == CAT) & (setting != 'supervised')
    assert (segments == np.where(hidden, 0, PLACES)).all()


def test_changes_of_the_picture_reach_both_maps(tmp_path: Path) -> None:
    options = write(tmp_path)
    options['pipeline'] = [
        *PIPELINE[:2],
        dict(type='RandomFlip', prob=1.0),
        dict(type='Resize', scale=(8, 8)),
        dict(type='RandomCrop', crop_size=(6, 8)),
        dict(type='Pad', size=(9, 10), pad_val=dict(img=0, seg=VOID)),
        PIPELINE[2],
    ]
    del options['type']
    sample = PanopticDataset(**options)[0]['data_samples']
    labels, segments = sample.gt_sem_seg.data[0], sample.gt_segments.data[0]
    assert (labels.shape, segments.shape) == ((10, 9), (6, 8))
    of_segment = torch.tensor([VOID, CAT, CAT, DOG, VOID, SKY])
    assert torch.equal(of_segment[segments], labels[:6, :8])
    assert {*segments.unique().tolist()} >= {3, 5}
    target = mask_targets(labels[None], [sample], VOID)[0]
    masks = zip(target.labels.tolist(), target.masks.flatten(1).sum(1), strict=True)
    counted = [n for n in segments.unique() if n]
    brute = [(of_segment[n], (segments == n).sum()) for n in counted]
    assert sorted((v, int(m)) for v, m in masks) == sorted(
        (int(v), int(m)) for v, m in brute
    )


@settings(max_examples=30, deadline=None)
@given(
    npst.arrays(np.int64, (3, 4), elements=st.sampled_from([0, 1, 200, VOID])),
    npst.arrays(np.int32, (3, 4), elements=st.integers(0, 3)),
)
def test_targets_are_labels_in_segments(labels: np.ndarray, parts: np.ndarray) -> None:
    target = MaskTargets.of(torch.tensor(labels), VOID, torch.tensor(parts))
    pairs = {*zip(labels.flat, parts.flat, strict=True)}
    wanted = sorted(
        (int(label), ((labels == label) & (parts == part)).tolist())
        for label, part in pairs
        if label != VOID
    )
    found = zip(target.labels.tolist(), target.masks.tolist(), strict=True)
    assert sorted(found) == wanted


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in content().items() if name != key}


def with_segment(**changes: Any) -> dict[str, Any]:
    changed = content()
    changed['annotations'][0]['segments_info'] = [{**SEGMENTS[0], **changes}]
    return changed


@pytest.mark.parametrize(
    ('given', 'options', 'message'),
    [
        ([], {}, r'panoptic\.json is no panoptic annotation file'),
        (without('images'), {}, r"is no panoptic .*'images'"),
        (without('categories'), {}, r"is no panoptic .*'categories'"),
        (without('annotations'), {}, r"is no panoptic .*'annotations'"),
        ({**content(), 'categories': []}, {}, 'has no categories'),
        ({**content(), 'annotations': []}, {}, 'has no annotations'),
        ({**content(), 'categories': [CATEGORIES[0]] * 2}, {}, 'two categories of one'),
        ({**content(), 'images': []}, {}, r'is no panoptic .*KeyError\(139\)'),
        (with_segment(category_id=4), {}, r'is no panoptic .*KeyError\(4\)'),
        (with_segment(id='x'), {}, r'is no panoptic .*invalid literal'),
        (with_segment(id=2**70), {}, r'is no panoptic .*OverflowError'),
        (
            {**content(), 'categories': [dict(id=float('inf'), name='a')]},
            {},
            r'is no panoptic .*OverflowError',
        ),
        (with_segment(id=8), {}, r'a\.png shows segments that .* list: 1, 7, 9, 300'),
        (None, dict(reduce_zero_label=True), 'reduce_zero_label must be False'),
        (None, dict(metainfo=dict(classes=('a', 'b'))), '3 categories, .* 2 names'),
    ],
)
def test_other_files_are_refused(
    given: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    made = {**write(tmp_path, given), **options}
    del made['type']
    with pytest.raises(ValueError, match=message):
        PanopticDataset(**made)[0]


def test_a_missing_file_is_told_with_its_key(tmp_path: Path) -> None:
    options = write(tmp_path)
    (tmp_path / 'panoptic.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'panoptic\.json \(ann_file\)'):
        ZeroShotDataset(options, phase='test', split=dict(classes=['cat'], unseen=[]))


def test_a_grey_mask_is_refused(tmp_path: Path) -> None:
    options = write(tmp_path)
    del options['type']
    Image.fromarray(LABELS.astype(np.uint8)).save(tmp_path / 'a.png')
    with pytest.raises(ValueError, match='is grey; numbers of segments are colours'):
        PanopticDataset(**options)[0]
