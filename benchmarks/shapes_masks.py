"""Claim: how methods that find masks first and name them second compare on Shapes.

``python benchmarks/shapes_masks.py`` runs them, dense CLIP and ZegCLIP through
``tools/train.py`` and ``tools/test.py``, prints mean and spread, and can be interrupted
and started again.
"""

from __future__ import annotations

from _comparison import ROOT, SPLITS, compare, parse_args

from zs3_mmseg.utils.experiments import Method

TRAINED = (
    ('zegformer_seg', 'zegformer/shapes_tiny_seg'),
    ('zegformer', 'zegformer/shapes_tiny'),
    ('zegformer_clip_seg', 'zegformer/shapes_tiny_clip_seg'),
    ('zegformer_clip', 'zegformer/shapes_tiny_clip'),
    # The tiny CLIP is a transformer: FC-CLIP-style, and not FC-CLIP.
    ('fcclip_style_in', 'fcclip/shapes_tiny_in'),
    ('fcclip_style', 'fcclip/shapes_tiny'),
    ('fcclip_style_lite', 'fcclip/shapes_tiny_lite'),
    ('openseg', 'openseg/shapes_tiny'),
    ('openseg_superpixels', 'openseg/shapes_tiny_superpixels'),
    # With words of unseen classes in the captions: weakly supervised.
    ('openseg_unseen_words', 'openseg/shapes_tiny_unseen_words'),
    ('zegclip', 'zegclip/shapes_tiny'),
)
METHODS = [
    Method('dense_clip', ROOT / 'configs/clip_dense/shapes_tiny.py'),
    *(
        Method(name, ROOT / f'configs/{path}.py', trained=True)
        for name, path in TRAINED
    ),
]


def main() -> None:
    args = parse_args(__doc__, METHODS, SPLITS)
    compare(METHODS, args, 'shapes_masks.json')


if __name__ == '__main__':
    main()
