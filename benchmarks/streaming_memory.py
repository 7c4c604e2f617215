"""Claim: with ``return_scores=False`` memory does not grow with the number of classes.

``python benchmarks/streaming_memory.py`` predicts one 640 x 480 image with 20, 171 and
847 classes, with and without returning scores, each in a process of its own, and prints
by how much the peak of the resident memory rose. Linux only (``/proc``).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

HEIGHT, WIDTH, PATCH, DIM = 480, 640, 16, 64
NUM_CLASSES = (20, 171, 847)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--score-kind', default='softmax', choices=['softmax', 'logit'])
    parser.add_argument(
        '--slide', action='store_true', help='a window of 320, step 160'
    )
    # Set by this script for its own child processes.
    parser.add_argument('--child', nargs=2, metavar=('CLASSES', 'RETURN_SCORES'))
    return parser.parse_args()


def peak_memory() -> int:
    """Return the highest resident memory since the last reset, in bytes."""
    status = Path('/proc/self/status').read_text()
    line = next(line for line in status.splitlines() if line.startswith('VmHWM'))
    return int(line.split()[1]) * 1024


def reset_peak() -> None:
    """Let :func:`peak_memory` begin anew with what is resident now."""
    Path('/proc/self/clear_refs').write_text('5')


def measure(num_classes: int, return_scores: bool, kind: str, slide: bool) -> None:
    """Print what one prediction costs, and a hash of its label map, as JSON."""
    import torch
    from torch import nn

    from mmseg.registry import MODELS

    from zs3_mmseg.models.decode_heads import DenseTextHead
    from zs3_mmseg.models.segmentors import ZeroShotEncoderDecoder

    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, DIM, PATCH, PATCH)

        def forward(self, img: torch.Tensor) -> tuple[torch.Tensor]:
            return (self.conv(img),)

    class Head(DenseTextHead):
        score_kind = kind  # type: ignore[assignment]

    MODELS.register_module('BenchmarkPatches', module=Patches)
    MODELS.register_module('BenchmarkHead', module=Head)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    names = [f'name {index}' for index in range(num_classes)]
    test_cfg: dict = dict(return_scores=return_scores)
    if slide:
        test_cfg |= dict(mode='slide', crop_size=(320, 320), stride=(160, 160))
    model = ZeroShotEncoderDecoder(
        dict(type='BenchmarkPatches'),
        dict(type='BenchmarkHead', in_channels=DIM),
        class_embeddings=dict(
            type='ClassEmbeddingBank', source=dict(type='tensor', path='unused.npy')
        ),
        split='shapes_a',
        setting='inductive',
        test_cfg=test_cfg,
    ).eval()
    model.set_classes(names, embeddings=torch.randn(num_classes, DIM))
    image = torch.randn(1, 3, HEIGHT, WIDTH)
    with torch.no_grad():
        model.predict(image[..., :64, :64])  # what the first call allocates for good
        reset_peak()
        before = peak_memory()
        began = time.perf_counter()
        labels = model.predict(image)[0].pred_sem_seg.data
        seconds = time.perf_counter() - began
    weights = torch.arange(labels.numel()) % 8191
    result = {
        'bytes': peak_memory() - before,
        'seconds': seconds,
        'labels': int((labels.flatten() * weights).sum()),
    }
    print(json.dumps(result))


def run_child(arguments: argparse.Namespace, classes: int, return_scores: bool) -> dict:
    command = [sys.executable, __file__, '--score-kind', arguments.score_kind]
    command += ['--slide'] if arguments.slide else []
    command += ['--child', str(classes), str(int(return_scores))]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(finished.stdout.splitlines()[-1])


def main() -> None:
    arguments = parse_args()
    if arguments.child:
        classes, return_scores = map(int, arguments.child)
        measure(classes, bool(return_scores), arguments.score_kind, arguments.slide)
        return
    print(f'{"classes":>8} {"all scores":>18} {"streamed":>18} {"ratio":>6}')
    for classes in NUM_CLASSES:
        full = run_child(arguments, classes, True)
        streamed = run_child(arguments, classes, False)
        assert full['labels'] == streamed['labels'], 'the label maps differ'
        cells = [
            f'{one["bytes"] / 2**20:7.0f} MB {one["seconds"]:5.1f} s'
            for one in (full, streamed)
        ]
        ratio = full['bytes'] / streamed['bytes']
        print(f'{classes:>8} {cells[0]:>18} {cells[1]:>18} {ratio:>6.1f}')


if __name__ == '__main__':
    main()
