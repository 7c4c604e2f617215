"""Run a method through the command-line tools and keep what it scored.

The demo and the Shapes benchmark compare methods by the very commands that a user
types, so that the figures they print are those a user gets.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .cache import atomic_write, content_hash

_OUTCOME = 'outcome.json'
_FORK = 'forkserver'
_SUBSET_KEY = 'test_dataloader.dataset.dataset.subset'


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    Attributes:
        name: its key in reports.
        config: path of its config file.
        trained: whether ``tools/train.py`` runs before ``tools/test.py``.
        options: ``--cfg-options`` of every run of this method.
        test_flags: further flags of ``tools/test.py``.
    """

    name: str
    config: Path
    trained: bool = False
    options: Mapping[str, object] = field(default_factory=dict)
    test_flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What one run of a method gave.

    Attributes:
        metrics: the metric's values in percent, for each subset tested.
        train_seconds: wall time of ``tools/train.py``, 0.0 if nothing is trained.
        test_seconds: wall time of ``tools/test.py``.
        checkpoint: path of the trained weights, if any.
        fingerprint: hash of the code, the config and the options it came from.
    """

    metrics: dict[str, dict[str, float]]
    train_seconds: float
    test_seconds: float
    checkpoint: str | None
    fingerprint: str


def shapes_methods(configs: Path) -> tuple[Method, ...]:
    """Return the methods that the demo and the Shapes benchmark compare."""
    dense, baselines = configs / 'clip_dense', configs / 'baselines'
    zegclip = configs / 'zegclip'
    return (
        Method('dense_clip', dense / 'shapes_tiny.py'),
        Method('dense_clip_gate', dense / 'shapes_tiny_gate.py'),
        Method('linear_head', baselines / 'shapes_tiny_linear.py', trained=True),
        Method('finetune_ce', baselines / 'shapes_tiny_finetune_ce.py', trained=True),
        Method('zegclip', zegclip / 'shapes_tiny.py', trained=True),
        Method('zegclip_ce', zegclip / 'shapes_tiny_ce.py', trained=True),
        Method('guided', configs / 'guided/shapes_tiny.py', trained=True),
    )


class CommandFailed(RuntimeError):
    """A tool exited with an error; its output is in the named log file."""


def package_hash() -> str:
    """Hash the package's own sources and assets: other code, other figures."""
    root = Path(__file__).resolve().parents[1]
    files = (
        path
        for path in sorted(root.rglob('*'))
        if path.suffix in {'.py', '.json', '.csv', '.safetensors', '.gz'}
        and '.mim' not in path.relative_to(root).parts
    )
    return content_hash(*(path.read_bytes() for path in files))


def split_options(split: str) -> dict[str, object]:
    """Return the config options that move a Shapes config to another split."""
    return {
        'model.split': split,
        'train_dataloader.dataset.split': split,
        'val_dataloader.dataset.split': split,
        'test_dataloader.dataset.split': split,
    }


def shortened(config: Config, iterations: int) -> dict[str, object]:
    """Return the config options that end a training early.

    Schedules and the beginnings of hooks move in proportion, and none becomes empty.
    """
    share = iterations / config.train_cfg.max_iters
    options: dict[str, object] = {'train_cfg.max_iters': iterations}
    for place in ('param_scheduler', 'custom_hooks'):
        for index, part in enumerate(config.get(place) or ()):
            for key in ('begin', 'end', 'total_steps'):
                if part.get(key):
                    options[f'{place}.{index}.{key}'] = max(1, round(share * part[key]))
    return options


