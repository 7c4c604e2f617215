"""Claim: what ESDA scores when it is asked for all classes of Shapes at once.

``python benchmarks/shapes_esda_gzs3.py`` trains with names that are absent from their
image and without, and tests with the image-level gate and without; see
``benchmarks/shapes_methods.py`` for the flags.
"""

from __future__ import annotations

from _comparison import ROOT, SPLITS, compare, parse_args

from zs3_mmseg.utils.experiments import Method

CONFIG = ROOT / 'configs/esda/shapes_tiny_gzs3.py'
NO_GATE: dict[str, object] = {'model.calibrators': []}
NO_NEGATIVES: dict[str, object] = {'train_dataloader.dataset.negatives': 0.0}
METHODS = (
    Method('esda_gzs3', CONFIG, trained=True),
    Method('esda_gzs3_no_gate', CONFIG, trained=True, options=NO_GATE),
    Method('esda_gzs3_no_negatives', CONFIG, trained=True, options=NO_NEGATIVES),
    Method(
        'esda_gzs3_neither', CONFIG, trained=True, options={**NO_GATE, **NO_NEGATIVES}
    ),
)

if __name__ == '__main__':
    compare(METHODS, parse_args(__doc__, METHODS, SPLITS), 'shapes_esda_gzs3.json')
