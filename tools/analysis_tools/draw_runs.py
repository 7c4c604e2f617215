"""Draw trainings and results of runs: ``draw_runs.py WORK_DIR ... --out FOLDER``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zs3_mmseg.engine.launch import one_line_errors
from zs3_mmseg.evaluation.report import JSON_NAME
from zs3_mmseg.utils.names import as_list, cut_file_name, duplicates
from zs3_mmseg.visualization import confusion_chart, per_class_chart, training_chart

SCALARS = 'vis_data/scalars.json'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Draw what runs have logged: losses and scores over the training '
        '(training.png), and of the latest "tools/test.py --report" of each the IoU of '
        'every class (classes.png) and the confusion matrix (confusion_RUN.png).'
    )
    parser.add_argument(
        'runs', nargs='+', type=Path, metavar='WORK_DIR', help='work dirs of runs'
    )
    parser.add_argument(
        '--names', nargs='+', help='of the runs. Default: the names of their folders'
    )
    parser.add_argument(
        '--out', type=Path, help='folder of the pictures. Default: the first work dir'
    )
    arguments = parser.parse_args()
    names = arguments.names or [run.resolve().name for run in arguments.runs]
    if len(names) != len(arguments.runs) or duplicates(names):
        parser.error(
            f'--names: expected {len(arguments.runs)} different names, one for each '
            f'run, got {as_list(names)}'
        )
    arguments.names = names
    return arguments


def read_scalars(run: Path) -> list[dict[str, float]]:
    """Return the records of a run; those of a resumed one come after the others."""
    return [
        json.loads(line)
        for file in sorted(run.glob(f'*/{SCALARS}'))
        for line in file.read_text(encoding='utf-8').splitlines()
    ]


def read_results(run: Path) -> Mapping[str, Any] | None:
    """Return the latest results of a test with ``--report``, None without one."""
    files = sorted(run.rglob(JSON_NAME), key=lambda file: file.stat().st_mtime)
    return json.loads(files[-1].read_text(encoding='utf-8')) if files else None


def main() -> None:
    arguments = parse_args()
    pictures = {}
    with one_line_errors(OSError, ValueError):
        runs = dict(zip(arguments.names, arguments.runs, strict=True))
        logs = {name: read_scalars(run) for name, run in runs.items()}
        results = {name: read_results(run) for name, run in runs.items()}
        for name, run in runs.items():
            if not logs[name] and results[name] is None:
                raise FileNotFoundError(
                    f'{run} holds neither */{SCALARS} of a training nor {JSON_NAME} '
                    'of tools/test.py --report'
                )
        trained = {name: records for name, records in logs.items() if records}
        if trained:
            pictures['training'] = training_chart(trained)
        tested = {name: found for name, found in results.items() if found is not None}
        if tested:
            first, *others = [
                [row['name'] for row in r['classes']] for r in tested.values()
            ]
            if any(other != first for other in others):
                raise ValueError('the runs were tested on different classes')
            rows = {name: found['classes'] for name, found in tested.items()}
            values = {
                name: [
                    float('nan') if row['IoU'] is None else row['IoU'] for row in each
                ]
                for name, each in rows.items()
            }
            unseen = [row['name'] for row in rows[next(iter(rows))] if row['unseen']]
            pictures['classes'] = per_class_chart(values, first, unseen)
            for name, found in tested.items():
                matrix = np.array(found['confusion'])
                pictures[f'confusion_{name}'] = confusion_chart(matrix, first, unseen)
    folder = arguments.out or arguments.runs[0]
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        path = folder / f'{cut_file_name(name)}.png'
        Image.fromarray(picture).save(path)
        print(f'written: {path}')


if __name__ == '__main__':
    main()
