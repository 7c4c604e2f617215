"""Claim: how the methods compare on Shapes, over three splits and several seeds.

``python benchmarks/shapes_methods.py`` runs every method through ``tools/train.py`` and
``tools/test.py``, prints mean and spread, and can be interrupted and started again.
The gate's weight is the config's own, which was chosen on val scenes of ``shapes_a``.
"""

from __future__ import annotations

from _comparison import ROOT, SPLITS, compare, parse_args

from zs3_mmseg.utils.experiments import shapes_methods

METHODS = shapes_methods(ROOT / 'configs')


def main() -> None:
    compare(METHODS, parse_args(__doc__, METHODS, SPLITS), 'shapes_methods.json')


if __name__ == '__main__':
    main()
