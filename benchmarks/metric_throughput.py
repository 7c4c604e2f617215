"""Claim: the metric counts at least 60 images a second on one core and keeps none.

``python benchmarks/metric_throughput.py`` evaluates 5000 images of 640 x 480 pixels
and 171 classes, first the generalised scores alone, then with the modes of single
groups and a sweep over 11 shifts, then with boundary IoU, and prints images a second
and by how much the peak of the resident memory rose. Linux only (``/proc``).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.evaluation import ZeroShotIoUMetric

HEIGHT, WIDTH, REGION = 480, 640, 40
SPLIT = 'cocostuff_156_15'
OPTIONS: dict[str, dict] = {
    'gzsl': {},
    'all modes and sweep': dict(
        modes=['gzsl', 'zsl_only', 'seen_only'],
        gamma_sweep=[round(0.1 * step, 1) for step in range(11)],
    ),
    'gzsl and boundary IoU': dict(boundary_ratio=0.02),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--images', type=int, default=5000)
    parser.add_argument('--out', type=Path, help='write the figures to this JSON file')
    return parser.parse_args()


def peak_memory() -> int:
    """Return the highest resident memory since the last reset, in bytes."""
    status = Path('/proc/self/status').read_text()
    line = next(line for line in status.splitlines() if line.startswith('VmHWM'))
    return int(line.split()[1]) * 1024


def draw_labels(classes: list[int], rng: np.random.Generator) -> torch.Tensor:
    """Return a map ``(1, H, W)`` of square regions of about a dozen classes."""
    present = rng.choice(classes, 12)
    regions = rng.choice(present, (HEIGHT // REGION, WIDTH // REGION))
    labels = np.kron(regions, np.ones((REGION, REGION), np.int64))
    return torch.from_numpy(labels)[None]


def draw_sample(rng: np.random.Generator) -> dict:
    """Return what a model and a data set give for one image."""
    split = get_split(SPLIT)
    everything = list(range(len(split.classes)))
    best = [
        draw_labels(list(group), rng)
        for group in (split.seen_indices, split.unseen_indices)
    ]
    truth = draw_labels(everything, rng)
    truth[:, :20] = 255
    scores = torch.rand(2, HEIGHT, WIDTH)
    classes = torch.cat(best)
    prediction = torch.where(scores[0] >= scores[1], classes[0], classes[1])[None]
    return dict(
        pred_sem_seg=dict(data=prediction),
        gt_sem_seg=dict(data=truth.to(torch.uint8)),
        group_best=dict(scores=scores, classes=classes),
    )


def measure(options: dict, images: int) -> dict[str, float]:
    """Return images a second and the rise of the peak memory."""
    split = get_split(SPLIT)
    metric = ZeroShotIoUMetric(**options)
    metric.dataset_meta = dict(
        classes=split.classes, seen=split.seen_indices, unseen=split.unseen_indices
    )
    rng = np.random.default_rng(0)
    pool = [draw_sample(rng) for _ in range(8)]
    metric.process(None, pool)
    metric.evaluate(len(pool))
    Path('/proc/self/clear_refs').write_text('5')
    before = peak_memory()
    began = time.perf_counter()
    for index in range(images):
        metric.process(None, [pool[index % len(pool)]])
    metric.evaluate(images)
    seconds = time.perf_counter() - began
    return {
        'images_per_second': round(images / seconds, 1),
        'megabytes': round((peak_memory() - before) / 2**20, 1),
    }


def main() -> None:
    arguments = parse_args()
    torch.set_num_threads(1)
    figures = {
        name: measure(options, arguments.images) for name, options in OPTIONS.items()
    }
    print(json.dumps(figures, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + '\n')


if __name__ == '__main__':
    main()