def run_command(arguments: list[str], log: Path) -> float:
    """Run ``python ARGUMENTS`` with its output in ``log``; return the seconds taken.

    The script runs as ``__main__`` in a process of its own. Where that is possible it
    is the fork of one that has imported this package and done nothing else, because
    that import takes longer than many a test.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    method = _FORK if _FORK in multiprocessing.get_all_start_methods() else 'spawn'
    context: Any = multiprocessing.get_context(method)
    if method == _FORK:
        context.set_forkserver_preload(['zs3_mmseg'])
    process = context.Process(target=_run_script, args=(arguments, log))
    process.start()
    try:
        process.join()
    finally:  # when this process is interrupted
        process.kill()
    status = process.exitcode
    if status:
        tail = '\n'.join(log.read_text(errors='replace').splitlines()[-15:])
        raise CommandFailed(
            f'`python {shlex.join(arguments)}` exited with {status}. '
            f'The whole output is in {log}; it ends with:\n{tail}'
        )
    return time.perf_counter() - began


def _run_script(arguments: list[str], log: Path) -> None:
    """Run a script with its arguments in this process, which has no other use."""
    with log.open('w') as stream:
        for standard in (1, 2):
            os.dup2(stream.fileno(), standard)
    sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).parent)
    runpy.run_path(arguments[0], run_name='__main__')


class ExperimentRunner:
    """Runs methods below one folder and skips those whose outcome is there."""

    def __init__(self, tools: Path, work_dir: Path) -> None:
        self._tools = tools
        self._work_dir = work_dir
        self._package = package_hash()

    def run(
        self,
        method: Method,
        *,
        run_name: str | None = None,
        options: Mapping[str, object] | None = None,
        subsets: Sequence[str] = ('test',),
        weights: Outcome | None = None,
    ) -> Outcome:
        """Train (where the method trains) and test, or read the kept outcome.

        A method that does not train is tested with ``weights`` of one that did.
        """
        merged = {**method.options, **(options or {})}
        folder = self._work_dir / (run_name or method.name)
        training = self._fingerprint(method, merged)
        if weights is not None:
            training = content_hash(training, weights.fingerprint)
        fingerprint = content_hash(training, *subsets, *method.test_flags)
        kept = self._kept(folder, fingerprint)
        if kept is not None:
            return kept
        config = str(method.config)
        train_seconds = 0.0
        checkpoint = None if weights is None else weights.checkpoint
        if method.trained:
            # A finished training ends at once; then only the tests are new.
            with _unfinished(folder, training) as resume:
                train_seconds = run_command(
                    [str(self._tools / 'train.py'), config, *_flags(folder, merged)]
                    + (['--resume'] if resume else []),
                    folder / 'train.txt',
                )
            checkpoint = (folder / 'last_checkpoint').read_text().strip()
        test_seconds, metrics = 0.0, {}
        for subset in subsets:
            place = folder / subset
            chosen = {**merged, _SUBSET_KEY: subset}
            test_seconds += run_command(
                [str(self._tools / 'test.py'), config]
                + ([checkpoint] if checkpoint else [])
                + _flags(place, chosen)
                + [*method.test_flags],
                place / 'test.txt',
            )
            metrics[subset] = json.loads((place / 'metrics.json').read_text())
        outcome = Outcome(
            metrics=metrics,
            train_seconds=train_seconds,
            test_seconds=test_seconds,
            checkpoint=checkpoint,
            fingerprint=fingerprint,
        )
        text = json.dumps(asdict(outcome), indent=2)
        atomic_write(folder / _OUTCOME, lambda stream: stream.write(text.encode()))
        return outcome

    def _fingerprint(self, method: Method, options: Mapping[str, object]) -> str:
        config = Config.fromfile(method.config, import_custom_modules=False)
        return content_hash(
            self._package,
            config.pretty_text,
            json.dumps(dict(options), sort_keys=True, default=str),
        )

    @staticmethod
    def _kept(folder: Path, fingerprint: str) -> Outcome | None:
        path = folder / _OUTCOME
        if not path.is_file():
            return None
        outcome = Outcome(**json.loads(path.read_text()))
        return outcome if outcome.fingerprint == fingerprint else None


@contextmanager
def _unfinished(folder: Path, fingerprint: str) -> Iterator[bool]:
    """Mark a training as begun; yield whether the same one was begun before."""
    mark = folder / 'training'
    resume = (
        mark.is_file()
        and mark.read_text() == fingerprint
        and (folder / 'last_checkpoint').is_file()
    )
    if not resume:
        (folder / 'last_checkpoint').unlink(missing_ok=True)
        atomic_write(mark, lambda stream: stream.write(fingerprint.encode()))
    yield resume


def _flags(folder: Path, options: Mapping[str, object]) -> list[str]:
    flags = ['--work-dir', str(folder)]
    if options:
        pairs = (f'{key}={_as_option(value)}' for key, value in options.items())
        flags += ['--cfg-options', *pairs]
    return flags


def _as_option(value: object) -> str:
    """Write a value the way ``--cfg-options`` reads it."""
    if isinstance(value, (list, tuple)):
        return '[' + ','.join(_as_option(item) for item in value) + ']'
    return str(value)
