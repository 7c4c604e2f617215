"""Claim: a segmentor finds classes on Shapes that it never had masks of.

``python benchmarks/zs3net_shapes.py`` trains a small network from scratch, and a linear
classifier on the frozen tiny CLIP, alone, with generated features of the unseen
classes, and as a regression to class vectors; CaGNet learns beside it on the same
frozen features. It prints mean and spread, and can be interrupted and started again;
``--methods`` chooses some of the seven.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from _comparison import ROOT, compare, parse_args

from zs3_mmseg.utils.experiments import Method

CONFIGS = ROOT / 'configs'
METHODS = [
    Method(name, CONFIGS / f'{config}.py', trained=True)
    for name, config in (
        ('baseline', 'zs3net/shapes_convnet_baseline'),
        ('cosine', 'zs3net/shapes_convnet_cosine'),
        ('zs3net', 'zs3net/shapes_convnet'),
        ('clip_baseline', 'zs3net/shapes_clip_baseline'),
        ('clip_cosine', 'zs3net/shapes_clip_cosine'),
        ('clip_zs3net', 'zs3net/shapes_clip'),
        ('clip_cagnet', 'cagnet/shapes_clip'),
    )
]


def shortened(method: Method, iterations: int) -> Method:
    """Return a method whose phases fit into a run of so many iterations."""
    if not method.name.endswith('zs3net'):
        return method
    third = iterations // 3
    hook = 'custom_hooks.1'  # the first one checks the protocol
    phases: Mapping[str, object] = {
        f'{hook}.segmentor_iters': third,
        f'{hook}.generator_iters': third,
    }
    return replace(method, options={**method.options, **phases})


def main() -> None:
    args = parse_args(__doc__, METHODS, ['shapes_a'])
    methods = METHODS
    if args.iterations is not None:
        methods = [shortened(method, args.iterations) for method in METHODS]
    compare(methods, args, 'zs3net_shapes.json')


if __name__ == '__main__':
    main()
