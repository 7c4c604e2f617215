"""Claim: what pixels compared with text give on Shapes, with and without shape.

``python benchmarks/shapes_pixel_text.py`` trains and tests LSeg, LSeg-CLIP, SAZS and
SpecFuse beside dense CLIP and ZegCLIP through ``tools/train.py`` and ``tools/test.py``,
over three splits and several seeds, prints mean and spread, and can be interrupted and
started again. SAZS is trained once and tested in four ways: all classes competing; and
by name, as released, without segments, with segments that the prediction chooses, and
with those that the GROUND TRUTH chooses (oracle). At the end the time per image of each
method is measured in turns with that of dense CLIP.
"""

from __future__ import annotations

from collections.abc import Mapping

from _comparison import (
    ROOT,
    SPLITS,
    Scores,
    add_scores,
    parse_args,
    planned_runs,
    report_scores,
    report_seconds,
    run_once,
    spread,
)
from rich.console import Console
from rich.progress import track
from rich.table import Table

from zs3_mmseg.utils.experiments import ExperimentRunner, Method, shapes_methods

CONFIGS = ROOT / 'configs'
BESIDE = ('dense_clip', 'zegclip', 'zegclip_ce')
METHODS = (
    *(method for method in shapes_methods(CONFIGS) if method.name in BESIDE),
    Method('specfuse_training_free', CONFIGS / 'specfuse/shapes_tiny_training_free.py'),
    Method('specfuse', CONFIGS / 'specfuse/shapes_tiny.py', trained=True),
    Method('lseg_clip', CONFIGS / 'lseg/shapes_tiny_clip.py', trained=True),
    Method('sazs', CONFIGS / 'sazs/shapes_tiny.py', trained=True),
    Method('lseg', CONFIGS / 'lseg/shapes_tiny.py', trained=True),
)
#: What else the weights of SAZS are asked.
SAZS_TESTS = (
    Method('sazs_all_classes', CONFIGS / 'sazs/shapes_tiny_gzs3.py'),
    Method(
        'sazs_no_segments',
        CONFIGS / 'sazs/shapes_tiny.py',
        options={'model.post_processors': []},
    ),
    Method('sazs_oracle', CONFIGS / 'sazs/shapes_tiny_oracle.py'),
)
BY_NAME = ('mIoU', 'FB_IoU')
#: ``subset/split`` -> method -> the scores of each run.
PairScores = dict[str, dict[str, list[Mapping[str, float]]]]


def main() -> None:
    args = parse_args(__doc__, METHODS, SPLITS)
    runner = ExperimentRunner(ROOT / 'tools', args.work_dir)
    scores: Scores = {}
    by_name: PairScores = {}
    seconds: dict[str, list[float]] = {}
    checkpoints: dict[str, tuple[Method, str | None]] = {}
    for method, split, seed in track(planned_runs(METHODS, args), 'runs'):
        outcome = run_once(runner, method, split, seed, args)
        seconds.setdefault(method.name, []).append(outcome.train_seconds)
        outcomes = {method.name: outcome}
        if method.name == 'sazs':
            for test in SAZS_TESTS:
                outcomes[test.name] = run_once(
                    runner, test, split, seed, args, weights=outcome
                )
        for name, found in outcomes.items():
            if all('hIoU' in metrics for metrics in found.metrics.values()):
                add_scores(scores, name, split, found)
                tested = method if name == method.name else SAZS_TESTS[0]
                checkpoints.setdefault(name, (tested, outcome.checkpoint))
                continue
            for subset, metrics in found.metrics.items():
                rows = by_name.setdefault(f'{subset}/{split}', {})
                rows.setdefault(name, []).append(
                    {key.removeprefix('oracle_'): v for key, v in metrics.items()}
                )
    report_scores(scores, args, 'shapes_pixel_text.json')
    report_pairs(by_name)
    report_seconds(seconds, checkpoints, args, 'shapes_pixel_text_seconds.json')


def report_pairs(by_name: PairScores) -> None:
    """Print the scores of pairs of an image and a name."""
    for title, rows in by_name.items():
        table = Table('method', *BY_NAME, title=f'{title}, by name')
        for name, runs in rows.items():
            values = (spread([run[key] for run in runs]) for key in BY_NAME)
            table.add_row(name, *values)
        Console().print(table)


if __name__ == '__main__':
    main()
