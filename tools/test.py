"""Test a segmentor: ``python tools/test.py CONFIG [CHECKPOINT]``."""

from __future__ import annotations

import argparse
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _arguments import add_launch_arguments

from mmengine.config import Config, ConfigDict


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Test a segmentor; the metrics go to WORK_DIR/metrics.json'
    )
    add_launch_arguments(parser)
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='trained weights; may be left out if nothing in the model learns',
    )
    parser.add_argument('--out', help='folder for the predicted label maps')
    parser.add_argument(
        '--report',
        action='store_true',
        help='write tables (JSON, CSV) and charts (PNG) to WORK_DIR/report',
    )
    parser.add_argument('--show', action='store_true', help='show each prediction')
    parser.add_argument('--show-dir', help='folder for the painted predictions')
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds that --show waits'
    )
    parser.add_argument(
        '--fit-calibrators',
        action='store_true',
        help='let calibrators learn from the test images, without labels, before the '
        'test: results are transductive',
    )
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    return parser.parse_intermixed_args(argv)


def prepare(arguments: argparse.Namespace) -> Config:
    """Read the config, apply the flags and check what can be checked now."""
    from zs3_mmseg.engine.launch import config_of, require_keys
    from zs3_mmseg.utils.config_check import (
        drop_timm_weights,
        require_config_files,
        require_extras,
    )

    config = config_of(arguments)
    require_keys(config, 'model', 'test_dataloader', 'test_cfg', 'test_evaluator')
    config.resume = False
    if arguments.checkpoint is not None:
        config.load_from = arguments.checkpoint
        if not config.allow_missing:
            drop_timm_weights(config)
    if arguments.show or arguments.show_dir:
        paint_predictions(config, arguments)
    if arguments.tta:
        switch_tta_on(config)
    if arguments.out is not None:
        keep_predictions(config, arguments.out)
    if arguments.report:
        folder = str(Path(config.work_dir) / 'report')
        if not set_in_metrics(config, 'report_dir', folder):
            raise ValueError('--report: no metric of test_evaluator writes reports')
    require_extras(config)
    require_config_files(config, ['test_dataloader'])
    return config


def paint_predictions(config: Config, arguments: argparse.Namespace) -> None:
    hook = config.default_hooks.get('visualization')
    if hook is None:
        raise ValueError(
            '--show and --show-dir need default_hooks.visualization in the config, '
            "e.g. dict(type='SegVisualizationHook')"
        )
    hook.draw = True
    if arguments.show:
        hook.show = True
        hook.wait_time = arguments.wait_time
    if arguments.show_dir:
        config.visualizer.save_dir = arguments.show_dir


def switch_tta_on(config: Config) -> None:
    from zs3_mmseg.datasets.wrappers import leaves
    from zs3_mmseg.utils.config_check import stays_behind

    for key in ('tta_model', 'tta_pipeline'):
        if config.get(key) is None:
            raise ValueError(f'--tta needs {key} in the config, which has none')
    if stays_behind(config, 'tta_pipeline', 'test_pipeline'):
        raise ValueError(
            f'--tta: {config.filename} changes test_pipeline and inherits '
            'tta_pipeline, which was made for the former sizes; change it, too'
        )
    # A wrapper with a pipeline of its own hands it on to what it holds.
    for dataset in leaves(config.test_dataloader.dataset, stop_at='pipeline'):
        dataset.pipeline = config.tta_pipeline
    config.model = ConfigDict(**config.tta_model, module=config.model)


def keep_predictions(config: Config, folder: str) -> None:
    if not set_in_metrics(config, 'output_dir', folder):
        raise ValueError('--out: no metric of test_evaluator can write predictions')
    set_in_metrics(config, 'keep_results', True)


def set_in_metrics(config: Config, key: str, value: object) -> bool:
    """Set an argument of the metrics that accept it; tell whether there are any."""
    from mmseg.registry import METRICS

    from zs3_mmseg.registry import find_class

    evaluators = config.test_evaluator
    changed = False
    for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
        metric = find_class(METRICS, evaluator['type'])
        if metric is not None and key in inspect.signature(metric).parameters:
            evaluator[key] = value
            changed = True
    return changed


def as_json(metrics: Mapping[str, Any]) -> str:
    """Write metrics as JSON, which has no NaN: undefined values become null."""
    plain = {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in metrics.items()
    }
    return json.dumps(plain, indent=2, default=float) + '\n'


def main() -> None:
    arguments = parse_args()
    from mmengine.dist import is_main_process

    from zs3_mmseg.engine.launch import (
        build_loops,
        build_runner,
        close_processes,
        one_line_errors,
        require_no_learning,
        running,
    )
    from zs3_mmseg.utils.cache import atomic_write

    with one_line_errors():
        config = prepare(arguments)
        runner = build_runner(config)
        if not config.get('load_from'):
            call = f'tools/test.py {config.filename} CHECKPOINT'
            require_no_learning(runner.model, f'Name it: {call}')
        build_loops(runner, 'test')
    with running(config):
        if arguments.fit_calibrators:
            runner.load_or_resume()
            model: Any = runner.model
            while hasattr(model, 'module'):  # several processes, and --tta
                model = model.module
            model.fit_calibrators(runner.test_dataloader.dataset)
        metrics = runner.test()
    if is_main_process():
        text = as_json(metrics)
        file = Path(runner.work_dir) / 'metrics.json'
        atomic_write(file, lambda stream: stream.write(text.encode()))
        runner.logger.info(f'Metrics written to {file}')
    close_processes()


if __name__ == '__main__':
    main()
