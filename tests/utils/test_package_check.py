"""The check of the mm-packages, against fake distributions on disk."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmengine.config.utils import MODULE2PACKAGE

from zs3_mmseg.utils import package_check

FORK = {
    'onedl-mmengine': ('mmengine', '0.10.12'),
    'onedl-mmcv': ('mmcv', '2.3.6'),
    'onedl-mmsegmentation': ('mmseg', '1.4.2'),
}


def add_distribution(site: Path, name: str, version: str, module: str) -> None:
    info = site / f'{name.replace("-", "_")}-{version}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(
        f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
    )
    (info / 'top_level.txt').write_text(f'{module}\n')
    (site / module).mkdir(exist_ok=True)
    (site / module / '__init__.py').touch()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An environment in which the fork is all that is installed."""
    for name, (module, version) in FORK.items():
        add_distribution(tmp_path, name, version, module)
    standard = [entry for entry in sys.path if 'site-packages' not in entry]
    monkeypatch.setattr(sys, 'path', [str(tmp_path), *standard])
    for module, _ in FORK.values():
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path


def remove_files(site: Path, module: str) -> None:
    (site / module / '__init__.py').unlink()


def remove_distribution(site: Path, name: str) -> None:
    module, version = FORK[name]
    info = site / f'{name.replace("-", "_")}-{version}.dist-info'
    for path in info.iterdir():
        path.unlink()
    info.rmdir()
    remove_files(site, module)


def test_the_fork_alone_passes_in_silence(site: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        package_check.check_packages()


@pytest.mark.parametrize('name', FORK)
def test_a_missing_module_is_named_with_both_install_lines(
    site: Path, name: str
) -> None:
    remove_distribution(site, name)
    with pytest.raises(ImportError) as caught:
        package_check.check_packages()
    message = str(caught.value)
    assert f"No module named '{FORK[name][0]}'" in message
    assert 'pip install onedl-mmengine onedl-mmcv onedl-mmsegmentation' in message
    assert 'pip install "mmengine>=0.10,<1" "mmcv>=2.0.0,<2.2"' in message


def test_a_listed_distribution_without_files_gets_its_own_repair(site: Path) -> None:
    remove_files(site, 'mmcv')
    with pytest.raises(
        ImportError, match='--force-reinstall --no-deps onedl-mmcv'
    ) as caught:
        package_check.check_packages()
    assert 'the files are gone' in str(caught.value)


def test_an_old_version_is_refused(site: Path) -> None:
    remove_distribution(site, 'onedl-mmsegmentation')
    add_distribution(site, 'mmsegmentation', '0.30.0', 'mmseg')
    with pytest.raises(
        ImportError, match=r'mmseg>=1\.1\.0, but mmsegmentation 0\.30\.0'
    ):
        package_check.check_packages()


def test_two_providers_of_one_module_earn_a_warning_with_the_repair(
    site: Path,
) -> None:
    add_distribution(site, 'mmcv-lite', '2.1.0', 'mmcv')
    with pytest.warns(UserWarning, match='2 distributions provide') as caught:
        package_check.check_packages()
    message = str(caught[0].message)
    assert 'pip uninstall -y mmcv-lite onedl-mmcv' in message
    assert 'pip install --force-reinstall --no-deps onedl-mmcv' in message


def failing_import(error: BaseException) -> Callable[[str], None]:
    def import_module(name: str) -> None:
        raise error

    return import_module


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (
            ModuleNotFoundError("No module named 'mmcv._ext'", name='mmcv._ext'),
            r"No module named 'mmcv\._ext': this mmcv has no compiled ops",
        ),
        (
            ModuleNotFoundError(
                "No module named 'pkg_resources'", name='pkg_resources'
            ),
            'setuptools<82',
        ),
        (
            AssertionError('MMCV==2.3.6 is used but incompatible. Please install ...'),
            r'(?s)MMCV==2\.3\.6 is used but incompatible.*--force-reinstall --no-deps',
        ),
    ],
)
def test_a_known_failure_inside_mmseg_is_explained(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, expected: str
) -> None:
    monkeypatch.setattr(package_check, 'import_module', failing_import(error))
    with pytest.raises(ImportError, match=expected) as caught:
        package_check.import_mmseg()
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    'error',
    [ModuleNotFoundError("No module named 'x'", name='x'), AssertionError('other')],
)
def test_an_unknown_failure_inside_mmseg_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(package_check, 'import_module', failing_import(error))
    with pytest.raises(type(error)) as caught:
        package_check.import_mmseg()
    assert caught.value is error


def test_only_the_notice_of_the_fork_is_kept_from_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def import_module(name: str) -> None:
        sys.stdout.write(f'Could not import OneDL\nsomething about {name}\n')

    monkeypatch.setattr(package_check, 'import_module', import_module)
    package_check.import_mmseg()
    printed = capsys.readouterr().out.splitlines()
    assert {'something about mmseg.datasets', 'something about mmseg.models'} <= {
        *printed
    }
    assert all(line.startswith('something about mmseg.') for line in printed)


@pytest.mark.parametrize(
    ('distribution', 'expected'),
    [('onedl-mmsegmentation', 'mmseg'), ('mmsegmentation', 'mmsegmentation')],
)
def test_mmengine_learns_what_provides_mmseg(
    site: Path,
    monkeypatch: pytest.MonkeyPatch,
    distribution: str,
    expected: str,
) -> None:
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'mmsegmentation')
    if distribution not in FORK:
        add_distribution(site, distribution, '1.2.2', 'mmseg')
    package_check.name_modules_for_mmengine()
    assert MODULE2PACKAGE['mmseg'] == expected
    assert MODULE2PACKAGE['zs3_mmseg'] == 'zs3_mmseg'
