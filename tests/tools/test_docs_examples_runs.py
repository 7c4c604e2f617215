"""The pages of docs/examples do what they say, command by command, on few images."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytestmark = pytest.mark.slow
PAGES = Path(__file__).resolve().parents[2] / 'docs/examples'
SHORT = ['train_cfg.max_iters=1', 'default_hooks.checkpoint.interval=1']


def written(page: str, folder: Path) -> list[list[str]]:
    """Write the files of a page into a folder; return its commands."""
    text = (PAGES / f'{page}.md').read_text(encoding='utf-8')
    files = r'^`(\w+\.(?:csv|py))`.*?```\w+\n(.*?)```'
    for name, content in re.findall(files, text, re.S | re.M):
        (folder / name).write_text(content)
    blocks = re.findall(r'```bash\n(.*?)```', text, re.S)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def run_page(
    run_tool: Any, page: str, folder: Path, small: dict[str, list[str]]
) -> list[str]:
    """Run a page with more flags for some tools; return the tools."""
    done: list[str] = []
    for _, script, *arguments in written(page, folder):
        tool = script.removeprefix('tools/')
        arguments = [part.replace('iter_320.pth', 'iter_1.pth') for part in arguments]
        arguments += small.get(Path(tool).stem, [])
        if tool == 'segment.py':
            Image.new('RGB', (56, 48), 'green').save(folder / 'picture.png')
            with (folder / 'species.csv').open('a') as stream:
                stream.write('worm,1,0,0,0,0\n')
        finished = run_tool(tool, *arguments, folder=folder)
        assert finished.status == 0, finished.output
        done.append(Path(tool).stem)
    return done


def few(*options: str) -> list[str]:
    loader = ('num_workers=0', 'persistent_workers=False')
    return ['--cfg-options', *(f'train_dataloader.{o}' for o in loader), *options]


SCENES = '{}_dataloader.dataset.dataset.num_images={}'


def test_rare_classes(run_tool: Any, tmp_path: Path) -> None:
    small = {
        'export_shapes': ['--train', '120', '--val', '2'],
        'train': few(*SHORT),
        'tune_on_val': few(*SHORT, 'train_cfg.val_interval=9'),
    }
    done = run_page(run_tool, 'rare_classes', tmp_path, small)
    assert done == ['export_shapes', 'train', 'test', 'tune_on_val']
    assert (tmp_path / 'rare/metrics.json').is_file()


def test_products(run_tool: Any, tmp_path: Path) -> None:
    small = {'test': ['--cfg-options', SCENES.format('test', 12)]}
    assert run_page(run_tool, 'products', tmp_path, small) == ['test']
    metrics = json.loads((tmp_path / 'products/metrics.json').read_text())
    # Of six classes, guessing finds a sixth.
    assert metrics['mIoU'] > 30


def test_species(run_tool: Any, tmp_path: Path) -> None:
    scenes = [SCENES.format('train', 4), SCENES.format('val', 2)]
    small = {
        'train': few(*SHORT, *scenes),
        'test': ['--cfg-options', SCENES.format('test', 4)],
    }
    done = run_page(run_tool, 'species', tmp_path, small)
    assert done == ['train', 'test', 'segment']
