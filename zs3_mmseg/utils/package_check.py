"""The mm-packages: are they there, new enough, and installed only once?

Two families of distributions provide the modules ``mmengine``, ``mmcv`` and ``mmseg``:
upstream's and the maintained ``onedl-*`` fork. pip knows nothing of the overlap, so the
usual accidents (none, an old one, both at once) show up as errors that don't name
their cause. This module looks first, at metadata only, and imports none of them
before that.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec

from packaging.version import Version


@dataclass(frozen=True)
class MMPackage:
    """An import name, the oldest version that will do, and the maintained provider."""

    module: str
    minimum: str
    fork: str


PACKAGES = (
    MMPackage('mmengine', '0.10.0', 'onedl-mmengine'),
    MMPackage('mmcv', '2.0.0', 'onedl-mmcv'),
    MMPackage('mmseg', '1.1.0', 'onedl-mmsegmentation'),
)

_INSTALL = (
    '\nInstall the maintained fork (recommended; no compiler needed):\n'
    f'    pip install {" ".join(package.fork for package in PACKAGES)}\n'
    'or upstream (best effort; needs an mmcv built with its ops):\n'
    '    pip install "mmengine>=0.10,<1" "mmcv>=2.0.0,<2.2" "mmsegmentation>=1.2,<2"'
)

#: All that registers something.
_PARTS_OF_MMSEG = ('datasets', 'engine', 'evaluation', 'models', 'visualization')

#: Modules whose absence, deep inside mmseg's own imports, has a known cause.
_MISSING_INSIDE_MMSEG = {
    'mmcv._ext': (
        "No module named 'mmcv._ext': this mmcv has no compiled ops (mmcv-lite, or a "
        'build without them), and upstream mmsegmentation cannot be imported without '
        'them. The fork does not need them.'
    ),
    'pkg_resources': (
        "No module named 'pkg_resources': this version of an mm-package needs a module "
        'that setuptools 82 removed. Use the fork, or: pip install "setuptools<82"'
    ),
}


def check_packages() -> None:
    """Check the three mm-packages without importing them.

    One that is missing or too old is an ``ImportError``; two distributions that provide
    the same one are a warning. Either message holds the lines that repair it.
    """
    providers = metadata.packages_distributions()
    for package in PACKAGES:
        names = sorted(set(providers.get(package.module, ())))
        _check_present(package, names)
        if len(names) > 1:
            # Whose files are on disk is then anybody's guess: no version to compare.
            warnings.warn(_provided_twice(package, names), UserWarning, stacklevel=3)
        elif names:
            _check_version(package, names[0])


def _check_present(package: MMPackage, providers: Sequence[str]) -> None:
    spec = find_spec(package.module)
    # A folder that holds no __init__.py (only stale caches) is found as a namespace.
    if spec is not None and spec.origin is not None:
        return
    message = f"zs3_mmseg needs {package.module!r}: No module named '{package.module}'."
    if providers:
        raise ImportError(
            f'{message} pip lists {" and ".join(providers)}, but the files are gone '
            '(uninstalling one of two providers deletes the folder of both). Repair:\n'
            f'    pip install --force-reinstall --no-deps {" ".join(providers)}'
        )
    raise ImportError(message + _INSTALL)


def _check_version(package: MMPackage, provider: str) -> None:
    version = metadata.version(provider)
    if Version(version) < Version(package.minimum):
        raise ImportError(
            f'zs3_mmseg needs {package.module}>={package.minimum}, but {provider} '
            f'{version} is installed.{_INSTALL}'
        )


def _provided_twice(package: MMPackage, providers: Sequence[str]) -> str:
    return (
        f'{len(providers)} distributions provide the module {package.module!r} '
        f'({", ".join(providers)}): their files overwrite each other, and '
        'uninstalling one deletes both. Repair:\n'
        f'    pip uninstall -y {" ".join(providers)}\n'
        f'    pip install --force-reinstall --no-deps {package.fork}'
    )


def name_modules_for_mmengine() -> None:
    """Tell mmengine which distribution provides ``mmseg`` and ``zs3_mmseg``.

    mmengine resolves ``'mmseg::...'`` and ``'zs3_mmseg::...'`` through a table of
    distribution names. It does not know ours, and it knows only upstream's name of
    mmseg: with the fork it takes mmseg for absent and pip-installs upstream over it.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    try:
        metadata.distribution('mmsegmentation')
    except metadata.PackageNotFoundError:
        MODULE2PACKAGE['mmseg'] = 'mmseg'
    MODULE2PACKAGE.setdefault('zs3_mmseg', 'zs3_mmseg')


def import_mmseg() -> None:
    """Import mmseg with all that it registers.

    Failures of a known cause become an ``ImportError`` that names it and the repair.
    """
    try:
        with _without_notices():
            for part in _PARTS_OF_MMSEG:
                import_module(f'mmseg.{part}')
    except ModuleNotFoundError as error:
        explanation = _MISSING_INSIDE_MMSEG.get(error.name or '')
        if explanation is None:
            raise
        raise ImportError(explanation + _INSTALL, name=error.name) from error
    except AssertionError as error:
        # mmseg's __init__ asserts the versions: 'MMCV==2.2.0 is used but incompatible'.
        if 'is used but incompatible' not in str(error):
            raise
        raise ImportError(
            f'{error} The installed mm-packages do not belong together, most often '
            'because upstream mmsegmentation was installed over the fork. Repair:\n'
            '    pip uninstall -y mmsegmentation\n'
            '    pip install --force-reinstall --no-deps onedl-mmsegmentation'
        ) from error


@contextmanager
def _without_notices() -> Iterator[None]:
    """Drop what mmcv and mmseg say about optional parts that nothing here needs.

    That is a warning about compiled ops, and the fork's debug line about an absent
    package, which goes to stdout, and stdout belongs to the user's program. Everything
    else is passed on.
    """
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), warnings.catch_warnings():
            warnings.filterwarnings(
                'ignore', 'Fail to import ``MultiScaleDeformableAttention``'
            )
            yield
    finally:
        for line in printed.getvalue().splitlines(keepends=True):
            if line.strip() != 'Could not import OneDL':
                sys.stdout.write(line)
