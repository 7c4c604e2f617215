"""Claim: what ESDA scores when it is asked for all classes of Shapes at once.

``python benchmarks/shapes_esda_gzs3.py`` trains with names that are absent from their
image and without, tests each with the image-level gate and without on 200 test scenes,
prints mean and spread, and can be interrupted and started again.
"""

from __future__ import annotations

from _comparison import (
    ROOT,
    SPLITS,
    Scores,
    add_scores,
    options_for,
    parse_args,
    planned_runs,
    report_scores,
)
from rich.progress import track

from zs3_mmseg.utils.experiments import ExperimentRunner, Method, Outcome

CONFIG = ROOT / 'configs/esda/shapes_tiny_gzs3.py'
# Every name is a pass of its own, so a third of the test scenes takes long enough.
SCENES: dict[str, object] = {'test_dataloader.dataset.dataset.num_images': 200}
NO_NEGATIVES = {**SCENES, 'train_dataloader.dataset.negatives': 0.0}
METHODS = (
    Method('esda_gzs3', CONFIG, trained=True, options=SCENES),
    Method('esda_gzs3_no_negatives', CONFIG, trained=True, options=NO_NEGATIVES),
)


def without_gate(method: Method, trained: Outcome) -> Method:
    """Return the test of trained weights without the gate, which needs no training."""
    return Method(
        f'{method.name}_no_gate',
        method.config,
        options={
            **SCENES,
            'model.calibrators': [],
            'load_from': trained.checkpoint,
            # Weights of another training are another experiment, in the same file.
            'experiment_name': trained.fingerprint,
        },
    )


def main() -> None:
    args = parse_args(__doc__, METHODS, SPLITS)
    runner = ExperimentRunner(ROOT / 'tools', args.work_dir)
    scores: Scores = {}

    def run(method: Method, split: str, seed: int) -> Outcome:
        outcome = runner.run(
            method,
            run_name=f'{method.name}/{split}/seed{seed}',
            options=options_for(method, split, seed, args),
            subsets=args.subsets,
        )
        add_scores(scores, method.name, split, outcome)
        return outcome

    for method, split, seed in track(planned_runs(METHODS, args), 'runs'):
        trained = run(method, split, seed)
        run(without_gate(method, trained), split, seed)
    report_scores(scores, args, 'shapes_esda_gzs3.json')


if __name__ == '__main__':
    main()
