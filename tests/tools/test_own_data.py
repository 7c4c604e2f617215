"""The tutorial on own data, command by command, and data drawn in colours."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zs3_mmseg.datasets.splits import get_split

SHAPES = get_split('shapes_a').classes
GUIDES = Path(__file__).resolve().parents[2] / 'docs/user_guides'
#: No minute of computing, and weights that nobody has to fetch.
SMALL = """
crop = [
    *_base_.train_pipeline[:2],
    dict(type='RandomCrop', crop_size=(64, 64)),
    *_base_.train_pipeline[-1:],
]
whole = [*_base_.test_pipeline[:1], *_base_.test_pipeline[2:]]
train_dataloader['dataset']['pipeline'] = crop
test_dataloader['dataset']['pipeline'] = whole
train_dataloader['num_workers'] = test_dataloader['num_workers'] = 0
train_dataloader['persistent_workers'] = False
test_dataloader['persistent_workers'] = False
model['backbone'] = dict(backbone=dict(pretrained=False))
custom_hooks = _base_.custom_hooks
if len(custom_hooks) > 1:
    custom_hooks[1].update(segmentor_iters=1, generator_iters=1)
param_scheduler = []
default_hooks = dict(checkpoint=dict(interval=1))
train_cfg = dict(max_iters=3, val_interval=3)
"""
SHORTENED = {'iter_300': 'iter_1', 'iter_700': 'iter_3'}


def run_page(name: str, run_tool, folder: Path, changes: str = '') -> list[str]:
    """Run a page's configs, with changes, and its commands in order; return the tools.

    With changes, the commands name the checkpoints of a shorter training.
    """
    text = (GUIDES / f'{name}.md').read_text(encoding='utf-8')
    for long, short in SHORTENED.items():
        text = text.replace(long, short)
    tools = []
    found = re.findall(r'```(bash|python)\n(.*?)```', text, flags=re.DOTALL)
    # A picture of one's own, and configs before the commands that name them.
    for language, block in sorted(found, key=lambda part: part[0] == 'bash'):
        if language == 'python':
            file = block.splitlines()[0].removeprefix('# ')
            (folder / file).write_text(block + changes)
            continue
        for line in block.splitlines():
            python, tool, *arguments = shlex.split(line)
            assert python == 'python'
            finished = run_tool(tool.removeprefix('tools/'), *arguments, folder=folder)
            assert finished.status == 0, finished.output
            tools.append(tool.removeprefix('tools/'))
    return tools


@pytest.mark.slow
def test_the_tutorial_runs(run_tool, tmp_path: Path) -> None:
    assert run_page('own_data', run_tool, tmp_path) == [
        'misc/export_shapes.py',
        'check_data.py',
        'test.py',
        'check_data.py',
        'train.py',
        'test.py',
        'segment.py',
    ]
    for run in ('my_data', 'my_training'):
        work_dir = tmp_path / 'work_dirs' / run
        # Untrained and hardly trained, CLIP finds classes without masks.
        metrics = json.loads((work_dir / 'metrics.json').read_text())
        assert metrics['mIoU_unseen'] > 0
        assert metrics['hIoU'] > 0
        assert (work_dir / 'report/confusion.png').is_file()
    pictures = (tmp_path / 'data/my_shapes/images/val').iterdir()
    segmented = {path.name for path in (tmp_path / 'out').glob('*_labels.png')}
    assert segmented == {f'{path.stem}_labels.png' for path in pictures}


@pytest.mark.slow
def test_the_tutorial_without_clip_runs(run_tool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = tmp_path / 'data/word_vectors/glove.6B.300d.txt'
    vectors.parent.mkdir(parents=True)
    words = {word for name in SHAPES for word in name.split()}
    lines = [' '.join([word, *rng.normal(size=300).astype(str)]) for word in words]
    vectors.write_text('\n'.join(lines))
    photo = rng.integers(0, 255, (80, 120, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / 'photo.png')
    tools = run_page('street_photographs', run_tool, tmp_path, SMALL)
    trained = ['train.py', 'test.py', 'test.py', 'segment.py']
    assert tools == ['misc/export_shapes.py', 'check_data.py', 'train.py', *trained]
    for run in ('street_cosine/iter_3.pth', 'street_zs3/iter_3.pth'):
        assert (tmp_path / 'work_dirs' / run).is_file()
    metrics = json.loads((tmp_path / 'work_dirs/street_zs3/metrics.json').read_text())
    assert {'mIoU_seen', 'mIoU_unseen', 'hIoU'} <= metrics.keys()
    assert Image.open(tmp_path / 'out/photo_labels.png').size == (120, 80)


def test_masks_in_colours_give_the_same_labels(run_tool, tmp_path: Path) -> None:
    found = []
    for name, flags in (('plain', []), ('drawn', ['--colours'])):
        numbers = ['--train', 3, '--val', 2]
        tool = 'misc/export_shapes.py'
        finished = run_tool(tool, name, *numbers, *flags, folder=tmp_path)
        assert finished.status == 0, finished.output
        (tmp_path / f'{name}.py').write_text(
            "_base_ = 'zs3_mmseg::baselines/own_folder_linear.py'\n"
            f"data_root = '{name}'\n"
            'split = dict(folder=data_root)\n'
            'model = dict(split=split)\n'
            'inner = dict(data_root=data_root)\n'
            'data = dict(dataset=dict(split=split, dataset=inner))\n'
            'train_dataloader = val_dataloader = test_dataloader = data\n'
        )
        finished = run_tool('check_data.py', f'{name}.py', folder=tmp_path)
        assert finished.status == 0, finished.output
        report = tmp_path / f'work_dirs/check_data/{name}/report.json'
        found.append(json.loads(report.read_text())['classes'])
    assert found[0] == found[1]
    assert sum(row['percent'] for row in found[0]['train']) == pytest.approx(100)
