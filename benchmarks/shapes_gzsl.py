"""Claim: what the classical blocks of zero-shot learning do on Shapes.

``python benchmarks/shapes_gzsl.py`` trains every head on the same frozen features of
800 scenes, computed once, without augmentation; and it tests every calibrator on
two models that the tools trained, with the value that ``tune_on_val.py`` found on
pseudo-unseen classes. It prints mean and spread, and can be interrupted and started
again; ``--methods`` chooses heads, ``--calibrated`` models with calibrators. Tests
are on 200 scenes, choices on 100 val scenes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from _comparison import (
    ROOT,
    Scores,
    add_scores,
    comparison_parser,
    options_for,
    report_scores,
)
from PIL import Image
from rich.progress import track
from torch import Tensor, nn

from mmengine.config import Config

import zs3_mmseg  # noqa: F401  (registers everything)
from zs3_mmseg.datasets.shapes import ShapesDataset
from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.engine.launch import build_runner
from zs3_mmseg.utils.cache import atomic_write, content_hash
from zs3_mmseg.utils.experiments import (
    ExperimentRunner,
    Method,
    Outcome,
    package_hash,
    run_command,
)

CONFIGS = ROOT / 'configs'
GZSL = CONFIGS / 'gzsl'
SCENES: dict[str, object] = {'test_dataloader.dataset.dataset.num_images': 200}
TRAINED_SCENES = 800
TUNED_SCENES = 100
LINEAR = Method(
    'linear', CONFIGS / 'baselines/shapes_tiny_linear.py', trained=True, options=SCENES
)
METHODS = (
    LINEAR,
    *(
        Method(name, GZSL / f'shapes_{name}.py', trained=True, options=SCENES)
        for name in (
            *('eszsl', 'eszsl_attributes', 'sae', 'relation', 'attributes', 'qfsl'),
        )
    ),
    Method('dense_clip', CONFIGS / 'clip_dense/shapes_tiny.py', options=SCENES),
    Method('hierarchy', GZSL / 'shapes_hierarchy.py', options=SCENES),
    Method(
        'hierarchy_text',
        GZSL / 'shapes_hierarchy.py',
        options={**SCENES, 'model.decode_head.inner': 'text'},
    ),
)
#: Models that get calibrators: one that hardly finds unseen classes, and one that does.
CALIBRATED = (
    LINEAR,
    Method('zegclip_ce', CONFIGS / 'zegclip/shapes_tiny_ce.py', trained=True),
)
#: As many things and as much ground as the unseen classes of ``shapes_a``.
PSEUDO_UNSEEN = ('fish', 'cup', 'umbrella', 'arrow', 'sand')


@dataclass(frozen=True)
class Calibration:
    """A calibrator, the option that is chosen, and what it is chosen from."""

    calibrator: dict[str, Any]
    option: str
    values: Sequence[float]
    fitted: bool = False
    backbone: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """The row in the table."""
        return self.calibrator['type']


def calibrations(train_prior: Mapping[str, float]) -> tuple[Calibration, ...]:
    """Return what is compared, given the pixels of classes in training."""
    shift = dict(type='SeenShift', shift=0.0, space='logit')
    prior = dict(type='PriorCorrection', train_prior=dict(train_prior), tau=1.0)
    return (
        Calibration(shift, 'shift', (0, 1, 2, 4, 8)),
        Calibration(dict(type='GroupTemperature', seen=1.0), 'seen', (1, 1.5, 2, 4)),
        Calibration(prior, 'tau', (0, 0.25, 0.5, 1)),
        Calibration(
            dict(type='UnseenMassMatch', mass=0.1), 'mass', (0.1, 0.2, 0.3), True
        ),
        Calibration(
            dict(type='EMPriorShift', max_change=3.0), 'max_change', (1, 3), True
        ),
        Calibration(
            dict(type='ImageLevelGate', weight=1.0),
            *('weight', (0.1, 0.3, 1)),
            backbone=dict(out_global=True),
        ),
        Calibration(dict(type='VocabularyPruner', keep=4), 'keep', (2, 4, 8)),
    )


def train_pixels(data_root: Path) -> dict[str, float]:
    """Return how many pixels each seen class has in the training scenes."""
    scenes = ShapesDataset(data_root=str(data_root), num_images=4000, pipeline=[])
    counts = np.zeros(256, dtype=np.int64)
    for scene in track(scenes, 'shares of classes'):
        label_map = np.asarray(Image.open(scene['seg_map_path']))
        counts += np.bincount(label_map.ravel(), minlength=256)
    by_name = dict(zip(scenes.metainfo['classes'], counts.tolist(), strict=False))
    return {name: by_name[name] for name in get_split('shapes_a').seen}


def written(calibration: Calibration, base: Method, folder: Path) -> Path:
    """Write the config of a trained model with a calibrator alone."""
    model = dict(calibrators=[calibration.calibrator])
    if calibration.backbone is not None:
        model['backbone'] = calibration.backbone  # type: ignore[assignment]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{calibration.name}.py'
    path.write_text(f'_base_ = {str(base.config)!r}\nmodel = {model!r}\n')
    return path


def chosen_value(
    calibration: Calibration, base: Method, folder: Path, checkpoint: str, args: Any
) -> dict[str, Any]:
    """Return the report of the tool that chooses, which is kept."""
    report = folder / f'{calibration.name}.json'
    if not report.is_file():
        options = {
            'val_dataloader.dataset.dataset.num_images': TUNED_SCENES,
            'train_cfg.val_interval': 10_000,
            **options_for(base, 'shapes_a', args.seeds[0], args),
        }
        run_command(
            [
                str(ROOT / 'tools/analysis_tools/tune_on_val.py'),
                str(written(calibration, base, folder)),
                *([checkpoint] if checkpoint else []),
                *('--key', f'model.calibrators.0.{calibration.option}'),
                *('--values', *map(str, calibration.values)),
                *('--pseudo-unseen', *PSEUDO_UNSEEN),
                *('--out', str(report), '--work-dir', str(folder / 'pseudo_split')),
                *(
                    '--cfg-options',
                    *(f'{key}={value}' for key, value in options.items()),
                ),
            ],
            folder / f'{calibration.name}.txt',
        )
    return json.loads(report.read_text())


def calibrate(
    runner: ExperimentRunner,
    base: Method,
    pixels: Mapping[str, float],
    args: Any,
    scores: Scores,
) -> None:
    """Train a model, choose a value for every calibrator, and test it with each."""
    seed = args.seeds[0]
    name, folder = base.name, args.work_dir / f'calibrators/{base.name}'
    options = options_for(base, 'shapes_a', seed, args)
    plain = replace(base, options={**SCENES, 'model.calibrators': []})
    trained = runner.run(
        plain,
        run_name=f'calibrators/{name}/seed{seed}',
        options=options,
        subsets=args.subsets,
    )
    add_scores(scores, name, 'shapes_a', trained)
    pseudo_seen = {n: count for n, count in pixels.items() if n not in PSEUDO_UNSEEN}
    chosen_on, tested_on = calibrations(pseudo_seen), calibrations(pixels)
    checkpoint = ''
    for choice, calibration in track([*zip(chosen_on, tested_on, strict=True)], name):
        report = chosen_value(choice, base, folder / 'chosen', checkpoint, args)
        checkpoint = report['checkpoint']
        best = report['best']
        method = Method(
            f'{name}, {calibration.name}, {calibration.option}={best:g}',
            written(calibration, base, folder),
            options={
                **SCENES,
                report['key']: int(best) if calibration.option == 'keep' else best,
            },
            test_flags=('--fit-calibrators',) if calibration.fitted else (),
        )
        outcome = runner.run(
            method,
            run_name=f'calibrators/{name}/{calibration.name}',
            options=options_for(method, 'shapes_a', seed, args),
            subsets=args.subsets,
            weights=trained,
        )
        add_scores(scores, method.name, 'shapes_a', outcome)


class Remembering(nn.Module):
    """A frozen backbone that computes the maps of an image once for all runs."""

    known: ClassVar[dict[str, tuple[Tensor, ...]]] = {}

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.out_channels = backbone.out_channels
        self.grid_mode = backbone.grid_mode
        self.patch_size = backbone.patch_size
        self.out_global = backbone.out_global

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = []
        for image in images:
            key = content_hash(image.numpy().tobytes())
            if key not in self.known:
                self.known[key] = tuple(part[0] for part in self.backbone(image[None]))
            found.append(self.known[key])
        return tuple(torch.stack(parts) for parts in zip(*found, strict=True))


def outcome_of(method: Method, seed: int, args: Any) -> Outcome:
    """Train and test a head on remembered features, or read what it gave."""
    config = Config.fromfile(method.config)
    options = options_for(method, 'shapes_a', seed, args) | dict(method.options)
    if method.trained:
        # Without augmentation an image has the same features whenever it comes.
        options |= {
            'train_dataloader.dataset.dataset.num_images': TRAINED_SCENES,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
        }
        config.train_dataloader.dataset.pipeline = config.test_pipeline
    options |= {
        'test_dataloader.num_workers': 0,
        'test_dataloader.persistent_workers': False,
    }
    config.merge_from_dict(options)
    folder = args.work_dir / f'{method.name}/seed{seed}'
    fingerprint = content_hash(package_hash(), config.pretty_text)
    file = folder / 'outcome.json'
    if file.is_file():
        kept = Outcome(**json.loads(file.read_text()))
        if kept.fingerprint == fingerprint:
            return kept
    config.work_dir, config.launcher, config.log_level = str(folder), 'none', 'WARNING'
    config.setdefault('experiment_name', f'{method.name}_{seed}_{fingerprint[:8]}')
    if not method.trained:
        for part in ('dataloader', 'cfg'):
            config[f'train_{part}'] = None
        config.optim_wrapper = config.param_scheduler = None
    config.val_dataloader = config.val_cfg = config.val_evaluator = None
    runner = build_runner(config)
    runner.model.backbone = Remembering(runner.model.backbone)
    began = time.perf_counter()
    if method.trained:
        runner.train()
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    metrics = {key: float(value) for key, value in runner.test().items()}
    outcome = Outcome(
        metrics={'test': metrics},
        train_seconds=seconds,
        test_seconds=time.perf_counter() - began,
        checkpoint=None,
        fingerprint=fingerprint,
    )
    text = json.dumps(asdict(outcome), indent=2)
    atomic_write(file, lambda stream: stream.write(text.encode()))
    return outcome


def main() -> None:
    names = [method.name for method in CALIBRATED]
    parser = comparison_parser(__doc__, METHODS, ['shapes_a'])
    parser.add_argument('--calibrated', nargs='*', default=names, choices=names)
    args = parser.parse_args()
    scores: Scores = {}
    runs = [
        (method, seed)
        for seed in args.seeds
        for method in METHODS
        if method.name in args.methods and (method.trained or seed == args.seeds[0])
    ]
    for method, seed in track(runs, 'heads'):
        add_scores(scores, method.name, 'shapes_a', outcome_of(method, seed, args))
    report_scores(scores, args, 'shapes_gzsl_heads.json')
    runner, calibrated = ExperimentRunner(ROOT / 'tools', args.work_dir), Scores()
    pixels = train_pixels(args.data_root) if args.calibrated else {}
    for base in CALIBRATED:
        if base.name in args.calibrated:
            calibrate(runner, base, pixels, args, calibrated)
    report_scores(calibrated, args, 'shapes_gzsl_calibrators.json')


if __name__ == '__main__':
    main()
