"""Official files, prepared and read through the configs, against their known truth."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from official_layouts import CASES, VOID, Case, Official

import mmseg
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.datasets import PascalContextDataset
from mmseg.registry import DATASETS

from zs3_mmseg.datasets import ZeroShotDataset
from zs3_mmseg.datasets.preparation import (
    BENCHMARKS,
    PreparationError,
    Report,
    convert_labels,
    prepare,
)
from zs3_mmseg.datasets.preparation.labels import png_bytes
from zs3_mmseg.datasets.preparation.pascal_context import labels_of_raw
from zs3_mmseg.datasets.preparation.pixel_maps import stuff_labels
from zs3_mmseg.datasets.splits import get_split

ROOT = Path(__file__).resolve().parents[3]
FRAGMENTS = ROOT / 'configs/_base_/datasets'
LOAD_ONLY = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]


@pytest.fixture(autouse=True)
def _mmseg_scope() -> None:
    if DefaultScope.get_current_instance() is None:
        DefaultScope.get_instance('benchmarks', scope_name='mmseg')


@pytest.fixture(scope='module', params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope='module')
def official(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Official:
    return case.make(tmp_path_factory.mktemp('official'))


@pytest.fixture(scope='module')
def prepared(
    case: Case, official: Official, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Prepare from the unpacked files; return the folder above ``data``."""
    folder = tmp_path_factory.mktemp('prepared')
    root = folder / BENCHMARKS[case.benchmark].root
    check_counts(prepare(case.benchmark, root, [official.folder]), official)
    return folder


def check_counts(report: Report, official: Official) -> None:
    assert report.usable
    found = sum(count.found for count in report.counts)
    assert found == len(official.train) + len(official.test)
    assert all('too few' in count.verdict for count in report.counts)


def state_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Return hash and time of change of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def contents_of(folder: Path) -> dict[str, str]:
    return {path: content for path, (content, _) in state_of(folder).items()}


def check_labels(
    dataset: ZeroShotDataset, truth: Mapping[str, np.ndarray], hidden: set[str]
) -> None:
    """Compare every pixel with the name it should have; unnamed ones are ignored."""
    assert len(dataset) == len(truth)
    classes = [*dataset.metainfo['classes']]
    for index, (stem, pixels) in enumerate(truth.items()):
        sample = dataset[index]['data_samples']
        path = Path(sample.img_path)
        assert path.name.split('.')[0].removesuffix('_leftImg8bit') in stem
        labels = sample.gt_sem_seg.data[0].numpy()
        names = np.array([*classes, *[VOID] * (256 - len(classes))], dtype=object)
        expected = np.where(np.isin(pixels, [*(set(classes) - hidden)]), pixels, VOID)
        assert (names[labels] == expected).all(), path


def changed(config: Any, **settings: Any) -> Any:
    """Return the config of a data set with other settings of the inner data sets."""
    if 'datasets' in config:
        parts = [changed(part, **settings) for part in config['datasets']]
        return {**config, 'datasets': parts}
    if 'dataset' in config:
        return {**config, 'dataset': changed(config['dataset'], **settings)}
    return {**config, **settings}


def build(config: Any, **settings: Any) -> ZeroShotDataset:
    # Serialised data would be collected as garbage first, which takes long here.
    return DATASETS.build(changed(config, serialize_data=False, **settings))


def test_configs_read_what_was_prepared(
    case: Case, official: Official, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared)
    for name in case.configs:
        config = Config.fromfile(FRAGMENTS / f'{name}.py')
        assert config.data_root == BENCHMARKS[case.benchmark].root
        tested = build(config.test_dataloader.dataset)
        check_labels(tested, official.test, hidden=set())
        assert min(tested[0]['inputs'].shape[1:]) == 512
        if config.train_dataloader is None:
            continue
        assert build(config.train_dataloader.dataset)[0]['inputs'].any()
        trained = build(config.train_dataloader.dataset, pipeline=LOAD_ONLY)
        check_labels(trained, official.train, set(get_split(config.split).unseen))


