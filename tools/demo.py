"""The first honest hIoU: every method of today on Shapes, with a report in pictures.

``make demo`` runs this. Each method goes through ``tools/train.py`` and
``tools/test.py`` as a user would type them, as many at a time as there are cores; what
is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from _demo_report import DemoReport
from PIL import Image

from mmengine.config import Config

from zs3_mmseg.apis import init_segmentor
from zs3_mmseg.datasets.shapes import ShapesDataset
from zs3_mmseg.datasets.shapes.scene import usable_cores
from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.engine.launch import one_line_errors
from zs3_mmseg.utils.experiments import (
    CommandFailed,
    ExperimentRunner,
    Method,
    Outcome,
    run_command,
    shapes_methods,
    shortened,
)
from zs3_mmseg.visualization.sheets import draw_shapes

TOOLS = Path(__file__).resolve().parent
ROOT = TOOLS.parent
CONFIGS = ROOT / 'configs'
SPLIT = 'shapes_a'
GATE_KEY = 'model.calibrators.0.weight'
GATE_WEIGHTS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0)
PICTURES = 6

# All trainings together take minutes: of two baselines one is trained, with fewer
# iterations than in its config.
METHODS = [m for m in shapes_methods(CONFIGS) if m.name != 'linear_head']
SHORTER = {'finetune_ce': 120}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs/demo')
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data/shapes')
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def say(text: str) -> None:
    print(f'[demo] {text}', flush=True)


def make_data(data_root: Path) -> float:
    """Draw the scenes that are not there yet; return the seconds it took."""
    began = time.perf_counter()
    for subset in ('train', 'val', 'test'):
        ShapesDataset(data_root=str(data_root), subset=subset, pipeline=[])
    return time.perf_counter() - began


def iterations(method: Method) -> int:
    """Return how long a method is trained here."""
    if not method.trained:
        return 0
    config = Config.fromfile(method.config, import_custom_modules=False)
    return SHORTER.get(method.name, config.train_cfg.max_iters)


def training_options(method: Method) -> dict[str, object]:
    """Return the options of a training, which may be shorter than its config's.

    The val scenes are left out: the test scenes follow at once.
    """
    config = Config.fromfile(method.config, import_custom_modules=False)
    end = iterations(method)
    return {**shortened(config, end), 'train_cfg.val_begin': end + 1}


def choose_gate(work_dir: Path, options: Mapping[str, object]) -> float:
    """Choose the gate's weight on the val scenes."""
    result = work_dir / 'dense_clip_gate' / 'tuned.json'
    run_command(
        [
            str(TOOLS / 'analysis_tools/tune_on_val.py'),
            str(CONFIGS / 'clip_dense/shapes_tiny_gate.py'),
            '--key',
            GATE_KEY,
            '--values',
            *map(str, GATE_WEIGHTS),
            '--out',
            str(result),
            '--cfg-options',
            *(f'{key}={value}' for key, value in options.items()),
        ],
        work_dir / 'dense_clip_gate' / 'tune.txt',
    )
    return float(json.loads(result.read_text())['best'])


def run_methods(
    work_dir: Path, data_root: Path, seed: int
) -> tuple[dict[str, Outcome], float]:
    """Run all methods; return what they gave, and the weight of the gate.

    One thread for each of several runs makes more of the cores than several threads
    for one.

    Raises:
        CommandFailed: if one of them failed, after those that had begun.
    """
    options: dict[str, object] = {'randomness.seed': seed}
    options |= {
        f'{phase}_dataloader.dataset.dataset.data_root': str(data_root)
        for phase in ('val', 'test')
    }
    training = {'train_dataloader.dataset.dataset.data_root': str(data_root)}
    runner = ExperimentRunner(TOOLS, work_dir)
    cores = usable_cores()
    jobs = min(cores, len(METHODS))
    os.environ.setdefault('OMP_NUM_THREADS', str(cores // jobs))
    gates: list[float] = []

    def run(method: Method) -> Outcome:
        extra = dict(options)
        if method.trained:
            extra |= training | training_options(method)
        if method.name == 'dense_clip_gate':
            say(f'{method.name}: choosing the gate on val scenes')
            gates.append(choose_gate(work_dir, options))
            extra[GATE_KEY] = gates[0]
        say(f'{method.name}: begun')
        outcome = runner.run(method, options=extra)
        say(f'{method.name}: done')
        return outcome

    with ThreadPoolExecutor(jobs) as pool:
        # The longest, which is the last one, comes first.
        futures = {m.name: pool.submit(run, m) for m in reversed(METHODS)}
        try:
            outcomes = {m.name: futures[m.name].result() for m in METHODS}
        finally:
            pool.shutdown(cancel_futures=True)
    return outcomes, gates[0]


def draw_pictures(
    outcomes: Mapping[str, Outcome], data_root: Path, gate: float
) -> np.ndarray:
    """Draw image, truth and every method's prediction for a few test scenes."""
    models = (
        (
            method.name,
            init_segmentor(
                method.config,
                outcomes[method.name].checkpoint,
                cfg_options={GATE_KEY: gate}
                if method.name == 'dense_clip_gate'
                else None,
            ),
        )
        for method in METHODS
    )
    return draw_shapes(models, SPLIT, data_root, PICTURES)


def install_seconds() -> float:
    """Return what the installation took, as the Makefile wrote it down."""
    mark = ROOT / '.venv' / 'install_seconds'
    return float(mark.read_text()) if mark.is_file() else 0.0


def main() -> int:
    args = parse_args()
    work_dir: Path = args.work_dir
    data_root: Path = args.data_root
    say('1/3 drawing the Shapes scenes')
    with one_line_errors(OSError):
        data_seconds = make_data(data_root)
    say(f'2/3 training and testing {len(METHODS)} methods')
    began = time.perf_counter()
    try:
        outcomes, gate = run_methods(work_dir, data_root, args.seed)
    except CommandFailed as error:
        say(str(error))
        return 1
    seconds = {
        'installation': install_seconds(),
        'data': data_seconds,
        'training and tests': time.perf_counter() - began,
    }
    say('3/3 drawing the report')
    sheet = draw_pictures(outcomes, data_root, gate)
    Image.fromarray(sheet).save(work_dir / 'pictures.png')
    lengths = {method.name: iterations(method) for method in METHODS}
    report = DemoReport(outcomes, lengths, get_split(SPLIT), seconds, gate, args.seed)
    page = report.write(work_dir)
    print(report.table())
    say(f'report: {os.path.relpath(page)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
