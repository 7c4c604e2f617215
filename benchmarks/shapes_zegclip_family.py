"""Claim: how ZegCLIP and its descendants compare on Shapes, with equal iterations.

``python benchmarks/shapes_zegclip_family.py`` runs every member of the family through
``tools/train.py`` and ``tools/test.py``, prints mean and spread, and can be interrupted
and started again.
"""

from __future__ import annotations

from _comparison import ROOT, SPLITS, compare, parse_args

from zs3_mmseg.utils.experiments import Method

MEMBERS = (
    ('zegclip', 'zegclip/shapes_tiny'),
    ('zegclip_ce', 'zegclip/shapes_tiny_ce'),
    ('otseg', 'otseg/shapes_tiny'),
    ('cascade_clip', 'cascade_clip/shapes_tiny'),
    ('cascade_clip_taps', 'cascade_clip/shapes_tiny_clip_taps'),
    ('clip_rc', 'clip_rc/shapes_tiny'),
    ('clip_rc_trained_tokens', 'clip_rc/shapes_tiny_trained_tokens'),
    ('object_centric', 'object_centric/shapes_tiny'),
    ('spt_seg', 'spt_seg/shapes_tiny'),
    # Its training knows where unseen pixels are.
    ('tagclip_leaks', 'tagclip/shapes_tiny'),
    ('tagclip_no_gate_leaks', 'tagclip/shapes_tiny_no_gate'),
)
METHODS = [
    Method(name, ROOT / f'configs/{path}.py', trained=True) for name, path in MEMBERS
]


def main() -> None:
    args = parse_args(__doc__, METHODS, SPLITS)
    compare(METHODS, args, 'shapes_zegclip_family.json')


if __name__ == '__main__':
    main()
