"""Claim: what a picture of Shapes costs with each method, as a multiple of dense CLIP.

``python benchmarks/shapes_seconds.py`` builds the config of each method on Shapes with
random weights, on which time does not depend, and times them in turns on the same test
scenes, 20 classes, one picture at a time. Times of eigensegments, which are cached by
image, are those of a picture that was seen before.
"""

from __future__ import annotations

from functools import partial

import torch
from _comparison import ROOT, Checkpoints, options_for, parse_args, report_seconds

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from zs3_mmseg.utils.cache import atomic_write
from zs3_mmseg.utils.experiments import Method

CONFIGS = ROOT / 'configs'
#: Name -> config below ``configs``; times are told as multiples of the first.
METHODS = [
    Method(name, CONFIGS / f'{config}.py', trained=name not in ('dense_clip',))
    for name, config in {
        'dense_clip': 'clip_dense/shapes_tiny',
        'dense_clip_gate': 'clip_dense/shapes_tiny_gate',
        'specfuse_training_free': 'specfuse/shapes_tiny_training_free',
        'specfuse': 'specfuse/shapes_tiny',
        'zegclip': 'zegclip/shapes_tiny',
        'zegclip_ce': 'zegclip/shapes_tiny_ce',
        'guided': 'guided/shapes_tiny',
        'otseg': 'otseg/shapes_tiny',
        'cascade_clip': 'cascade_clip/shapes_tiny',
        'clip_rc': 'clip_rc/shapes_tiny',
        'tagclip': 'tagclip/shapes_tiny',
        'spt_seg': 'spt_seg/shapes_tiny',
        'object_centric': 'object_centric/shapes_tiny',
        'lseg_clip': 'lseg/shapes_tiny_clip',
        'lseg': 'lseg/shapes_tiny',
        'sazs': 'sazs/shapes_tiny_gzs3',
        'esda': 'esda/shapes_tiny_gzs3',
        'zegformer': 'zegformer/shapes_tiny_clip',
        'fcclip': 'fcclip/shapes_tiny',
    }.items()
]


def main() -> None:
    args = parse_args(__doc__, METHODS, ['shapes_a'])
    checkpoints: Checkpoints = {}
    for method in METHODS:
        if method.name not in args.methods:
            continue
        config = Config.fromfile(method.config)
        options = options_for(method, args.splits[0], args.seeds[0], args)
        config.merge_from_dict({k: v for k, v in options.items() if 'model' in k})
        torch.manual_seed(args.seeds[0])
        with DefaultScope.overwrite_default_scope('mmseg'):
            state = MODELS.build(config.model).state_dict()
        weights = args.work_dir / 'random_weights' / f'{method.name}.pth'
        atomic_write(weights, partial(torch.save, state))
        checkpoints[method.name] = (method, str(weights))
    report_seconds({}, checkpoints, args, 'shapes_seconds.json')


if __name__ == '__main__':
    main()
