"""Claim: a training step of ZegCLIP costs little more than its encoder and decoder.

``python benchmarks/training_step.py`` takes the model of a config with random weights,
and makes one step, forward and backward, with the loss as its formula is written, with
a target map for every class, and with the loss of this package. Each step runs in a
process of its own, in turns; CPU seconds, so that other work on the machine counts
little, and by how much the peak of the resident memory rose above the model. Prints the
medians and writes all values. Linux only (``/proc``).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from streaming_memory import peak_memory, reset_peak

if TYPE_CHECKING:
    from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
WAYS = ('one-hot', 'closed form')
PARTS = ('model', 'loss', 'backward')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--config', type=Path, default=ROOT / 'configs/zegclip/cocostuff_vitb16.py'
    )
    parser.add_argument('--classes', type=int, nargs='+', default=[20, 156])
    parser.add_argument('--images', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument(
        '--out', type=Path, default=ROOT / 'work_dirs/bench/training_step.json'
    )
    # Set by this script for its own child processes.
    parser.add_argument('--child', choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args()


def one_hot_loss(mask_logits: Tensor, labels: Tensor) -> Tensor:
    """The loss with a target map for every class, weights as published."""
    import torch.nn.functional as F

    num_classes = mask_logits.shape[1]
    logits = F.interpolate(mask_logits, labels.shape[-2:], mode='bilinear')
    target = F.one_hot(labels, num_classes).movedim(-1, 1).float()
    present = target.amax((2, 3))
    p = logits.sigmoid()
    miss = p * (1 - target) + (1 - p) * target
    weight = 0.25 * target + 0.75 * (1 - target)
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction='none')
    focal = (weight * miss**2 * cross).mean((2, 3)).sum()
    overlap, both = (p * target).sum((2, 3)), (p + target).sum((2, 3))
    dice = ((1 - (2 * overlap + 1) / (both + 1)) * present).sum()
    return (100 * focal + dice) / present.sum()


def measure(arguments: argparse.Namespace) -> None:
    """Print what one step costs, and its loss and gradient, as JSON."""
    import torch

    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    import zs3_mmseg  # noqa: F401  (registers everything)
    from zs3_mmseg.models.class_embeddings import ClassQueries
    from zs3_mmseg.models.losses import NonExclusiveLoss

    init_default_scope('mmseg')
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = Config.fromfile(arguments.config).model
    config.backbone.pretrained = None
    backbone = MODELS.build(config.backbone).train()
    config.decode_head.in_channels = backbone.embed_dim
    head = MODELS.build(config.decode_head).train()
    (num_classes,) = arguments.classes
    queries = ClassQueries(
        embeddings=torch.randn(num_classes, head.in_channels),
        query_to_class=torch.arange(num_classes),
        seen_mask=torch.ones(num_classes, dtype=torch.bool),
    )
    ours = NonExclusiveLoss()

    def step(images: int, height: int, width: int) -> dict:
        generator = torch.Generator().manual_seed(0)
        image = torch.randn(images, 3, height, width, generator=generator)
        # A picture has few of the classes, in pieces.
        few = torch.randint(0, num_classes, (images, 8), generator=generator)
        pieces = torch.randint(0, 8, (images, height // 32, width // 32))
        labels = few.gather(1, pieces.flatten(1)).view_as(pieces)
        labels = labels.repeat_interleave(32, 1).repeat_interleave(32, 2)
        times = [time.process_time()]
        *maps, token = backbone(image)
        mask = head.training_outputs(maps, queries=queries, global_token=token)[-1]
        times.append(time.process_time())
        if arguments.child == 'one-hot':
            total = one_hot_loss(mask, labels)
        else:
            total = torch.stack([*ours(mask, labels, num_classes).values()]).sum()
        times.append(time.process_time())
        total.backward()
        times.append(time.process_time())
        gradient = head.q_proj.weight.grad
        values = [total.item(), gradient.norm().item()]
        seconds = map(float.__sub__, times[1:], times[:-1])
        parts = dict(zip(PARTS, seconds, strict=True))
        return parts | {'seconds': times[-1] - times[0], 'values': values}

    step(1, 64, 64)  # what the first call allocates for good
    for module in (backbone, head):
        module.zero_grad()
    torch.manual_seed(0)
    reset_peak()
    before = peak_memory()
    result = step(arguments.images, *config.data_preprocessor.size)
    print(json.dumps(result | {'bytes': peak_memory() - before}))


def run_child(arguments: argparse.Namespace, classes: int, way: str) -> dict:
    command = [sys.executable, __file__, '--child', way, '--classes', str(classes)]
    for key in ('config', 'images', 'threads'):
        command += [f'--{key}', str(getattr(arguments, key))]
    # Memory that is freed goes back at once and does not count as resident.
    env = os.environ | {'MALLOC_MMAP_THRESHOLD_': '65536'}
    finished = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=env
    )
    return json.loads(finished.stdout.splitlines()[-1])


def main() -> None:
    arguments = parse_args()
    if arguments.child:
        measure(arguments)
        return
    from rich.console import Console
    from rich.table import Table

    from zs3_mmseg.utils.cache import atomic_write

    columns = (*PARTS, 'seconds', 'bytes')
    heads = (*PARTS, 'step, CPU s', 'memory, GB')
    table = Table('classes', 'loss', *heads)
    results: dict[str, dict[str, list[dict]]] = {}
    for classes in arguments.classes:
        runs: dict[str, list[dict]] = {way: [] for way in WAYS}
        for _ in range(arguments.rounds):
            for way in WAYS:
                runs[way].append(run_child(arguments, classes, way))
        results[str(classes)] = runs
        for a, b in zip(*(runs[way][0]['values'] for way in WAYS), strict=True):
            assert math.isclose(a, b, rel_tol=1e-4), 'the losses differ'
        for way in WAYS:
            middle = [
                statistics.median(run[key] for run in runs[way]) for key in columns
            ]
            middle[-1] /= 2**30
            table.add_row(str(classes), way, *(f'{value:.2f}' for value in middle))
    Console().print(table)
    text = json.dumps(results, indent=2) + '\n'
    atomic_write(arguments.out, lambda stream: stream.write(text.encode()))


if __name__ == '__main__':
    main()
