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
)
METHODS = [
    Method(name, ROOT / f'configs/{path}.py', trained=True) for name, path in MEMBERS
]


def main() -> None:
    args = parse_args(__doc__, METHODS, SPLITS)
    compare(METHODS, args, 'shapes_zegclip_family.json')


if __name__ == '__main__':
    main()
