"""Claim: asking for K names at once costs less than K separate passes.

``python benchmarks/esda_shared_tower.py`` measures both ways in turns, in one process
and on the same images, and prints the ratio of their median times. Shared are the stem
and the blocks before the first one that reads the name; rows of text are known
beforehand in both ways. Weights don't matter for time: ``--random-weights`` needs none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

import zs3_mmseg  # noqa: F401  (registers everything)
from zs3_mmseg.utils.cache import atomic_write

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--config', type=Path, default=ROOT / 'configs/esda/shapes_tiny.py'
    )
    parser.add_argument('--size', type=int, default=112, help='side of the images')
    parser.add_argument('--images', type=int, default=1, help='images in a batch')
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--random-weights', action='store_true', help='load no tower')
    parser.add_argument(
        '--out', type=Path, default=ROOT / 'work_dirs/bench/esda_shared_tower.json'
    )
    return parser.parse_args()


def build(config: Config, device: str, random_weights: bool) -> Any:
    """Build the segmentor in evaluation mode."""
    init_default_scope('mmseg')
    if random_weights:
        config.model.backbone.pretrained = None
        config.model.class_embeddings.source.pretrained = None
    return MODELS.build(config.model).to(device).eval()


def seconds(run: Callable[[], object], device: str) -> float:
    if device != 'cpu':
        torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    if device != 'cpu':
        torch.cuda.synchronize()
    return time.perf_counter() - began


@torch.inference_mode()
def main() -> None:
    args = parse_args()
    model = build(Config.fromfile(args.config), args.device, args.random_weights)
    names = model.split.classes
    images = torch.randn(args.images, 3, args.size, args.size, device=args.device)
    metas = [dict(ori_shape=(args.size, args.size))] * args.images

    def together() -> object:
        return model.encode_decode(images, metas)

    def separately() -> None:
        for name in names:  # its row is known from the round before
            model.set_classes([name])
            model.encode_decode(images, metas)
        model.reset_classes()

    times: dict[str, list[float]] = {'together': [], 'separately': []}
    for number in track(range(args.rounds + 1), 'rounds'):
        for way, run in (('together', together), ('separately', separately)):
            took = seconds(run, args.device)
            if number:  # the first round warms up
                times[way].append(took)
    medians = {way: statistics.median(took) for way, took in times.items()}
    ratio = medians['together'] / medians['separately']
    backbone = model.backbone
    result = dict(
        config=args.config.stem,
        names=len(names),
        images=args.images,
        size=args.size,
        device=args.device,
        threads=torch.get_num_threads(),
        shared_blocks=backbone.num_shared_blocks,
        blocks=backbone.num_blocks,
        seconds=medians,
        ratio=ratio,
    )
    title = (
        f'{len(names)} names, {args.images} image(s) of {args.size} x {args.size}, '
        f'{backbone.num_shared_blocks} of {backbone.num_blocks} blocks shared'
    )
    table = Table('way', 'median seconds', title=title)
    for way, median in medians.items():
        table.add_row(way, f'{median:.3f}')
    table.add_row('ratio', f'{ratio:.2f}')
    Console().print(table)
    text = json.dumps(result, indent=2) + '\n'
    atomic_write(args.out, lambda stream: stream.write(text.encode()))


if __name__ == '__main__':
    main()
