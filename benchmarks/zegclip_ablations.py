"""Claim: what each part of ZegCLIP adds on Shapes, over several seeds.

``python benchmarks/zegclip_ablations.py`` trains and tests ZegCLIP, its form with
cross-entropy, its self-training and every config of ``configs/shapes/ablations`` on one
split, prints mean and spread, and can be interrupted and started again.
"""

from __future__ import annotations

from _comparison import ROOT, compare, parse_args

from zs3_mmseg.utils.experiments import Method

CONFIGS = ROOT / 'configs'
ZEGCLIP = {
    'zegclip': 'shapes_tiny.py',
    'zegclip_ce': 'shapes_tiny_ce.py',
    'transductive': 'shapes_tiny_transductive_onerun.py',
    'transductive_ema': 'shapes_tiny_transductive_ema.py',
}
METHODS = [
    *(
        Method(name, CONFIGS / 'zegclip' / path, trained=True)
        for name, path in ZEGCLIP.items()
    ),
    *(
        Method(path.stem, path, trained=True)
        for path in sorted((CONFIGS / 'shapes/ablations').glob('*.py'))
    ),
]


def main() -> None:
    args = parse_args(__doc__, METHODS, ['shapes_a'])
    compare(METHODS, args, 'zegclip_ablations.json')


if __name__ == '__main__':
    main()
