"""Files that would run code when unpickled, given to every tool that loads files."""

import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from zs3_mmseg.utils.checkpoint import safe_load

LAST = 'work_dirs/tiny_run/iter_12.pth'


class MakesFolder:
    """Leaves a folder behind when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / 'executed'


@pytest.fixture
def poisoned(trained: Path, tmp_path: Path, marker: Path) -> Path:
    """Return a whole training checkpoint with a call in its meta data."""
    checkpoint = torch.load(trained / LAST, weights_only=False)
    checkpoint['meta']['note'] = MakesFolder(marker)
    torch.save(checkpoint, tmp_path / 'poisoned.pth')
    return tmp_path / 'poisoned.pth'


def test_the_poison_works_where_nobody_looks(poisoned: Path, marker: Path) -> None:
    torch.load(poisoned, weights_only=False)
    assert marker.is_dir()


@pytest.mark.parametrize(
    ('tool', 'arguments'),
    [
        ('test.py', ['{config}', '{file}']),
        ('train.py', ['{config}', '--resume', '{file}']),
        ('train.py', ['{config}', '--resume']),
        ('train.py', ['{config}', '--cfg-options', 'load_from={file}']),
        (
            'train.py',
            [
                '{config}',
                '--cfg-options',
                'model.backbone.init_cfg.type=Pretrained',
                'model.backbone.init_cfg.checkpoint={file}',
            ],
        ),
        (
            'convert_checkpoint.py',
            ['clip', '{file}', 'out.safetensors', '--arch', 'zs3-shapes-tiny'],
        ),
    ],
    ids=['test', 'resume', 'resume-auto', 'load_from', 'init_cfg', 'convert'],
)
def test_nothing_is_executed(
    run_tool, tiny_config, poisoned, marker, tool, arguments
) -> None:
    folder = poisoned.parent
    run = folder / 'work_dirs/tiny_run'
    run.mkdir(parents=True)
    (run / 'last_checkpoint').write_text(str(poisoned))
    places = {'config': tiny_config, 'file': poisoned}
    filled = [argument.format(**places) for argument in arguments]
    finished = run_tool(tool, *filled, folder=folder)
    assert not marker.exists()
    assert finished.status == 2
    assert 'posix.mkdir' in finished.output
    assert 'Nothing was executed' in finished.output
    assert 'Traceback' not in finished.output


def test_config_text_of_old_files_is_not_run_as_python(
    run_tool, tiny_config, trained, tmp_path, marker
) -> None:
    checkpoint = safe_load(trained / LAST)
    text = f"""
        import os
        os.mkdir({str(marker)!r})
        gpu_ids = [0]
    """
    checkpoint['meta']['config'] = textwrap.dedent(text)
    torch.save(checkpoint, tmp_path / 'old.pth')
    finished = run_tool('train.py', tiny_config, '--resume', 'old.pth', folder=tmp_path)
    assert finished.status == 0
    assert not marker.exists()
