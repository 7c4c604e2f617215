"""Claim: what parts of several members of ZegCLIP's family give together on Shapes.

``python benchmarks/shapes_combinations.py`` trains combinations that none of the papers
tried, with as many iterations as ``shapes_zegclip_family.py`` and
``shapes_guided.py``, which have the members alone. It prints mean and spread, and can
be interrupted and started again.
"""

from __future__ import annotations

from _comparison import ROOT, compare, parse_args

from zs3_mmseg.utils.experiments import Method

HEAD = 'model.decode_head'
#: Softmax cross-entropy in place of the non-exclusive loss and its calibration.
CROSS_ENTROPY: dict[str, object] = {
    f'{HEAD}.loss_decode': None,
    f'{HEAD}.mask_bias': None,
    'model.calibrators': [],
}
#: Cascade-CLIP's middle blocks, through the tower's own projection.
TAPS: dict[str, object] = {
    'model.backbone.out_indices': [1, 2, 3, 4, -1],
    'model.backbone.tap_projection': 'clip',
    f'{HEAD}.tap_groups': [[0, 1], [2, 3]],
}
#: Masks that follow outlines.
GUIDED: dict[str, object] = {f'{HEAD}.type': 'GuidedHead'}
#: SPT-SEG's filters.
SPECTRAL: dict[str, object] = {
    'model.backbone.spectral.blocks': [0, 1],
    'model.backbone.spectral.train': True,
}
COMBINATIONS = (
    ('otseg_ce', 'otseg', CROSS_ENTROPY),
    ('otseg_taps', 'otseg', TAPS),
    ('cascade_clip_ce', 'cascade_clip', CROSS_ENTROPY),
    ('clip_rc_taps', 'clip_rc', TAPS),
    ('zegclip_spectral', 'zegclip', SPECTRAL),
    ('otseg_guided_ce', 'otseg', {**CROSS_ENTROPY, **GUIDED}),
    ('cascade_clip_guided_ce', 'cascade_clip', {**CROSS_ENTROPY, **GUIDED}),
    ('clip_rc_guided_ce', 'clip_rc', {**CROSS_ENTROPY, **GUIDED}),
)
METHODS = [
    Method(name, ROOT / f'configs/{base}/shapes_tiny.py', trained=True, options=options)
    for name, base, options in COMBINATIONS
]


def main() -> None:
    args = parse_args(__doc__, METHODS, ['shapes_a'])
    compare(METHODS, args, 'shapes_combinations.json', 'shapes_combinations_times.json')


if __name__ == '__main__':
    main()