def test_context_maps_fit_the_59_class_data_set_of_mmseg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official = CASES['context_mat'].make(tmp_path / 'official')
    monkeypatch.chdir(tmp_path)
    prepare('pascal_context', sources=[official.folder])
    config = Config.fromfile(FRAGMENTS / 'context59_512.py').test_dataloader.dataset
    check_labels(build(config, type='PascalContextDataset59'), official.test, set())


def test_raw_stuff_maps_fit_the_split_of_182_labels(tmp_path: Path) -> None:
    official = CASES['cocostuff164k'].make(tmp_path)
    inner = dict(
        type='BaseSegDataset',
        img_suffix='.jpg',
        seg_map_suffix='.png',
        data_root=str(official.folder),
        data_prefix=dict(img_path='val2017', seg_map_path='stuffthingmaps/val2017'),
        pipeline=LOAD_ONLY,
        serialize_data=False,
    )
    dataset = ZeroShotDataset(inner, phase='test', split='cocostuff_167_15')
    check_labels(dataset, official.test, set())


def test_a_disk_that_is_too_small_is_noticed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official = CASES['ade20k'].make(tmp_path / 'official')
    monkeypatch.setattr(
        'shutil.disk_usage', lambda _: SimpleNamespace(total=9, used=9, free=9)
    )
    with pytest.raises(PreparationError, match=r'0\.0 GB left'):
        prepare('ade20k', tmp_path / 'root', [official.folder])
    assert not contents_of(tmp_path / 'root')


def test_a_second_preparation_changes_nothing(
    case: Case, official: Official, prepared: Path
) -> None:
    before = state_of(prepared)
    root = prepared / BENCHMARKS[case.benchmark].root
    report = prepare(case.benchmark, root, [official.folder])
    assert (report.written, report.kept > 0) == (0, True)
    # Nor does one that is given nothing, since the root holds all it needs.
    assert prepare(case.benchmark, root).written == 0
    assert state_of(prepared) == before


def test_archives_give_the_same_files(
    case: Case, official: Official, prepared: Path, tmp_path: Path
) -> None:
    archives = official.pack(tmp_path / 'archives')
    root = tmp_path / BENCHMARKS[case.benchmark].root
    check_counts(prepare(case.benchmark, root, [archives]), official)
    assert contents_of(root) == contents_of(prepared / BENCHMARKS[case.benchmark].root)


def test_a_run_that_was_stopped_goes_on(
    case: Case, official: Official, prepared: Path, tmp_path: Path
) -> None:
    root = tmp_path / 'data'
    prepare(case.benchmark, root, [official.folder])
    files = sorted(path for path in root.rglob('*') if path.is_file())
    for path in files[::3]:
        path.unlink()
    report = prepare(case.benchmark, root, [official.folder])
    assert report.written == len(files[::3])
    assert contents_of(root) == contents_of(prepared / BENCHMARKS[case.benchmark].root)


def test_converters_make_the_same_label_maps(
    case: Case, official: Official, prepared: Path, tmp_path: Path
) -> None:
    if BENCHMARKS[case.benchmark].convert is None:
        with pytest.raises(ValueError, match='used as they are'):
            convert_labels(case.benchmark, official.folder, tmp_path)
        return
    assert convert_labels(case.benchmark, official.folder, tmp_path) > 0
    whole = contents_of(prepared / BENCHMARKS[case.benchmark].root)
    made = {p: c for p, c in contents_of(tmp_path).items() if p.endswith('.png')}
    assert made
    assert made.items() <= whole.items()


def test_files_in_place_are_never_replaced_unless_asked(tmp_path: Path) -> None:
    official = CASES['voc12'].make(tmp_path / 'official')
    root = tmp_path / 'root'
    prepare('voc12', root, [official.folder])
    mask = root / 'SegmentationClassAug/2009_000003.png'
    original = mask.read_bytes()
    mask.write_bytes(b'mine')
    prepare('voc12', root, [official.folder])
    assert mask.read_bytes() == b'mine'
    prepare('voc12', root, [official.folder], overwrite=True)
    assert mask.read_bytes() == original


