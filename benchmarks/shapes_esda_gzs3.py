"""Claim: what ESDA scores when it is asked for all classes of Shapes at once.

``python benchmarks/shapes_esda_gzs3.py`` trains with names that are absent from their
image and without, tests each with the image-level gate and without on 200 test scenes,
prints mean and spread, and can be interrupted and started again.
"""

from __future__ import annotations

from _comparison import ROOT, SPLITS, compare, parse_args

from zs3_mmseg.utils.experiments import Method

CONFIG = ROOT / 'configs/esda/shapes_tiny_gzs3.py'
# Every name is a pass of its own, so a third of the test scenes takes long enough.
SCENES: dict[str, object] = {'test_dataloader.dataset.dataset.num_images': 200}
NO_NEGATIVES = {**SCENES, 'train_dataloader.dataset.negatives': 0.0}
METHODS = (
    Method('esda_gzs3', CONFIG, trained=True, options=SCENES),
    Method('esda_gzs3_no_negatives', CONFIG, trained=True, options=NO_NEGATIVES),
)
#: The gate needs no training.
NO_GATE = {**SCENES, 'model.calibrators': []}
WITHOUT_GATE = {
    method.name: [Method(f'{method.name}_no_gate', CONFIG, options=NO_GATE)]
    for method in METHODS
}


def main() -> None:
    args = parse_args(__doc__, METHODS, SPLITS)
    compare(METHODS, args, 'shapes_esda_gzs3.json', tests=WITHOUT_GATE)


if __name__ == '__main__':
    main()
