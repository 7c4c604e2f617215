"""prepare_data and the converters, as a user runs them, up to a test of a segmentor."""

from __future__ import annotations

from pathlib import Path

import pytest
from official_layouts import CASES

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
TESTED = [name for name, case in CASES.items() if case.configs]


@pytest.mark.slow
@pytest.mark.parametrize('name', TESTED)
def test_from_official_archives_to_a_tested_segmentor(
    run_tool, tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    archives = case.make(tmp_path / 'official').pack(tmp_path / 'archives')
    flags = [case.benchmark, '--source', archives, '--workers', 2]
    short = run_tool('prepare_data.py', *flags, folder=tmp_path)
    assert short.status == 1, short.output
    assert 'too few' in short.output
    assert '--allow-partial' in short.output
    again = run_tool('prepare_data.py', *flags, '--allow-partial', folder=tmp_path)
    assert again.status == 0, again.output
    assert ' 0 files written' in f' {again.output}'.replace('\n', ' ')
    config = tmp_path / 'dense.py'
    config.write_text(f"""
_base_ = [
    '{CONFIGS}/_base_/models/clip_shapes_tiny.py',
    '{CONFIGS}/_base_/datasets/{case.configs[0]}.py',
    '{CONFIGS}/_base_/default_runtime.py',
]
model = dict(split=_base_.split)
train_dataloader = None
# Pictures that are smaller than those of the config, for speed.
_base_.test_pipeline[1].scale = 56
test_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=_base_.test_pipeline),
)
""")
    checked = run_tool('check_data.py', config, '--all', folder=tmp_path)
    assert checked.status == 0, checked.output
    tested = run_tool('test.py', config, folder=tmp_path)
    assert tested.status == 0, tested.output
    assert 'mIoU' in tested.output


def test_wrong_use_ends_in_one_line(run_tool, tmp_path: Path) -> None:
    missing = run_tool(
        'prepare_data.py', 'voc12', '--source', 'nowhere', folder=tmp_path
    )
    assert missing.status == 2
    assert 'nowhere (a source) does not exist' in missing.output
    assert 'Traceback' not in missing.output
    unknown = run_tool('prepare_data.py', 'voc11', folder=tmp_path)
    assert unknown.status == 2
    assert 'voc12' in unknown.output


def test_a_subset_with_missing_files_is_never_accepted(
    run_tool, tmp_path: Path
) -> None:
    official = CASES['ade20k'].make(tmp_path / 'official')
    (official.folder / 'ADEChallengeData2016/images/training').rename(tmp_path / 'x')
    flags = ['ade20k', '--source', official.folder, '--allow-partial']
    finished = run_tool('prepare_data.py', *flags, folder=tmp_path)
    assert finished.status == 1
    assert 'not usable' in finished.output


@pytest.mark.parametrize(
    ('script', 'name'),
    [
        ('voc_aug', 'voc12'),
        ('pascal_context', 'context_mat'),
        ('coco_stuff164k', 'cocostuff164k'),
        ('coco_objects', 'coco20i'),
        ('cityscapes', 'cityscapes'),
    ],
)
def test_converters_run(run_tool, tmp_path: Path, script: str, name: str) -> None:
    official = CASES[name].make(tmp_path / 'official')
    tool = f'dataset_converters/{script}.py'
    finished = run_tool(tool, official.folder, '-o', 'out', folder=tmp_path)
    assert finished.status == 0, finished.output
    assert list((tmp_path / 'out').rglob('*.png'))
