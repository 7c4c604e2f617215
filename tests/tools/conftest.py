"""Real runs of the command-line tools, without paying for the imports each time."""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mmengine.utils import ManagerMixin

import zs3_mmseg  # noqa: F401  (imported once, before the children split off)

TESTS = Path(__file__).resolve().parents[1]
TOOLS = TESTS.parent / 'tools'
TINY_RUN = TESTS / 'data/tiny_run/tiny_run.py'


@dataclass(frozen=True)
class Finished:
    """How a tool ended: its exit status, negative for a signal, and its output."""

    status: int
    output: str


def _forget_instances(manager: type = ManagerMixin) -> None:
    """Drop visualizers, loggers and hubs that tests made before the fork."""
    for kind in manager.__subclasses__():
        kind._instance_dict.clear()
        _forget_instances(kind)


def _child(
    script: Path,
    arguments: Sequence[str],
    folder: Path,
    log: Path,
    env: dict,
    encoding: str,
) -> None:
    # Looking through all that the parent imported would copy it page by page.
    gc.freeze()
    # Stays open until the end: multiprocessing writes a traceback to it after this.
    stream = log.open('w', buffering=1, encoding=encoding)
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
    sys.stdout = sys.stderr = stream
    os.chdir(folder)
    os.environ.update(env)
    _forget_instances()
    # After a fork torch makes its thread pool anew when it is first asked for, and
    # aborts if two threads ask at once, as in a backward pass: ask while there is one.
    torch.set_num_threads(torch.get_num_threads())
    sys.argv = [str(script), *arguments]
    sys.path[:0] = [str(script.parent), str(TINY_RUN.parent)]
    runpy.run_path(str(script), run_name='__main__')


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]


@pytest.fixture(scope='session')
def free_port() -> Callable[[], int]:
    """Return what names a port that nothing listens at."""
    return _free_port


RunTool = Callable[..., Finished]


@pytest.fixture(scope='session')
def run_tool(tmp_path_factory: pytest.TempPathFactory) -> RunTool:
    """Return ``run_tool(name, *arguments, folder=..., processes=1) -> Finished``.

    The script runs as ``__main__`` in a fork of the test process, with a console of
    that ``encoding``. With several
    processes, the children get what torchrun gives and ``--launcher pytorch``.
    """

    def run(
        name: str,
        *arguments: object,
        folder: Path,
        processes: int = 1,
        encoding: str = 'utf-8',
    ) -> Finished:
        logs = tmp_path_factory.mktemp('tool')
        fork = multiprocessing.get_context('fork')
        shared = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(_free_port())}
        several = ['--launcher', 'pytorch'] if processes > 1 else []
        children = []
        for rank in range(processes):
            ranks = {'RANK': rank, 'LOCAL_RANK': rank, 'WORLD_SIZE': processes}
            env = shared | {key: str(value) for key, value in ranks.items()}
            children.append(
                fork.Process(
                    target=_child,
                    args=(
                        TOOLS / name,
                        [*map(str, arguments), *several],
                        folder,
                        logs / f'{rank}.txt',
                        env if processes > 1 else {},
                        encoding,
                    ),
                )
            )
        for child in children:
            child.start()
        for child in children:
            child.join(120)
            if child.is_alive():
                child.kill()
        output = '\n'.join(
            log.read_text(encoding=encoding) for log in sorted(logs.iterdir())
        )
        return Finished(max((c.exitcode for c in children), key=abs), output)

    return run


@pytest.fixture(scope='session')
def tiny_config() -> Path:
    """Return the config of a run of 12 iterations on seven small images."""
    return TINY_RUN


@pytest.fixture(scope='session')
def trained(
    run_tool: RunTool, tiny_config: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the folder in which the tiny run was trained from beginning to end."""
    folder = tmp_path_factory.mktemp('trained')
    finished = run_tool('train.py', tiny_config, folder=folder)
    assert finished.status == 0, finished.output
    return folder
