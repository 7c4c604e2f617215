"""What every test gets: one thread, a throw-away cache, and no network."""

from __future__ import annotations

import ipaddress
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('HF_HUB_OFFLINE', '1')

import hypothesis
import pytest
import torch

from mmengine.logging import MMLogger

ROOT = Path(__file__).resolve().parents[1]
#: What a wheel is built from.
SOURCES = (
    'setup.py',
    'zs3_cli.py',
    'pyproject.toml',
    'MANIFEST.in',
    'README.md',
    'CHANGELOG.md',
    'LICENSE',
    'Makefile',
    'model-index.yml',
    'requirements',
    'configs',
    'tools',
    'zs3_mmseg',
)

# Two CPU cores may be busy with something else: a slow example is no failure.
hypothesis.settings.register_profile('suite', deadline=None, max_examples=60)
hypothesis.settings.load_profile('suite')


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--golden-dir',
        default=None,
        help='folder of golden files for tests/parity (default: tests/data/golden)',
    )


def pytest_configure(config: pytest.Config) -> None:
    chosen = config.getoption('--golden-dir')
    if chosen and not (config.invocation_params.dir / chosen).is_dir():
        raise pytest.UsageError(f'--golden-dir: {chosen} is no folder')


def _stays_here(host: object) -> bool:
    """Whether a host, as given to functions of ``socket``, is this machine."""
    if host in (None, '', b'', 'localhost', socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True, scope='session')
def _autograd_starts_on_the_cpu_alone() -> None:
    """Let forks of this process run backward passes, whatever a test does before.

    Compilers and exporters make another device known to torch. If the first backward
    pass comes after that, autograd starts threads, and no fork can use it any more.
    """
    torch.ones(1, requires_grad=True).sum().backward()


@pytest.fixture(autouse=True, scope='session')
def _no_network() -> Iterator[None]:
    """Make looking up or contacting another machine an error."""

    def guarded(function: Callable[..., Any], place: int) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            # The path of a Unix socket is no tuple.
            address = args[place] if place < len(args) else kwargs.get('host')
            host = address[0] if isinstance(address, tuple) else address
            is_path = place == 1 and not isinstance(address, tuple)
            if not is_path and not _stays_here(host):
                raise RuntimeError(f'tests use no network, but {host} was contacted')
            return function(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ('connect', 'connect_ex'):
            method = getattr(socket.socket, name)
            patch.setattr(socket.socket, name, guarded(method, 1))
        patch.setattr(socket, 'getaddrinfo', guarded(socket.getaddrinfo, 0))
        yield


@pytest.fixture(autouse=True, scope='session')
def _one_thread() -> None:
    """Sums are then added in one order, and parallel runs don't fight for cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope='session')
def _throw_away_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's own cache out of the tests, and the tests out of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('ZS3_MMSEG_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture
def log() -> Iterator[list[logging.LogRecord]]:
    """The messages that reach mmengine's logger."""
    handler = logging.Handler()
    messages: list[logging.LogRecord] = []
    handler.emit = messages.append  # type: ignore[method-assign]
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def _run_pip(*arguments: str, cwd: Path) -> None:
    done = subprocess.run(
        [sys.executable, '-m', 'pip', '--no-input', *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope='session')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources (building writes beside them)."""
    folder = tmp_path_factory.mktemp('wheel')
    copy = folder / 'sources'
    copy.mkdir()
    ignore = shutil.ignore_patterns('__pycache__', '.mim')
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=ignore)
        else:
            shutil.copy2(source, copy / name)
    # what an editable install leaves in the tree must not reach the wheel
    (copy / 'zs3_mmseg' / '.mim').mkdir()
    (copy / 'zs3_mmseg' / '.mim' / 'stale.txt').touch()
    flags = ['--no-build-isolation', '--no-deps', '--no-index']
    _run_pip('wheel', *flags, '--wheel-dir', str(folder), '.', cwd=copy)
    (built,) = folder.glob('*.whl')
    return built


@pytest.fixture(scope='session')
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for ``PYTHONPATH`` in which the wheel is installed."""
    folder = tmp_path_factory.mktemp('site')
    flags = ['--no-deps', '--no-index', '--target', str(folder)]
    _run_pip('install', *flags, str(wheel), cwd=folder)
    return folder
