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
#: Masks that follow outlines, learnt as in ``configs/guided``.
GUIDED: dict[str, object] = {
    f'{HEAD}.type': 'GuidedHead',
    'optim_wrapper.paramwise_cfg.custom_keys.upsampler.lr_mult': 10.0,
}
#: SPT-SEG's filters.
SPECTRAL: dict[str, object] = {
    'model.backbone.spectral.blocks': [0, 1],
    'model.backbone.spectral.train': True,
}
COMBINATIONS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ('otseg_ce', 'otseg/shapes_tiny', CROSS_ENTROPY),
    ('otseg_taps', 'otseg/shapes_tiny', TAPS),
    ('cascade_clip_ce', 'cascade_clip/shapes_tiny_ce', {}),
    ('clip_rc_taps', 'clip_rc/shapes_tiny', TAPS),
    ('zegclip_spectral', 'zegclip/shapes_tiny', SPECTRAL),
    ('otseg_guided_ce', 'otseg/shapes_tiny', {**CROSS_ENTROPY, **GUIDED}),
    ('cascade_clip_guided_ce', 'guided/shapes_tiny_cascade', {}),
    ('clip_rc_guided_ce', 'clip_rc/shapes_tiny', {**CROSS_ENTROPY, **GUIDED}),
)
METHODS = [
    Method(name, ROOT / f'configs/{path}.py', trained=True, options=options)
    for name, path, options in COMBINATIONS
]


def main() -> None:
    args = parse_args(__doc__, METHODS, ['shapes_a'])
    compare(METHODS, args, 'shapes_combinations.json', 'shapes_combinations_times.json')


if __name__ == '__main__':
    main()