def test_lists_of_a_root_made_by_mmseg_are_kept(tmp_path: Path) -> None:
    """Its lists of SBD lie elsewhere, so aug.txt cannot be made again."""
    lists = tmp_path / 'ImageSets/Segmentation'
    lists.mkdir(parents=True)
    for name in ('train', 'val', 'aug'):
        (lists / f'{name}.txt').write_text(f'2007_00000{len(name)}\n')
    before = state_of(tmp_path)
    report = prepare('voc12', tmp_path)
    assert state_of(tmp_path) == before
    assert not report.usable
    assert 'JPEGImages/2007_000005.jpg' in report.counts[0].verdict


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    official = CASES['ade20k'].make(tmp_path / 'official')
    prepare('ade20k', tmp_path / 'root', [official.folder])
    mask = 'annotations/training/ADE_train_00000002.png'
    (tmp_path / 'root' / mask).unlink()
    report = prepare('ade20k', tmp_path / 'root')
    assert not report.usable
    assert report.counts[0].missing == (mask,)


def test_nothing_found_tells_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'(?s)trainval_merged\.json.*https://'):
        prepare('pascal_context', tmp_path / 'root', [tmp_path])


def test_two_files_for_one_place_are_an_error(tmp_path: Path) -> None:
    for folder in ('a', 'b'):
        (tmp_path / f'{folder}/val2017').mkdir(parents=True)
        (tmp_path / f'{folder}/val2017/{9:012}.jpg').write_bytes(b'')
    with pytest.raises(PreparationError, match=r'two files for images/val2017'):
        prepare('cocostuff164k', tmp_path / 'root', [tmp_path])


@pytest.mark.parametrize(
    ('name', 'file', 'content', 'message'),
    [
        ('voc12', 'cls/2007_000032.mat', b'broken', 'no MATLAB file'),
        ('pascal_context', '2007_000032.mat', b'MATLAB 5.0', 'no MATLAB file'),
        ('pascal_context', 'trainval_merged.json', b'{}', "JSON file of .*'images'"),
        ('coco20i', 'instances_val2014.json', b'[1]', 'no instance file'),
        ('cocostuff164k', f'val2017/{9:012}.png', b'\x89PNG', 'no readable PNG'),
        (
            'cocostuff164k',
            f'val2017/{9:012}.png',
            png_bytes(np.full((3, 4), 11, np.uint8)),
            'label 11 does not occur',
        ),
        (
            'cityscapes',
            'gtFine/val/a/a_1_gtFine_labelIds.png',
            png_bytes(np.zeros((3, 4, 3), np.uint8)),
            'mode RGB',
        ),
        (
            'cityscapes',
            'gtFine/val/a/a_1_gtFine_labelIds.png',
            png_bytes(np.full((3, 4), 34, np.uint8)),
            'label 34',
        ),
    ],
)
def test_damaged_files_are_named(
    tmp_path: Path, name: str, file: str, content: bytes, message: str
) -> None:
    path = tmp_path / 'source' / file
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(PreparationError, match=message) as caught:
        prepare(name, tmp_path / 'root', [tmp_path / 'source'])
    assert path.name in str(caught.value)
    assert not list((tmp_path / 'root').rglob('*.png'))


def mmseg_converter(name: str) -> str:
    path = Path(mmseg.__file__).parent / f'.mim/tools/dataset_converters/{name}.py'
    if not path.is_file():
        pytest.skip('this mmseg ships no converters')
    return path.read_text()


def test_stuff_labels_are_those_of_mmseg() -> None:
    text = mmseg_converter('coco_stuff164k')
    found = re.search(r'clsID_to_trID = (\{.*?\})', text, flags=re.DOTALL)
    expected = ast.literal_eval(found[1])
    raw = np.array([[*expected]], dtype=np.uint8)
    assert stuff_labels(png_bytes(raw), '').tolist() == [[*expected.values()]]


def test_context_labels_are_those_of_mmseg() -> None:
    text = mmseg_converter('pascal_context')
    found = re.search(r'np\.array\((\[.*?\])\)', text, flags=re.DOTALL)
    mapping = sorted(ast.literal_eval(found[1]))
    assert len(mapping) == len(PascalContextDataset.METAINFO['classes'])
    raw = np.arange(460)[None]
    expected = [mapping.index(v) if v in mapping else 0 for v in range(460)]
    assert labels_of_raw(raw, '').tolist() == [expected]
