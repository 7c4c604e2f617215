"""Every tool writes names in any script to a console that knows few characters."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TOOL = Path(__file__).resolve().parents[2] / 'tools'
NAMES = ('\u8349\u5730', 'Fu\u00dfg\u00e4nger\u2026', '[bold]star[/x]', 'n' * 300)
GRASS = '\\u8349\\u5730'
FOLDER = '\u6570\u636e \u00e9'
ENCODINGS = ('ascii', 'cp1252', 'cp437', 'shift_jis')


@pytest.fixture(scope='module')
def place(run_tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with data of such names, configs and a trained checkpoint."""
    place = tmp_path_factory.mktemp('place')
    root = place / FOLDER
    rng = np.random.default_rng(0)
    for subset in ('train', 'val'):
        for part, shape in (('images', (48, 48, 3)), ('masks', (48, 48))):
            (root / part / subset).mkdir(parents=True)
            values = rng.integers(0, 256 if part == 'images' else 4, shape)
            picture = Image.fromarray(values.astype(np.uint8))
            picture.save(root / part / subset / f'{NAMES[0]}.png')
    (root / 'classes.txt').write_text('\n'.join(NAMES), 'utf-8')
    (root / 'unseen.txt').write_text(NAMES[3], 'utf-8')
    for name, base in (
        ('tested', 'clip_dense/own_folder.py'),
        ('trained', 'baselines/own_folder_linear.py'),
    ):
        lines = [
            f"_base_ = 'zs3_mmseg::{base}'",
            f'data_root = {FOLDER!r}',
            'split = dict(folder=data_root)',
            'model = dict(split=split, test_cfg=dict(score_thr=0.5))',
            'inner = dict(split=split, dataset=dict(data_root=data_root))',
            'loader = dict(num_workers=0, persistent_workers=False, dataset=inner)',
            'test_dataloader = val_dataloader = loader',
        ]
        if name == 'trained':
            lines += [
                'train_dataloader = dict(batch_size=1, **loader)',
                'train_cfg = dict(max_iters=1, val_interval=1)',
                'default_hooks = dict(checkpoint=dict(interval=1))',
            ]
        (place / f'{name}.py').write_text('\n'.join(lines), 'utf-8')
    finished = run_tool('train.py', 'trained.py', folder=place)
    assert finished.status == 0, finished.output
    return place


WEIGHTS = 'work_dirs/trained/iter_1.pth'
#: Tool -> its arguments, its exit status, and what its output holds of a name.
CALLS = {
    'segment.py': ([FOLDER, '--classes', *NAMES, '--out-dir', 'out'], 0, GRASS),
    'check_data.py': (['tested.py'], 0, GRASS),
    'test.py': (['tested.py', '--report', '--out', 'o', '--show-dir', 's'], 0, GRASS),
    'train.py': (['trained.py'], 0, GRASS),
    'make_pseudo_labels.py': (
        ['trained.py', WEIGHTS, '--out-dir', 'pseudo', '--force'],
        0,
        'nnn',
    ),
    'convert_checkpoint.py': (
        [
            'zegclip',
            f'{FOLDER}.pth',
            'a.pth',
            '--split',
            'voc12_15_5',
            '--text-rows',
            'a.npy',
        ],
        2,
        '\\u6570',
    ),
    'prepare_data.py': (['voc12', '--source', f'{FOLDER}.tar'], 2, '\\u6570'),
    'demo.py': (['--data-root', f'{WEIGHTS}/{FOLDER}'], 2, '\\u6570'),
    'misc/print_config.py': (['tested.py'], 0, '\\u6570'),
    'misc/export_shapes.py': (
        [f'{FOLDER}2', '--train', '1', '--val', '1'],
        0,
        '\\u6570',
    ),
    'misc/publish_model.py': ([WEIGHTS, f'{FOLDER}.pth'], 0, '\\u6570'),
    'analysis_tools/benchmark.py': (['tested.py', '--images', '2'], 0, ''),
    'analysis_tools/get_flops.py': (['tested.py', '--shape', '32'], 0, 'GFLOPs'),
    'analysis_tools/tune_on_val.py': (
        [
            'tested.py',
            '--key',
            'model.test_cfg.score_thr',
            '--values',
            '1',
            '2',
        ],
        0,
        '',
    ),
    'analysis_tools/draw_shapes.py': (
        ['a.png', '--model', NAMES[0], f'{FOLDER}.py'],
        2,
        '\\u6570',
    ),
    'dataset_converters/voc_aug.py': ([FOLDER + '3', '-o', 'voc'], 2, '\\u6570'),
}


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize('tool', CALLS)
def test_what_cannot_be_shown_is_replaced(
    run_tool, place: Path, tool: str, encoding: str
) -> None:
    arguments, status, holds = CALLS[tool]
    finished = run_tool(tool, *arguments, folder=place, encoding=encoding)
    assert finished.status == status, finished.output
    for trouble in ('Traceback', 'Logging error', 'UnicodeEncodeError'):
        assert trouble not in finished.output
    shown = (
        holds.encode().decode('unicode_escape') if encoding == 'shift_jis' else holds
    )
    assert holds in finished.output or shown in finished.output


def test_files_hold_the_names_in_utf_8(run_tool, place: Path) -> None:
    flags = ['--report', '--work-dir', 'work']
    finished = run_tool('test.py', 'tested.py', *flags, folder=place, encoding='ascii')
    assert finished.status == 0, finished.output
    with (place / 'work/report/classes.csv').open(encoding='utf-8') as stream:
        assert tuple(row['class'] for row in csv.DictReader(stream)) == NAMES
    (log,) = (place / 'work').glob('*/*.log')
    assert NAMES[0] in log.read_text('utf-8')


@pytest.mark.slow
def test_a_locale_of_ascii_alone(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f'{FOLDER}.png')
    environment = {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}
    command = [sys.executable, TOOL / 'segment.py', f'{FOLDER}.png', '--out-dir', 'out']
    done = subprocess.run(
        [*map(str, command), '--classes', NAMES[0], 'star'],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    assert b'Traceback' not in done.stderr + done.stdout
    record = json.loads((tmp_path / f'out/{FOLDER}.json').read_text('utf-8'))
    assert [entry['name'] for entry in record['classes']] == [NAMES[0], 'star']
