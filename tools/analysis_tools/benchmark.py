"""Measure the speed of a segmentor: ``benchmark.py CONFIG [CHECKPOINT]``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mmengine.config import Config

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _arguments import add_launch_arguments

if TYPE_CHECKING:
    from zs3_mmseg.engine.runner import SafeRunner


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Measure images per second on the test data, one image at a time, '
        'without the time that loading them takes; goes to WORK_DIR/speed.json'
    )
    add_launch_arguments(parser)
    parser.add_argument('checkpoint', nargs='?', help='weights; random ones if absent')
    parser.add_argument('--images', type=int, default=100, help='images to measure')
    parser.add_argument('--warm-up', type=int, default=5, help='images before that')
    arguments = parser.parse_intermixed_args()
    if arguments.images < 1 or arguments.warm_up < 0:
        parser.error('--images must be positive, --warm-up must not be negative')
    return arguments


def prepare(arguments: argparse.Namespace) -> Config:
    from zs3_mmseg.engine.launch import config_of, require_keys
    from zs3_mmseg.utils.config_check import require_config_files

    config = config_of(arguments)
    if config.launcher != 'none':
        raise ValueError('the speed of one process is measured: no --launcher')
    require_keys(config, 'model', 'test_dataloader', 'test_cfg', 'test_evaluator')
    config.load_from = arguments.checkpoint
    config.test_dataloader.batch_size = 1
    require_config_files(config, ['test_dataloader'])
    return config


def synchronize(device: str) -> None:
    """Wait for the accelerator, which works behind the back of the clock."""
    import torch

    if device == 'cuda':
        torch.cuda.synchronize()


def seconds_per_image(runner: SafeRunner, images: int, warm_up: int) -> list[float]:
    """Return the seconds of each prediction after the first ``warm_up`` ones."""
    import torch

    from mmengine.device import get_device

    model = runner.model.eval()
    loader = runner.build_dataloader(runner.cfg.test_dataloader)
    device = get_device()
    seconds: list[float] = []
    while len(seconds) < warm_up + images:
        for batch in loader:
            synchronize(device)
            began = time.perf_counter()
            with torch.no_grad():
                model.test_step(batch)
            synchronize(device)
            seconds.append(time.perf_counter() - began)
            if len(seconds) == warm_up + images:
                break
    return seconds[warm_up:]


def main() -> None:
    arguments = parse_args()
    import torch

    from mmengine.device import get_device

    from zs3_mmseg.engine.launch import build_runner, one_line_errors
    from zs3_mmseg.engine.runner import read_checkpoint
    from zs3_mmseg.utils.cache import atomic_write
    from zs3_mmseg.utils.checkpoint import load_into

    with one_line_errors():
        config = prepare(arguments)
        runner = build_runner(config)
        if arguments.checkpoint is not None:
            load_into(
                runner.model,
                read_checkpoint(arguments.checkpoint),
                allow_missing=config.allow_missing,
                what=arguments.checkpoint,
            )
        seconds = sorted(seconds_per_image(runner, arguments.images, arguments.warm_up))
    speed = {
        'images_per_second': len(seconds) / sum(seconds),
        'median_seconds': seconds[len(seconds) // 2],
        'slowest_seconds': seconds[-1],
        'images': len(seconds),
        'device': get_device(),
        'threads': torch.get_num_threads(),
    }
    text = json.dumps(speed, indent=2) + '\n'
    file = Path(runner.work_dir) / 'speed.json'
    atomic_write(file, lambda stream: stream.write(text.encode()))
    print(text + f'Written: {file}')


if __name__ == '__main__':
    main()
