"""Claim: a training that is killed loses nothing and ends as if it had not been.

``python benchmarks/kill_resume.py`` trains a network of a few thousand weights for 12
iterations, again and again: it is killed (SIGKILL) before single operations on
checkpoint files, and at random instants; then ``--resume`` trains it to its end. Of
each kill it tells whether a checkpoint was there once one had been written, and
whether all weights, averages, moments and generators end bitwise as those of a run
that was left alone. Needs the tests of a checkout. ``--kills`` is for each scenario.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import runpy
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import zs3_mmseg  # noqa: F401  (imported once, before the children split off)
from zs3_mmseg.engine.runner import resume_candidates
from zs3_mmseg.utils.checkpoint import CheckpointError, safe_load

ROOT = Path(__file__).resolve().parents[1]
PARTS = ROOT / 'tests/data/tiny_run'
RUN = Path('work_dirs/tiny')
EMA = dict(type='EMAHook', momentum=0.1)
RETRAINING = dict(
    type='GenerativeRetrainingHook',
    split=dict(unseen=['stripe']),
    class_embeddings=dict(
        source=dict(
            type='tensor', path='vectors.npy', names=['ground', 'square', 'stripe']
        )
    ),
    segmentor_iters=2,
    generator_iters=4,
)
#: Name -> checkpoints that are kept, hooks, processes. All save the best one, too.
SCENARIOS: dict[str, tuple[int, list[dict], int]] = {
    'keep 1': (1, [], 1),
    'keep 3, EMA': (3, [EMA], 1),
    'keep 1, ZS3 hook': (1, [RETRAINING], 1),
    'keep 1, EMA, 2 processes': (1, [EMA], 2),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=26, help='of each scenario')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='write the figures to this JSON file')
    return parser.parse_args()


def write_config(folder: Path, keep: int, hooks: Sequence[dict]) -> None:
    """Write ``tiny.py`` and its vectors into a folder."""
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.save(folder / 'vectors.npy', vectors)
    content: dict[str, Any] = {
        '_base_': str(PARTS / 'tiny_run.py'),
        'custom_imports': dict(imports=['zs3_mmseg', 'tiny_run_parts', 'file_events']),
        'custom_hooks': [*hooks],
        'model': dict(decode_head=dict(loss_decode=dict(avg_non_ignore=False))),
        'train_dataloader': dict(num_workers=0, persistent_workers=False),
        'default_hooks': dict(checkpoint=dict(max_keep_ckpts=keep)),
    }
    if RETRAINING in hooks:
        content['find_unused_parameters'] = True
    text = ''.join(f'{key} = {value!r}\n' for key, value in content.items())
    (folder / 'tiny.py').write_text(text)


def _child(folder: Path, arguments: Sequence[str], env: Mapping[str, str]) -> None:
    with (folder / 'log.txt').open('a', buffering=1) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        os.chdir(folder)
        os.environ.update(env)
        sys.path[:0] = [str(PARTS), str(ROOT / 'tools')]
        sys.argv = ['train.py', 'tiny.py', *arguments]
        runpy.run_path(str(ROOT / 'tools/train.py'), run_name='__main__')


def train(
    folder: Path,
    processes: int,
    *arguments: str,
    kill_after: float | None = None,
    **env: str,
) -> tuple[int, float]:
    """Run ``tools/train.py``; return the exit status of rank 0 and its seconds."""
    fork = multiprocessing.get_context('fork')
    shared = dict(env)
    if processes > 1:
        arguments = (*arguments, '--launcher', 'pytorch')
        with socket.socket() as sock:
            sock.bind(('127.0.0.1', 0))
            shared |= dict(
                MASTER_ADDR='127.0.0.1', MASTER_PORT=str(sock.getsockname()[1])
            )
    children = []
    for rank in range(processes):
        ranks = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=processes)
        own = {key: str(value) for key, value in ranks.items()} if processes > 1 else {}
        child = fork.Process(target=_child, args=(folder, arguments, shared | own))
        child.start()
        children.append(child)
    start = time.perf_counter()
    children[0].join(kill_after)
    if kill_after is not None:
        children[0].kill()
        children[0].join()
    for child in children[1:]:
        # A lost process takes the others with it, as torchrun does.
        if children[0].exitcode:
            child.kill()
        child.join()
    return int(children[0].exitcode or 0), time.perf_counter() - start


def loadable(folder: Path) -> int:
    """Return how many checkpoints a run can go on from."""
    count = 0
    for file in resume_candidates(folder / RUN):
        try:
            safe_load(file)
        except (CheckpointError, OSError):
            continue
        count += 1
    return count


def tensors_of(node: Any, key: str = '') -> dict[str, torch.Tensor]:
    """Return all tensors in a checkpoint by their place, random states included."""
    if isinstance(node, torch.Tensor):
        return {key: node}
    pairs: Any = ()
    if isinstance(node, Mapping):
        pairs = node.items()
    elif isinstance(node, (list, tuple)):
        pairs = enumerate(node)
    found: dict[str, torch.Tensor] = {}
    for name, value in pairs:
        if key or name not in ('message_hub', 'meta'):
            found |= tensors_of(value, f'{key}.{name}')
    return found


def unequal(folder: Path, whole: Path) -> list[str]:
    """Return where the last checkpoints of two runs differ."""
    one, other = (
        tensors_of(safe_load(place / RUN / 'iter_12.pth')) for place in (folder, whole)
    )
    return [
        key
        for key in one.keys() | other.keys()
        if key not in one or key not in other or not torch.equal(one[key], other[key])
    ]


def run_scenario(name: str, kills: int, draws: random.Random, root: Path) -> dict:
    """Kill and resume; return counts."""
    keep, hooks, processes = SCENARIOS[name]
    whole = root / 'whole'
    whole.mkdir(parents=True)
    write_config(whole, keep, hooks)
    status, seconds = train(whole, processes, FILE_EVENTS=str(whole / 'events.txt'))
    if status:
        raise SystemExit((whole / 'log.txt').read_text()[-2000:])
    events = (whole / 'events.txt').read_text().splitlines()
    first = 1 + next(n for n, event in enumerate(events) if event.endswith(' 1'))
    chosen = draws.sample(range(1, len(events) + 1), min(kills // 2, len(events)))
    counts = dict(kills=0, lost=0, failed=0, unequal=0)
    for number in range(kills):
        folder = root / f'kill_{number}'
        folder.mkdir()
        write_config(folder, keep, hooks)
        written = number < len(chosen) and chosen[number] >= first
        if number < len(chosen):
            killed, _ = train(folder, processes, KILL_AT=str(chosen[number]))
        else:
            wait = draws.uniform(0.2, 1) * seconds
            killed, _ = train(folder, processes, kill_after=wait)
            text = (folder / 'log.txt').read_text()
            written = 'Saving checkpoint at 8 iterations' in text
        if killed != -signal.SIGKILL:  # the random instant was after its end
            shutil.rmtree(folder)
            continue
        counts['kills'] += 1
        counts['lost'] += written and not loadable(folder)
        status, _ = train(folder, processes, '--resume')
        counts['failed'] += status != 0
        differing = [] if status else unequal(folder, whole)
        counts['unequal'] += bool(differing)
        if status or differing:
            print(f'{folder}: status {status}, differing {differing[:4]}')
        else:
            shutil.rmtree(folder)
    return counts


def main() -> None:
    arguments = parse_args()
    draws = random.Random(arguments.seed)
    root = Path(tempfile.mkdtemp(prefix='kill_resume_'))
    figures = {}
    for number, name in enumerate(SCENARIOS):
        figures[name] = run_scenario(name, arguments.kills, draws, root / str(number))
        print(f'{name}: {figures[name]}', flush=True)
    if not any(f[kind] for f in figures.values() for kind in ('failed', 'unequal')):
        shutil.rmtree(root)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(figures, indent=2) + '\n')


if __name__ == '__main__':
    main()
