"""Claim: context, adversary, content loss and KL term of CaGNet, one by one, on Shapes.

``python benchmarks/cagnet_shapes.py`` trains CaGNet on the frozen tiny CLIP, as a whole
and with one part taken away at a time, and what has the same features: the linear
classifier alone, the regression to class vectors, and ZS3Net. It prints mean and
spread, and can be interrupted and started again; ``--methods`` chooses some of them.
"""

from __future__ import annotations

from _comparison import ROOT, compare, parse_args

from zs3_mmseg.utils.experiments import Method

CONFIGS = ROOT / 'configs'


def without(name: str, weight: str) -> Method:
    """Return CaGNet with the weight of a loss at 0."""
    steps = ('joint', 'real')
    return Method(
        f'no_{name}',
        CONFIGS / 'cagnet/shapes_clip.py',
        trained=True,
        options={f'model.loss_weights.{step}.{weight}': 0.0 for step in steps},
    )


METHODS = [
    Method('cagnet', CONFIGS / 'cagnet/shapes_clip.py', trained=True),
    Method(
        'no_context',
        CONFIGS / 'cagnet/shapes_clip.py',
        trained=True,
        options={'model.decode_head.context': None},
    ),
    without('discriminator', 'adversarial'),
    without('content', 'content'),
    without('kl', 'kl'),
    *(
        Method(name, CONFIGS / f'zs3net/{config}.py', trained=True)
        for name, config in (
            ('zs3net', 'shapes_clip'),
            ('baseline', 'shapes_clip_baseline'),
            ('cosine', 'shapes_clip_cosine'),
        )
    ),
]


def main() -> None:
    compare(METHODS, parse_args(__doc__, METHODS, ['shapes_a']), 'cagnet_shapes.json')


if __name__ == '__main__':
    main()
