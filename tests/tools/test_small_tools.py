"""The tools for analysis, conversion and export, and the shell scripts."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from zs3_mmseg.utils.checkpoint import safe_load

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def test_flops_of_convolutions(run_tool, tmp_path: Path) -> None:
    # The second convolution goes from 5 channels to 2 classes, 1 x 1 as well.
    (tmp_path / 'two_convolutions.py').write_text("""
default_scope = 'mmseg'
custom_imports = dict(imports=['tiny_run_parts'])
head = dict(type='FCNHead', in_channels=5, channels=5, num_convs=0, concat_input=False)
model = dict(
    type='EncoderDecoder',
    backbone=dict(type='OneConvolution'),
    decode_head=dict(num_classes=2, in_index=0, **head),
)
""")
    flags = ['two_convolutions.py', '--shape', 1000, 2000]
    finished = run_tool('analysis_tools/get_flops.py', *flags, folder=tmp_path)
    macs = 1000 * 2000 * (3 * 5 + 5 * 2) / 1e9
    assert f'= {macs:.2f} GMACs' in finished.output, finished.output


def test_speed_is_measured(run_tool, tiny_config, trained, tmp_path) -> None:
    weights = trained / 'work_dirs/tiny_run/iter_12.pth'
    flags = ['--images', 9, '--warm-up', 1]
    tool = 'analysis_tools/benchmark.py'
    finished = run_tool(tool, tiny_config, weights, *flags, folder=tmp_path)
    assert finished.status == 0, finished.output
    speed = json.loads((tmp_path / 'work_dirs/tiny_run/speed.json').read_text())
    assert speed['images'] == 9
    assert speed['images_per_second'] > 0


def test_config_is_printed_as_python(run_tool, tiny_config, tmp_path) -> None:
    flags = ['--graph', '--cfg-options', 'train_cfg.max_iters=77']
    finished = run_tool('misc/print_config.py', tiny_config, *flags, folder=tmp_path)
    assert finished.status == 0, finished.output
    assert re.search(r'train_cfg = dict\(max_iters=77', finished.output)
    assert '(conv_seg): Conv2d(8, 3' in finished.output


def test_published_files_hold_weights_and_meta(run_tool, trained, tmp_path) -> None:
    source = trained / 'work_dirs/tiny_run/iter_12.pth'
    tool = 'misc/publish_model.py'
    finished = run_tool(tool, source, 'net.pth', folder=tmp_path)
    assert finished.status == 0, finished.output
    (published,) = tmp_path.glob('net-*.pth')
    content = torch.load(published, weights_only=True)
    assert content.keys() == {'meta', 'state_dict'}
    assert content['state_dict'].keys() == safe_load(source)['state_dict'].keys()


def test_walks_are_counted(run_tool, tmp_path) -> None:
    finished = run_tool('misc/trace_calls.py', '--list', folder=tmp_path)
    assert finished.status == 0, finished.output
    rows = re.findall(r'^(\w.*?) {2,}(\d+) +(\d+) +(\d+)$', finished.output, re.M)
    figures = {name: [*map(int, numbers)] for name, *numbers in rows}
    assert len(figures) == 6
    assert all(files <= functions for files, functions, _ in figures.values())
    # The second time, names are known and nothing is encoded.
    again = figures['second predict, one image']
    first = figures['first predict: class name -> logit']
    assert all(a < b for a, b in zip(again, first, strict=True))
    assert re.search(r'zero_shot_dataset.py: ZeroShotDataset.\w+', finished.output)
    assert 'circle of imports: none' in finished.output


GATE = TOOLS.parent / 'configs/clip_dense/shapes_tiny_gate.py'
FEW_SCENES = ['--cfg-options', 'val_dataloader.dataset.dataset.num_images=3']


def test_the_best_value_on_val_is_named(run_tool, tmp_path) -> None:
    flags = ['--key', 'model.calibrators.0.weight', '--values', 0, 4, '--out', 't.json']
    finished = run_tool(
        'analysis_tools/tune_on_val.py', GATE, *flags, *FEW_SCENES, folder=tmp_path
    )
    assert finished.status == 0, finished.output
    report = json.loads((tmp_path / 't.json').read_text())
    scores = {float(value): s['hIoU'] for value, s in report['scores'].items()}
    assert scores[0.0] != scores[4.0]
    assert report['best'] == max(scores, key=scores.get)


LINEAR = TOOLS.parent / 'configs/baselines/shapes_tiny_linear.py'


@pytest.mark.parametrize(
    ('key', 'trainings'),
    [('model.calibrators.0.shift', 1), ('optim_wrapper.optimizer.lr', 2)],
)
def test_tuning_without_labels_of_unseen_classes(
    run_tool, tmp_path, key, trainings
) -> None:
    (tmp_path / 'shifted.py').write_text(
        f"_base_ = '{LINEAR}'\n"
        "model = dict(calibrators=[dict(type='SeenShift', shift=0.1, space='logit')])\n"
    )
    small = ['train_dataloader.dataset.dataset.num_images=2', 'train_cfg.max_iters=1']
    small += ['train_cfg.val_interval=2', 'train_dataloader.batch_size=2']
    finished = run_tool(
        'analysis_tools/tune_on_val.py',
        *('shifted.py', '--key', key, '--values', 0, 0.1, '--work-dir', 'tuned'),
        *('--pseudo-unseen', 'fish', 'sand', '--out', 't.json'),
        *(*FEW_SCENES, *small),
        folder=tmp_path,
    )
    assert finished.status == 0, finished.output
    report = json.loads((tmp_path / 't.json').read_text())
    assert report['pseudo_unseen'] == ['fish', 'sand']
    checkpoints = [*(tmp_path / 'tuned/pseudo_unseen').rglob('iter_1.pth')]
    assert len(checkpoints) == trainings
    rows = safe_load(checkpoints[0])['state_dict']['_extra_state']
    assert rows['unseen'] == ['fish', 'sand']
    assert not {'car', 'mushroom', 'bricks'} & {*rows['classes']}


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (
            ['--key', 'model.calibrators.0.weight', '--pseudo-unseen', 'fisch'],
            "'fisch' is no seen class of split 'shapes_a'. Did you mean 'fish'",
        ),
        (['--key', 'model.gate.weight'], "the config has no 'gate' there"),
        (
            ['--key', 'model.calibrators.0.weight', '--metric', 'miou', *FEW_SCENES],
            '--metric miou: known are aAcc, mAcc, mIoU',
        ),
    ],
)
def test_tuning_explains_mistakes(run_tool, tmp_path, flags, message) -> None:
    values = ['--values', 0, 1]
    finished = run_tool(
        'analysis_tools/tune_on_val.py', GATE, *values, *flags, folder=tmp_path
    )
    assert finished.status == 2
    assert message in finished.output
    assert 'Traceback' not in finished.output


@pytest.mark.parametrize(
    ('tool', 'flags', 'message'),
    [
        ('misc/export_shapes.py', ['out', '--split', 'voc12_15_5'], 'invalid choice'),
        ('misc/export_shapes.py', ['out', '--val', 0], 'must be 1 or more'),
        ('prepare_data.py', ['ade20k', '--workers', 0], 'must be 1 or more'),
        ('dataset_converters/voc_aug.py', ['in', '--workers', 0], 'must be 1 or more'),
        ('analysis_tools/get_flops.py', ['no_model.py'], 'has no model'),
        ('analysis_tools/benchmark.py', ['no_model.py'], 'has no model, test_data'),
        ('misc/print_config.py', ['no_model.py', '--graph'], 'has no model'),
        ('analysis_tools/draw_shapes.py', ['out', '--model', 'dense'], 'CONFIG'),
    ],
)
def test_mistakes_get_one_line(run_tool, tmp_path, tool, flags, message) -> None:
    (tmp_path / 'no_model.py').write_text("default_scope = 'mmseg'\n")
    finished = run_tool(tool, *flags, folder=tmp_path)
    assert finished.status == 2
    assert message in finished.output
    assert 'Traceback' not in finished.output
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh']
)
def test_scripts_explain_themselves(script: str) -> None:
    finished = subprocess.run(
        ['bash', TOOLS / script], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    assert f'tools/{script}' in finished.stderr
    assert 'CONFIG' in finished.stderr


def test_slurm_gets_one_task_per_gpu(tmp_path: Path) -> None:
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nfor word in "$@"; do echo "[$word]"; done\n')
    srun.chmod(0o755)
    env = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'GPUS': '2'}
    finished = subprocess.run(
        ['bash', TOOLS / 'slurm_test.sh', 'gpu', 'name', 'a b.py', 'none', '--tta'],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    words = finished.stdout.splitlines()
    assert '[--ntasks=2]' in words
    assert words[-4:] == ['[a b.py]', '[--launcher]', '[slurm]', '[--tta]']


@pytest.mark.slow
def test_torchrun_trains_on_cpus(tiny_config: Path, tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        port = sock.getsockname()[1]
    paths = f'{TOOLS.parent}:{tiny_config.parent}'
    env = {'PYTHON': sys.executable, 'PORT': str(port), 'PYTHONPATH': paths}
    options = ['train_cfg.max_iters=1', 'train_cfg.val_interval=9']
    finished = subprocess.run(
        ['bash', TOOLS / 'dist_train.sh', tiny_config, '2', '--cfg-options', *options],
        env={**os.environ, **env},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    checkpoint = safe_load(tmp_path / 'work_dirs/tiny_run/iter_1.pth')
    assert len(checkpoint['random_state']['ranks']) == 2


def test_scenes_are_drawn_with_a_column_for_each_model(
    run_tool, tmp_path: Path
) -> None:
    config = TOOLS.parent / 'configs/clip_dense/shapes_tiny.py'
    column = ['--model', 'dense', config]
    for name, columns in (('one', column), ('two', [*column, *column])):
        finished = run_tool(
            'analysis_tools/draw_shapes.py',
            f'{name}.png',
            *columns,
            *('--scenes', 1, '--data-root', tmp_path / 'shapes'),
            folder=tmp_path,
        )
        assert finished.status == 0, finished.output
    sizes = {name: Image.open(tmp_path / f'{name}.png').size for name in ('one', 'two')}
    # Image, truth, and the models.
    assert sizes['two'][0] / sizes['one'][0] == pytest.approx(4 / 3, rel=0.05)
