"""The tutorial on own data, command by command, and data drawn in colours."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / 'docs/user_guides/own_data.md'


def blocks() -> list[tuple[str, str]]:
    """Return the page's commands and configs, in order."""
    text = PAGE.read_text(encoding='utf-8')
    return re.findall(r'```(bash|python)\n(.*?)```', text, flags=re.DOTALL)


@pytest.mark.slow
def test_the_tutorial_runs(run_tool, tmp_path: Path) -> None:
    ran = []
    for language, block in blocks():
        if language == 'python':
            name = block.splitlines()[0].removeprefix('# ')
            (tmp_path / name).write_text(block)
            continue
        for line in block.splitlines():
            python, tool, *arguments = shlex.split(line)
            assert python == 'python'
            finished = run_tool(
                tool.removeprefix('tools/'), *arguments, folder=tmp_path
            )
            assert finished.status == 0, finished.output
            ran.append(tool)
    assert ran == [
        'tools/misc/export_shapes.py',
        'tools/check_data.py',
        'tools/test.py',
        'tools/check_data.py',
        'tools/train.py',
    ]
    metrics = json.loads((tmp_path / 'work_dirs/my_data/metrics.json').read_text())
    assert metrics['hIoU'] > 0
    assert (tmp_path / 'work_dirs/my_data/report/confusion.png').is_file()
    assert (tmp_path / 'work_dirs/my_training/iter_20.pth').is_file()


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
