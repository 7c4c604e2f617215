"""What the benchmarks of inference have in common: a model, a reference, a stopwatch.

Each measurement runs in a process of its own, in turns: CPU seconds, so that other work
on the machine counts little, the wall's beside them, and by how much the peak of the
resident memory rose above the model. On an accelerator both times are the wall's, and
memory is what torch has allocated there. Weights are random, which no time depends on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streaming_memory import peak_memory, reset_peak

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
PARTS = ('encoder', 'head', 'labels')
#: Segmentors of mmseg beside ours, by their base config. Segmenter's encoder is a
#: ViT-B/16 as CLIP's is, SegFormer's the smallest of its kind.
PEERS = {
    'segmenter': 'segmenter_vit-b16_mask.py',
    'segformer': 'segformer_mit-b0.py',
}


def plain_scores(model: Any, image: Tensor) -> Tensor:
    """Return what a segmentor's scores are by definition, written for clarity.

    Window after window, for all classes at once: resize, activation, calibration,
    resize, and the mean where windows overlap, ``(N, K, H, W)``. For maps that cover
    their crop, one query a class, and calibrators of scores.
    """
    import torch
    import torch.nn.functional as F

    from zs3_mmseg.models.segmentors.inference import slide_windows

    options, queries = model._inference_options, model.current_queries()
    kind = model.decode_head.score_kind
    height, width = image.shape[-2:]
    total = image.new_zeros(len(image), model.num_classes, height, width)
    count = image.new_zeros(height, width)
    crop = options.crop_size if options.mode == 'slide' else (height, width)
    stride = options.stride if options.mode == 'slide' else crop
    for top, bottom, left, right in slide_windows((height, width), crop, stride):
        part = (..., slice(top, bottom), slice(left, right))
        size = (bottom - top, right - left)
        maps, given = model._features(image[part], queries)
        token = given['global_token']
        logits = model.decode_head.query_logits(
            maps, queries=queries, global_token=token
        )
        full = F.interpolate(logits, options.mask_size or size, mode='bilinear')
        scores = full.sigmoid() if kind == 'sigmoid' else full.softmax(1)
        for calibrator in model.calibrators:
            scores = calibrator(scores, queries, token)
        total[part] += F.interpolate(scores, size, mode='bilinear')
        count[part] += 1
        del full, scores
    assert torch.all(count > 0), 'a pixel is in no window'
    return total.div_(count)


class Stopwatch:
    """CPU seconds of functions, by name; the wall's where a device works on its own."""

    def __init__(self, device: str) -> None:
        self.on_cpu = device == 'cpu'
        self.seconds: dict[str, float] = {}
        #: How many pictures or crops went through the encoder.
        self.images = 0

    def now(self) -> float:
        """Return the time, after all that was asked of the device is done."""
        import torch

        if self.on_cpu:
            return time.process_time()
        torch.accelerator.synchronize()
        return time.perf_counter()

    def watch(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same and is measured."""

        @wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            began = self.now()
            result = function(*args, **kwargs)
            spent = self.seconds.get(name, 0.0) + self.now() - began
            self.seconds[name] = spent
            self.images += len(args[0]) if name == 'encoder' else 0
            return result

        return watched


def build(arguments: argparse.Namespace, num_classes: int) -> Any:
    """Build a config's segmentor with random weights and so many classes."""
    import torch

    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    import zs3_mmseg  # noqa: F401  (registers everything)

    init_default_scope('mmseg')
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = Config.fromfile(arguments.config).model
    config.backbone.pretrained = None
    rows = dict(type='tensor', path='unused.npy')
    config.class_embeddings = dict(type='ClassEmbeddingBank', source=rows)
    config.test_cfg.update(mode=arguments.mode, return_scores=False)
    model = MODELS.build(config).eval().requires_grad_(False).to(arguments.device)
    names = [f'name {index}' for index in range(num_classes)]
    width = model.decode_head.in_channels
    unseen = names[::5]
    model.set_classes(names, unseen, embeddings=torch.randn(num_classes, width))
    if arguments.compile:
        model.backbone.compile()
    return model


def build_peer(arguments: argparse.Namespace, num_classes: int) -> Any:
    """Build a segmentor of mmseg with random weights and so many classes."""
    import torch

    import mmseg
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    import zs3_mmseg  # noqa: F401  (registers everything)

    init_default_scope('mmseg')
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    folder = Path(mmseg.__file__).parent / '.mim/configs/_base_/models'
    config = Config.fromfile(folder / PEERS[arguments.child]).model
    config.pretrained = None
    config.decode_head.num_classes = num_classes
    window = dict(crop_size=(512, 512), stride=(426, 426))
    config.test_cfg = dict(mode=arguments.mode, **window)
    model = MODELS.build(config).eval().requires_grad_(False).to(arguments.device)
    if arguments.compile:
        model.backbone.compile()
    return model


def matmul_rate(device: str) -> float:
    """Return the multiplications and additions of one product in a second."""
    import torch

    one, other = (torch.randn(1024, 1024, device=device) for _ in range(2))
    watch, best = Stopwatch(device), float('inf')
    for _ in range(8):
        began = watch.now()
        for _ in range(4):
            one @ other
        best = min(best, watch.now() - began)
    return 4 * 2 * 1024**3 / best


def measure(arguments: argparse.Namespace) -> None:
    """Print what one picture costs as JSON, and write its label map."""
    import numpy as np
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    (num_classes,) = arguments.K
    peer, device = arguments.child in PEERS, arguments.device
    model = (build_peer if peer else build)(arguments, num_classes)
    watch = Stopwatch(device)
    image = torch.randn(1, 3, *arguments.size, device=device)
    crop = image
    if arguments.mode == 'slide':
        height, width = model.test_cfg.crop_size
        crop = image[..., :height, :width]
    half = torch.autocast(device, torch.bfloat16, enabled=arguments.dtype == 'bf16')

    def labels(picture: Tensor) -> Tensor:
        if arguments.child != 'plain':
            return model.predict(picture)[0].pred_sem_seg.data[0]
        return plain_scores(model, picture)[0].argmax(0)

    with torch.no_grad(), half:
        # What the first call allocates for good, and compiles.
        labels(crop if arguments.compile else image[..., :64, :64])
        encoder, head = model.backbone, model.decode_head
        plain_forward = encoder.forward
        encoder.forward = watch.watch('encoder', plain_forward)
        method = 'forward' if peer else 'query_logits'
        setattr(head, method, watch.watch('head', getattr(head, method)))
        if device == 'cpu':
            reset_peak()
            before = peak_memory()
        else:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        began, wall = watch.now(), time.perf_counter()
        found = labels(image)
        total, wall = watch.now() - began, time.perf_counter() - wall
        on_cpu = device == 'cpu'
        after = peak_memory() if on_cpu else torch.cuda.max_memory_allocated()
        encoder.forward, rate = plain_forward, matmul_rate(device)
        with FlopCounterMode(display=False) as counter:
            encoder(crop)
    parts = dict(watch.seconds)
    parts['labels'] = total - sum(parts.values())
    work = counter.get_total_flops() * watch.images
    np.save(arguments.labels, found.numpy(force=True))
    result = parts | {
        'seconds': total,
        'ratio': total / parts['encoder'],
        'wall': wall,
        'share': 100 * work / parts['encoder'] / rate,
        'bytes': after - before,
    }
    print(json.dumps(result))


#: What is shown of a run, with its heading and the number it is divided by.
COLUMNS = {
    **{part: (f'{part}, s', 1) for part in PARTS},
    'seconds': ('all, s', 1),
    'ratio': ('all / encoder', 1),
    'wall': ('wall, s', 1),
    'share': ('encoder, % of matmul', 1),
    'bytes': ('memory, GB', 2**30),
    'different': ('other labels', 1),
}


def compare(description: str | None, name: str, mode: str, size: Sequence[int]) -> None:
    """Measure both ways with several numbers of classes; print a table, write JSON.

    Args:
        description: of the benchmark.
        name: of the JSON file.
        mode: ``'whole'`` or ``'slide'``.
        size: height and width of the picture.
    """
    arguments = _parse(description, name, size)
    arguments.mode = mode
    if arguments.child:
        measure(arguments)
        return
    from rich.console import Console
    from rich.table import Table

    from zs3_mmseg.utils.cache import atomic_write

    table = Table('classes', 'way', *(heading for heading, _ in COLUMNS.values()))
    results: dict[str, dict[str, list[dict]]] = {}
    for classes in arguments.K:
        # All scores of many classes do not fit into a usual memory.
        plain = ['plain'] * (classes <= arguments.plain)
        ways = [*plain, 'streamed', *arguments.peers]
        runs: dict[str, list[dict]] = {way: [] for way in ways}
        for _ in range(arguments.rounds):
            labels = []
            for way in ways:
                result, label_map = _run_child(arguments, classes, way)
                labels.append(label_map)
                if way not in PEERS:
                    result['different'] = int((label_map != labels[0]).sum())
                runs[way].append(result)
        results[str(classes)] = runs
        for way, values in runs.items():
            cells = []
            for key, (_, unit) in COLUMNS.items():
                if key not in values[0]:
                    cells.append('')
                    continue
                found = [run[key] / unit for run in values]
                spread = f' ± {(max(found) - min(found)) / 2:.2f}' * (len(found) > 1)
                cells.append(f'{statistics.median(found):.2f}{spread}')
            table.add_row(str(classes), way, *cells)
    Console().print(table)
    text = json.dumps(results, indent=2) + '\n'
    atomic_write(arguments.out, lambda stream: stream.write(text.encode()))


def _parse(
    description: str | None, name: str, size: Sequence[int]
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        '--config', default=str(ROOT / 'configs/zegclip/cocostuff_vitb16.py')
    )
    parser.add_argument('--K', type=int, nargs='+', default=[20, 59, 171, 847])
    parser.add_argument(
        '--plain', type=int, default=171, help='no plain way for more classes'
    )
    parser.add_argument(
        '--peers', nargs='*', default=[], choices=PEERS, help='models of mmseg'
    )
    parser.add_argument('--size', type=int, nargs=2, default=[*size])
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--dtype', default='fp32', choices=['fp32', 'bf16'])
    parser.add_argument('--compile', action='store_true', help='the encoder')
    parser.add_argument('--out', type=Path, default=ROOT / f'work_dirs/bench/{name}')
    # Set by the script for its own child processes.
    parser.add_argument('--child', help=argparse.SUPPRESS)
    parser.add_argument('--labels', help=argparse.SUPPRESS)
    return parser.parse_args()


def _run_child(
    arguments: argparse.Namespace, classes: int, way: str
) -> tuple[dict, np.ndarray]:
    """Return what a way costs, and its label map."""
    import numpy as np

    command = [sys.executable, sys.argv[0], '--child', way, '--K', str(classes)]
    for key in ('config', 'threads', 'device', 'dtype'):
        command += [f'--{key}', str(getattr(arguments, key))]
    command += ['--size', *map(str, arguments.size)]
    command += ['--compile'] * arguments.compile
    with tempfile.TemporaryDirectory() as folder:
        command += ['--labels', str(Path(folder) / 'labels.npy')]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1]), np.load(command[-1])
