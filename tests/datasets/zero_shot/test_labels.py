import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from small_folder import (
    CLASSES,
    MASK,
    PIPELINE,
    SPLIT,
    Folder,
    concat,
    labels,
    repeat,
    wrap,
)

from mmseg.datasets import PascalVOCDataset
from mmseg.registry import DATASETS, TRANSFORMS


@pytest.mark.parametrize(
    ('phase', 'setting', 'expected'),
    [
        ('train', 'inductive', [[255, 1, 255], [0, 255, 255]]),
        ('train', 'transductive', [[254, 1, 255], [0, 255, 254]]),
        ('train', 'supervised', [[2, 1, 255], [0, 255, 2]]),
        ('train', 'layout_oracle', [[2, 1, 255], [0, 255, 2]]),
        ('train', 'unseen_location', [[254, 1, 255], [0, 255, 254]]),
        ('test', 'inductive', [[2, 1, 255], [0, 255, 2]]),
        ('test', 'transductive', [[2, 1, 255], [0, 255, 2]]),
    ],
)
def test_labels_follow_phase_and_setting(
    folder: Folder, phase: str, setting: str, expected: list[list[int]]
) -> None:
    assert labels(wrap(folder(), phase=phase, setting=setting)[0]) == expected


def test_phase_is_required(folder: Folder) -> None:
    with pytest.raises(TypeError, match='phase'):
        DATASETS.build(dict(type='ZeroShotDataset', split=SPLIT, dataset=folder()))


def test_data_set_without_names_has_split_labels(folder: Folder) -> None:
    dataset = wrap(folder([MASK % 3], metainfo=None))
    assert labels(dataset[0]) == [[0, 1, 255], [0, 0, 0]]


def test_label_map_of_chosen_classes_is_taken_into_account(tmp_path: Path) -> None:
    """MMSegmentation renumbers the labels itself when classes are chosen by name."""
    for kind in ('images', 'masks'):
        (tmp_path / kind).mkdir()
    names = list(PascalVOCDataset.METAINFO['classes'])
    mask = np.array([[names.index(n) for n in ('cow', 'dog', 'cat', 'background')]])
    Image.fromarray(mask.astype(np.uint8)).save(tmp_path / 'masks/a.png')
    Image.fromarray(np.zeros((1, 4, 3), np.uint8)).save(tmp_path / 'images/a.jpg')
    (tmp_path / 'list.txt').write_text('a\n')
    inner = dict(
        type='PascalVOCDataset',
        metainfo=dict(classes=['dog', 'cow', 'cat']),
        data_root=str(tmp_path),
        ann_file='list.txt',
        serialize_data=False,
        data_prefix=dict(img_path='images', seg_map_path='masks'),
        pipeline=PIPELINE,
    )
    split = dict(classes=['cat', 'cow', 'dog'], unseen=['cow'])
    dataset = wrap(inner, split=split, phase='test')
    assert labels(dataset[0]) == [[1, 2, 0, 255]]
    palette = PascalVOCDataset.METAINFO['palette']
    expected = [palette[names.index(name)] for name in split['classes']]
    assert dataset.metainfo['palette'] == expected
    # Without the list of classes, background is left out by the split alone.
    whole = wrap({**inner, 'metainfo': None}, split=split, phase='test')
    assert labels(whole[0]) == [[1, 2, 0, 255]]
    for metainfo in (inner['metainfo'], None):
        shifted = {**inner, 'metainfo': metainfo, 'reduce_zero_label': True}
        with pytest.raises(ValueError, match='shifted twice'):
            wrap(shifted, split=split)


def test_reduce_zero_label_of_own_names_is_fine(folder: Folder) -> None:
    mask = np.array([[0, 1, 2, 3, 4, 255]], dtype=np.uint8)
    dataset = wrap(folder([mask], reduce_zero_label=True), phase='test')
    assert labels(dataset[0]) == [[255, 2, 1, 255, 0, 255]]


def test_another_ignore_index_of_the_data_set(folder: Folder) -> None:
    mask = np.array([[0, 1, 200]], dtype=np.uint8)
    dataset = wrap(folder([mask], ignore_index=200), phase='test')
    assert labels(dataset[0]) == [[2, 1, 255]]


