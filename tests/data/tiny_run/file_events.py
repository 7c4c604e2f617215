"""Watch what a run does with files: kill it at one of them, or look around before each.

An audit hook is told of each file that Python opens to write, renames or removes,
before that happens. Imported by a config, this module does what the environment says:

- ``KILL_AT=N``: SIGKILL before the N-th of them below ``work_dirs`` that is about a
  checkpoint;
- ``FULL_AT=N``: from there on, no file grows beyond 50,000 bytes;
- ``FILE_EVENTS=FILE``: list there, for each of them, what it is about and how many
  loadable checkpoints there are.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from zs3_mmseg.engine.runner import resume_candidates
from zs3_mmseg.utils.checkpoint import CheckpointError, safe_load

_WORK_DIRS = Path('work_dirs').absolute()
_WRITES = os.O_WRONLY | os.O_RDWR
_state: dict[str, Any] = {'count': 0, 'inside': False, 'owner': None}


def _is_about_checkpoints(event: str, arguments: tuple) -> bool:
    if event == 'open':
        path, _, flags = arguments
        if not isinstance(path, (str, os.PathLike)) or not flags & _WRITES:
            return False
    elif event in ('os.rename', 'os.remove'):
        path = arguments[0]
    else:
        return False
    file = Path(os.fspath(path)).absolute()
    named = file.suffix in ('.pth', '.part', '.partial') or file.name.startswith('last')
    return named and file.is_relative_to(_WORK_DIRS)


def _loadable() -> int:
    folders = {path.parent for path in _WORK_DIRS.rglob('*.pth')}
    count = 0
    for file in [f for folder in folders for f in resume_candidates(folder)]:
        try:
            safe_load(file)
        except (CheckpointError, OSError):
            continue
        count += 1
    return count


def _look(event: str, arguments: tuple) -> None:
    if _state['inside'] or _state['owner'] != os.getpid():
        return
    if not _is_about_checkpoints(event, arguments):
        return
    _state['inside'] = True
    _state['count'] += 1
    if listed := os.environ.get('FILE_EVENTS'):
        with open(listed, 'a') as stream:
            name = Path(os.fspath(arguments[0])).name
            stream.write(f'{event} {name} {_loadable()}\n')
    if os.environ.get('KILL_AT') == str(_state['count']):
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get('FULL_AT') == str(_state['count']):
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
    _state['inside'] = False


if os.environ.get('RANK', '0') == '0':
    _state['owner'] = os.getpid()
    sys.addaudithook(_look)
