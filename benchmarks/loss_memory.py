"""Claim: the memory of the non-exclusive loss does not grow with the number of classes.

``python benchmarks/loss_memory.py`` computes loss and gradient of one 256 x 256 label
map and masks at patch resolution, with 20, 171 and 847 classes: with one-hot labels for
all classes as the formula is written, with all classes at once, and in chunks. Each
runs in a process of its own. Prints by how much the peak of the resident memory rose,
and the time. Linux only (``/proc``).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from streaming_memory import NUM_CLASSES, PATCH, peak_memory, reset_peak

if TYPE_CHECKING:
    from torch import Tensor

WAYS = ('one-hot', 'all at once', 'in chunks')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--size', type=int, default=256, help='pixels per side')
    parser.add_argument('--images', type=int, default=1)
    # Set by this script for its own child processes.
    parser.add_argument('--child', nargs=2, metavar=('CLASSES', 'WAY'))
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


def measure(num_classes: int, way: str, size: int, images: int) -> None:
    """Print what one loss and its gradient cost, and their values, as JSON."""
    import torch

    from zs3_mmseg.models.losses import NonExclusiveLoss
    from zs3_mmseg.utils.labels import special_labels

    torch.set_num_threads(1)
    if way == 'in chunks':
        loss = NonExclusiveLoss()
    else:
        loss = NonExclusiveLoss(class_chunk=num_classes)

    def step(classes: int, side: int) -> tuple[float, float]:
        generator = torch.Generator().manual_seed(0)
        grid = (side // PATCH, side // PATCH)
        logits = torch.randn(images, classes, *grid, generator=generator)
        labels = torch.randint(0, classes, (images, side, side), generator=generator)
        logits.requires_grad_()
        if way == 'one-hot':
            total = one_hot_loss(logits, labels)
        else:
            ignored = special_labels(classes).ignore
            total = torch.stack([*loss(logits, labels, ignored).values()]).sum()
        (gradient,) = torch.autograd.grad(total, logits)
        return total.item(), gradient.norm().item()

    step(4, 2 * PATCH)  # what the first call allocates for good
    reset_peak()
    before = peak_memory()
    began = time.perf_counter()
    values = step(num_classes, size)
    seconds = time.perf_counter() - began
    rose = peak_memory() - before
    print(json.dumps({'bytes': rose, 'seconds': seconds, 'values': values}))


def run_child(arguments: argparse.Namespace, classes: int, way: str) -> dict:
    command = [sys.executable, __file__, '--child', str(classes), way]
    command += ['--size', str(arguments.size), '--images', str(arguments.images)]
    # Memory that is freed goes back at once and does not count as resident.
    env = os.environ | {'MALLOC_MMAP_THRESHOLD_': '65536'}
    finished = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=env
    )
    return json.loads(finished.stdout.splitlines()[-1])


def main() -> None:
    arguments = parse_args()
    if arguments.child:
        classes, way = arguments.child
        measure(int(classes), way, arguments.size, arguments.images)
        return
    heads = ''.join(f'{way:>18}' for way in WAYS)
    print(f'{"classes":>8}{heads}   memory / in chunks')
    for classes in NUM_CLASSES:
        results = [run_child(arguments, classes, way) for way in WAYS]
        chunked = results[-1]
        for one in results:
            for a, b in zip(one['values'], chunked['values'], strict=True):
                assert math.isclose(a, b, rel_tol=1e-4), 'the losses differ'
        cells = ''.join(
            f'{one["bytes"] / 2**20:8.0f} MB {one["seconds"]:4.1f} s' for one in results
        )
        ratios = ' : '.join(f'{one["bytes"] / chunked["bytes"]:.1f}' for one in results)
        print(f'{classes:>8}{cells}   {ratios}')


if __name__ == '__main__':
    main()