@pytest.mark.parametrize('phase', ['train', 'test'])
def test_unknown_label_names_the_file(folder: Folder, phase: str) -> None:
    dataset = wrap(folder([MASK, np.full_like(MASK, 77)]), phase=phase)
    with pytest.raises(ValueError, match=r'masks/1\.png: label values 77'):
        dataset[1]


def test_colour_coded_mask_names_the_file(folder: Folder) -> None:
    dataset = wrap(folder([np.zeros((4, 5, 3), np.uint8)]))
    with pytest.raises(ValueError, match=r'masks/0\.png.*colour-coded'):
        dataset[0]


def test_sizes_that_differ_name_both_files(folder: Folder) -> None:
    config = folder()
    Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(
        Path(config['data_root']) / 'images/0.png'
    )
    with pytest.raises(ValueError, match=r'masks/0\.png has 3 x 2 .*images/0\.png'):
        wrap(config)[0]


def test_image_resized_before_its_labels_is_no_mismatch(folder: Folder) -> None:
    pipeline = [PIPELINE[0], dict(type='Resize', scale=(9, 6)), *PIPELINE[1:]]
    sample = wrap(folder(pipeline=pipeline), phase='test')[0]
    assert sample['inputs'].shape[1:] == (6, 9)
    assert labels(sample) == [[2, 1, 255], [0, 255, 2]]


@TRANSFORMS.register_module()
class Spy:
    """Notes each label map that comes by; reads it itself if asked to."""

    noted: list[np.ndarray] = []

    def __init__(self, reads: bool = False) -> None:
        self.reads = reads

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        if self.reads:
            results['gt_seg_map'] = cv2.imread(results['seg_map_path'], -1)
        else:
            self.noted.append(results['gt_seg_map'].copy())
        return results


@pytest.mark.parametrize(
    'reader', [dict(type='LoadAnnotations'), dict(type='Spy', reads=True)]
)
@pytest.mark.parametrize(
    'nest',
    [
        lambda inside: inside,
        lambda inside: [dict(type='RandomApply', transforms=inside, prob=1.0)],
        lambda inside: [dict(type='RandomChoice', transforms=[inside])],
        lambda inside: [
            dict(type='TestTimeAug', transforms=[[part] for part in inside])
        ],
    ],
    ids=['flat', 'apply', 'choice', 'tta'],
)
def test_next_transform_already_sees_hidden_labels(
    folder: Folder, reader: dict[str, Any], nest: Callable[[list], list]
) -> None:
    inside = [reader, dict(type='Spy'), dict(type='PackSegInputs')]
    Spy.noted = []
    wrap(folder(pipeline=[PIPELINE[0], *nest(inside)]))[0]
    assert [noted.tolist() for noted in Spy.noted] == [[[255, 1, 255], [0, 255, 255]]]


def test_wraps_wrappers_and_is_wrapped_by_them(folder: Folder) -> None:
    """A Concat of Repeats inside, and the same outside."""
    one, two = folder([MASK], 'one'), folder([MASK[:, ::-1]], 'two')
    inside = wrap(concat(repeat(one), two))
    zero_shot = dict(type='ZeroShotDataset', phase='train', split=SPLIT)
    outside = DATASETS.build(
        concat(repeat(dict(zero_shot, dataset=one)), dict(zero_shot, dataset=two))
    )
    first, last = [[255, 1, 255], [0, 255, 255]], [[255, 1, 255], [255, 255, 0]]
    for dataset in (inside, outside):
        assert [labels(dataset[i]) for i in range(len(dataset))] == [first, first, last]
        assert dataset.metainfo['unseen'] == (2,)


def test_wrapping_twice_is_an_error(folder: Folder) -> None:
    inner = DATASETS.build(folder())
    wrap(inner)
    with pytest.raises(ValueError, match='already wrapped'):
        wrap(inner)


def test_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match='got list'):
        wrap([1, 2])


def test_metainfo_carries_the_contract(folder: Folder) -> None:
    metainfo = wrap(folder()).metainfo
    assert metainfo['classes'] == ('tvmonitor', 'dog', 'cat')
    assert metainfo['seen'] == (0, 1)
    assert metainfo['unseen'] == (2,)
    assert all(type(index) is int for index in metainfo['seen'] + metainfo['unseen'])
    assert (metainfo['ignore_index'], metainfo['unlabelled_index']) == (255, 254)
    assert json.loads(json.dumps(metainfo['split']))['unseen'] == ['cat']
    named = wrap(folder(metainfo=None), split='shapes').metainfo
    assert named['split'] == 'shapes_a'


