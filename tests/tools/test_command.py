"""The command ``zs3``: quick to help, thin over the tools, completed by the shell."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ROOT / 'zs3_cli.py'


def run_command(
    *words: str, code: str = 'sys.exit(main())', **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a fresh interpreter, as its entry point does."""
    entry = f'import sys\nfrom zs3_cli import main\n{code}'
    return subprocess.run(
        [sys.executable, '-c', entry, *words],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '100', **environment},
        check=False,
    )


@pytest.mark.parametrize(
    'words', [('--help',), ('--version',), ('list',), ('segment', '-h'), ('web', '-h')]
)
def test_help_and_lists_import_nothing_heavy(words: tuple[str, ...]) -> None:
    code = """
try:
    status = main()
except SystemExit as end:
    status = end.code
print('loaded:', sorted({'torch', 'mmseg', 'zs3_mmseg', 'cv2'} & sys.modules.keys()))
sys.exit(status)
"""
    done = run_command(*words, code=code)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.splitlines()[-1]
    # mmengine, which reads --cfg-options, brings cv2
    assert loaded in ('loaded: []', "loaded: ['cv2']"), loaded


def test_every_command_is_listed_with_what_it_does() -> None:
    listed = run_command().stdout
    for command in ('segment', 'train', 'test', 'check', 'convert', 'list', 'doctor'):
        assert f'    {command} ' in listed
    assert 'Train a segmentor\n' in listed


def test_a_tool_runs_under_the_name_of_the_command(run_tool, tmp_path: Path) -> None:
    Image.new('RGB', (40, 30), 'red').save(tmp_path / 'red.png')
    words = ['segment', 'red.png', '--classes', 'star', 'grass', '--out-dir', 'out']
    finished = run_tool('../zs3_cli.py', *words, folder=tmp_path)
    assert finished.status == 0, finished.output
    assert (tmp_path / 'out/red_labels.png').is_file()
    wrong = run_tool('../zs3_cli.py', 'check', folder=tmp_path)
    assert wrong.status == 2
    assert wrong.output.startswith('usage: zs3 check'), wrong.output


def test_tools_know_shipped_configs_by_name(run_tool, tmp_path: Path) -> None:
    finished = run_tool('misc/print_config.py', 'zegclip/own_folder', folder=tmp_path)
    assert finished.status == 0, finished.output
    assert 'FolderSegDataset' in finished.output


def test_configs_are_found_by_words() -> None:
    names = run_command('list', 'zegclip', 'own').stdout.split()
    assert names == ['zegclip/own_folder', 'zegclip/own_folder_vitb16']
    found = run_command('list', '--path', 'own_folder_timm_cosine')
    (path,) = found.stdout.splitlines()  # which may have spaces
    assert Path(path).is_file()
    assert run_command('list', 'no', 'such').returncode == 1


@pytest.mark.parametrize(
    ('line', 'offered'),
    [
        ('zs3 tr', {'train'}),
        ('zs3 segment --names', {'--names-file'}),
        ('zs3 completion f', {'fish'}),
    ],
)
def test_the_shell_completes(line: str, offered: set[str], tmp_path: Path) -> None:
    answer = tmp_path / 'answer'
    run_command(
        _ARGCOMPLETE='1',
        _ARGCOMPLETE_STDOUT_FILENAME=str(answer),
        _ARGCOMPLETE_IFS='\n',
        COMP_LINE=line,
        COMP_POINT=str(len(line)),
    )
    assert {word.strip() for word in answer.read_text().split('\n')} == offered


def test_shells_are_told_how_to_ask() -> None:
    assert 'complete ' in run_command('completion', 'bash').stdout


def test_doctor_tells_good_from_broken(
    run_tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    well = run_tool('doctor.py', folder=tmp_path)
    assert well.status == 0, well.output
    assert 'segments a picture' in well.output
    installed = metadata.version
    monkeypatch.setattr(
        metadata, 'version', lambda name: '0.1' if name == 'timm' else installed(name)
    )
    ill = run_tool('doctor.py', folder=tmp_path)
    assert ill.status == 1
    assert 'timm 0.1 is installed, wanted >=1' in ill.output


def test_pictures_are_named_on_standard_input(tmp_path: Path) -> None:
    for name in ('a.png', 'below/b.png', 'below/c.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new('RGB', (40, 30)).save(tmp_path / name)
    tool = [sys.executable, str(ROOT / 'tools/segment.py'), '-', '--no-recursive']
    done = subprocess.run(
        [*tool, '--classes', 'star', 'sea', '--out-dir', 'out'],
        cwd=tmp_path,
        input='a.png\n\nbelow\n',
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = {path.name for path in (tmp_path / 'out').glob('*_labels.png')}
    assert made == {'a_labels.png', 'b_labels.png', 'c_labels.png'}
