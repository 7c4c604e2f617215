"""What every test gets: one thread, a throw-away cache, and no network."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('HF_HUB_OFFLINE', '1')

import hypothesis
import pytest
import torch

from mmengine.logging import MMLogger

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