def test_palette_follows_the_names(folder: Folder) -> None:
    palette = [[1, 1, 1], [2, 2, 2], [3, 3, 3], [4, 4, 4]]
    config = folder(metainfo=dict(classes=CLASSES, palette=palette))
    assert wrap(config).metainfo['palette'] == [[4, 4, 4], [2, 2, 2], [1, 1, 1]]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(phase='val'), "validation is phase='test'"),
        (dict(phase='trian'), "Did you mean 'train'"),
        (dict(setting='inductiv'), "Did you mean 'inductive'"),
        (dict(unseen_policy='drop'), "Did you mean 'drop_image'"),
        (dict(unseen_policy='drop_image', phase='test'), 'inductive training only'),
        (
            dict(unseen_policy='drop_image', setting='transductive'),
            'inductive training only',
        ),
        (dict(pseudo_label_dir='x', phase='test'), 'nothing is hidden'),
        (dict(pseudo_label_dir='x', setting='layout_oracle'), 'nothing is hidden'),
        (dict(split=dict(classes=['dog'], unseen=[])), "use setting='supervised'"),
        (dict(split=dict(classes=['dog'], unseen=['dog'])), 'no seen class'),
    ],
)
def test_arguments_that_make_no_sense(
    folder: Folder, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        wrap(folder(), **arguments)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(data_root='/nowhere'), r'/nowhere \(data_root\)'),
        (dict(ann_file='no.txt'), r'no\.txt \(ann_file\)'),
        (
            dict(data_prefix=dict(img_path='imgs', seg_map_path='masks')),
            r'imgs \(data_prefix\.img_path\)',
        ),
        (
            dict(data_prefix=dict(img_path='images', seg_map_path='msk')),
            r'msk/0\.png \(seg_map_path\)',
        ),
        (dict(seg_map_suffix='_labels.png'), r'0_labels\.png \(seg_map_path\)'),
        (dict(img_suffix='.jpg'), r'no image \*\.jpg found'),
    ],
)
def test_missing_files_name_the_path_and_the_key(
    folder: Folder, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(FileNotFoundError, match=f'{message}.*change data_root'):
        wrap(concat(folder(**change)))


def test_default_image_suffix_is_known(folder: Folder) -> None:
    config = folder()
    del config['img_suffix']
    with pytest.raises(FileNotFoundError, match=r'no image \*\.jpg found'):
        wrap(config)


@pytest.mark.parametrize(
    ('setting', 'said'),
    [('layout_oracle', 'TRUE labels'), ('unseen_location', 'WHERE')],
)
def test_what_leaks_is_logged_loudly(
    folder: Folder, log: list, setting: str, said: str
) -> None:
    wrap(folder(), setting=setting)
    assert any(r.levelno >= logging.WARNING and said in r.msg for r in log)


@pytest.mark.parametrize(
    ('count', 'ignored', 'message'),
    [
        (254, 255, None),
        (255, 255, None),  # 0 to 254, and ignored ones, fit 8 bits
        (255, 65535, 'LoadAnnotations keeps the lower 8 bits .* up to 65535'),
        (256, 255, 'ignore_index 255 must lie above the 256 labels'),
        (256, 256, 'LoadAnnotations keeps the lower 8 bits .* up to 256'),
        (300, 65535, 'LoadAnnotations keeps the lower 8 bits .* up to 65535'),
    ],
)
def test_labels_beyond_8_bits_need_a_loader_that_keeps_them(
    folder: Folder, count: int, ignored: int, message: str | None
) -> None:
    names = [f'name {number}' for number in range(count)]
    mask = np.array([[0, count - 1, ignored]], np.uint16)
    config = folder(
        [mask.astype(np.uint8) if message is None else mask],
        metainfo=dict(classes=names),
        ignore_index=ignored,
    )
    split = dict(classes=names, unseen=names[-1:])
    if message is not None:
        with pytest.raises(ValueError, match=message):
            wrap(config, split=split)
        return
    tested = wrap(config, split=split, phase='test')
    ignore = tested.metainfo['ignore_index']
    assert labels(tested[0]) == [[0, count - 1, ignore]]
    trained = wrap(config, split=split, setting='transductive')
    assert labels(trained[0]) == [[0, ignore - 1, ignore]]
