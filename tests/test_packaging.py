"""Requirements, the installer, metafiles and links: what users meet first."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from mmengine.config import Config

from zs3_mmseg.utils.names import duplicates

ROOT = Path(__file__).resolve().parents[1]

# ------------------------------------------------------------------ requirements


def requirement_lines(name: str) -> list[str]:
    text = (ROOT / 'requirements' / f'{name}.txt').read_text()
    lines = (line.partition('#')[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def normalised(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


@pytest.mark.parametrize(
    'extra',
    [
        *('runtime', 'mm', 'pretrain', 'tensorboard', 'datasets', 'export', 'web'),
        *('docs', 'test', 'test-slow', 'lint'),
    ],
)
def test_constraints_pin_every_requirement_within_its_bounds(extra: str) -> None:
    pins = {}
    for line in requirement_lines('constraints'):
        name, _, version = line.partition('==')
        pins[normalised(name)] = version
    for line in requirement_lines(extra):
        requirement = Requirement(line)
        assert requirement.specifier.contains(pins[normalised(requirement.name)])


def test_mm_packages_are_no_hard_dependency() -> None:
    # two families of distributions provide them; a fixed choice breaks the other
    names = {
        normalised(Requirement(line).name) for line in requirement_lines('runtime')
    }
    assert not [name for name in names if 'mmcv' in name or 'mmengine' in name]
    assert not [name for name in names if 'mmseg' in name]


@pytest.mark.parametrize('path', sorted((ROOT / 'requirements').glob('*.txt')), ids=str)
def test_requirements_name_packages_only(path: Path) -> None:
    # no index, address or local path: the user's own pip settings decide
    for line in requirement_lines(path.stem):
        assert Requirement(line).url is None


# --------------------------------------------------------------------- installer

#: Stands in for .venv/bin/python: notes every call and succeeds.
FAKE_PYTHON = """#!/bin/sh
printf '%s\\n' "$*" >>"{log}"
"""


class FakeCheckout:
    """A copy of the installer's inputs in a folder whose name has a space."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / 'a clone'
        self.log = folder / 'calls.log'
        (self.root / 'requirements').mkdir(parents=True)
        for path in [ROOT / 'setup.py', *(ROOT / 'requirements').iterdir()]:
            target = self.root / path.relative_to(ROOT)
            target.write_bytes(path.read_bytes())

    def add_venv(self) -> None:
        python = self.root / '.venv' / 'bin' / 'python'
        python.parent.mkdir(parents=True)
        python.write_text(FAKE_PYTHON.format(log=self.log))
        python.chmod(0o755)

    def install(self, extras: str, **environment: str) -> tuple[int, str]:
        done = subprocess.run(
            ['sh', str(self.root / 'requirements' / 'install.sh'), extras],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            cwd=self.root.parent,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def installed(self) -> list[str]:
        """The pip installations so far, forgotten once read."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line for line in lines if 'pip install' in line]


@pytest.fixture
def checkout(tmp_path: Path) -> FakeCheckout:
    return FakeCheckout(tmp_path)


def test_installer_installs_once(checkout: FakeCheckout) -> None:
    checkout.add_venv()
    code, output = checkout.install('mm,test')
    assert code == 0, output
    dependencies, package = checkout.installed()
    assert '-c requirements/constraints.txt' in dependencies
    for name in ('runtime', 'mm', 'test'):
        assert f'-r requirements/{name}.txt' in dependencies
    assert package.endswith('-e .')
    assert (checkout.root / '.venv' / 'install_seconds').read_text().strip().isdigit()

    assert checkout.install('mm,test') == (0, '')
    assert checkout.installed() == []


def test_installer_installs_again_when_a_requirement_changed(
    checkout: FakeCheckout,
) -> None:
    checkout.add_venv()
    checkout.install('mm')
    checkout.installed()
    with open(checkout.root / 'requirements' / 'runtime.txt', 'a') as stream:
        stream.write('einops\n')
    assert checkout.install('mm')[0] == 0
    assert checkout.installed() != []


def test_installer_refuses_an_unsupported_python(
    checkout: FakeCheckout, tmp_path: Path
) -> None:
    old = tmp_path / 'python3.9'
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1\nexit 1\n')
    old.chmod(0o755)
    code, output = checkout.install('mm', PYTHON=str(old))
    assert code == 1
    assert 'Python 3.11 or 3.12 is needed, found: Python 3.9.1' in output
    assert not (checkout.root / '.venv').exists()


@pytest.mark.parametrize(
    'target', ['demo', 'test', 'lint', 'docs', 'bench', 'clean', 'help']
)
def test_make_knows_the_target(target: str) -> None:
    done = subprocess.run(
        ['make', '--dry-run', target], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


# --------------------------------------------------------------------- metafiles

METAFILES = sorted((ROOT / 'configs').rglob('metafile.yml'))


def read_models() -> Iterator[dict[str, Any]]:
    for path in METAFILES:
        yield from yaml.safe_load(path.read_text())['Models']


def test_the_index_imports_every_metafile() -> None:
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert sorted(index['Import']) == [
        path.relative_to(ROOT).as_posix() for path in METAFILES
    ]


def test_names_of_models_are_unique() -> None:
    assert duplicates(model['Name'] for model in read_models()) == []


def test_metafiles_list_every_config_and_no_other() -> None:
    listed = [model['Config'] for model in read_models()]
    on_disk = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / 'configs').rglob('*.py')
        if '_base_' not in path.parts
    ]
    assert sorted(listed) == sorted(on_disk)


@pytest.mark.parametrize(
    'model', list(read_models()), ids=lambda model: model['Config']
)
def test_metafile_entry(model: dict[str, Any]) -> None:
    config = Path(model['Config'])
    # A stem that several methods have is told apart by the method.
    assert model['Name'] in (config.stem, f'{config.parent.name}_{config.stem}')
    # a plain string would become one alias per letter
    assert isinstance(model['Alias'], list)
    assert 'Weights' in model, "MMSegInferencer('NAME') reads it; null for none"
    if model['Weights'] is not None:
        assert (ROOT / model['Weights']).is_file()
    # `mim search` looks at the first entry of every list.
    assert [] not in (model.get('Metadata') or {}).values()
    iterations = (model.get('Metadata') or {}).get('Iterations')
    if iterations is not None:
        config = Config.fromfile(ROOT / model['Config'], import_custom_modules=False)
        assert iterations == config.train_cfg.max_iters


@pytest.mark.parametrize('metafile', METAFILES, ids=lambda path: path.parent.name)
def test_collections_have_a_readme(metafile: Path) -> None:
    content = yaml.safe_load(metafile.read_text())
    names = {collection['Name'] for collection in content['Collections']}
    assert {model['In Collection'] for model in content['Models']} <= names
    for collection in content['Collections']:
        assert (ROOT / collection['README']).is_file()


# ------------------------------------------------------------------------- links

PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for folder in ('', 'docs/**/', 'configs/**/', 'projects/**/', 'zs3_mmseg/**/')
    for page in ROOT.glob(f'{folder}*.md')
    if not {'_build', '.mim'} & set(page.parts)
)
LINK = re.compile(r'\[[^\]]*\]\(([^)\s]+)\)')
CODE = re.compile(r'```.*?```|`[^`\n]*`', flags=re.DOTALL)


@pytest.mark.parametrize('page', PAGES)
def test_relative_links_resolve(page: str) -> None:
    text = CODE.sub('', (ROOT / page).read_text(encoding='utf-8'))
    targets = [target.partition('#')[0] for target in LINK.findall(text)]
    broken = [
        target
        for target in targets
        if target
        and not re.match('[a-z]+:', target)
        and not (ROOT / page).parent.joinpath(target).exists()
    ]
    assert broken == []


@pytest.mark.parametrize('page', PAGES)
def test_files_named_in_code_exist(page: str) -> None:
    """Commands on the pages name configs and tools by paths that exist."""
    text = (ROOT / page).read_text(encoding='utf-8')
    folders = 'tools|configs|benchmarks|projects'
    pattern = rf'(?<![\w/.-])((?:{folders})/[\w/.-]+\.(?:py|sh|yml))'
    missing = {name for name in re.findall(pattern, text) if not (ROOT / name).exists()}
    assert missing == set()
