"""Claim: how methods that find masks first and name them second compare on Shapes.

``python benchmarks/shapes_masks.py`` runs them, dense CLIP and ZegCLIP through
``tools/train.py`` and ``tools/test.py``, prints mean and spread, and can be interrupted
and started again. Every proposer meets every namer; the masks called oracle are the
regions of the GROUND TRUTH without their names, which is no result of a method but the
bound that a namer sets. At the end the time per image is measured, the methods taking
turns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _comparison import ROOT, SPLITS, compare, parse_args
from PIL import Image
from rich.progress import track
from scipy import ndimage

from mmengine.config import Config

from zs3_mmseg.datasets.shapes import ShapesDataset
from zs3_mmseg.utils.experiments import Method

CONFIGS = ROOT / 'configs'
TWO_STAGE = CONFIGS / 'two_stage'
NAMERS = {'pool': '', 'crop': '_crop', 'attn': '_attn'}
TRAINED = (
    ('zegformer_seg', 'zegformer/shapes_tiny_seg'),
    ('zegformer_clip_seg', 'zegformer/shapes_tiny_clip_seg'),
    # The tiny CLIP is a transformer: FC-CLIP-style, and not FC-CLIP.
    ('fcclip_style_in', 'fcclip/shapes_tiny_in'),
    ('fcclip_style_lite', 'fcclip/shapes_tiny_lite'),
    ('openseg', 'openseg/shapes_tiny'),
    ('openseg_superpixels', 'openseg/shapes_tiny_superpixels'),
    # With words of unseen classes in the captions: weakly supervised.
    ('openseg_unseen_words', 'openseg/shapes_tiny_unseen_words'),
    ('zegclip', 'zegclip/shapes_tiny'),
)
#: The same weights, with a second look of CLIP through the masks.
SECOND_LOOKS = {
    first: [Method(name, CONFIGS / f'{path}.py')]
    for first, name, path in (
        ('zegformer_seg', 'zegformer', 'zegformer/shapes_tiny'),
        ('zegformer_clip_seg', 'zegformer_clip', 'zegformer/shapes_tiny_clip'),
        ('fcclip_style_in', 'fcclip_style', 'fcclip/shapes_tiny'),
    )
}
PROPOSERS = ('superpixel', 'eigen', 'oracle')


def two_stage(folder: Path) -> list[Method]:
    """Return every proposer with every namer; configs that are written lie in a folder.

    The masks that are called oracle are in a folder beside them.
    """
    return [
        Method(f'{proposer}_{namer}', folder / f'{proposer}_{namer}.py')
        for proposer in PROPOSERS
        for namer in NAMERS
    ]


def write_configs(folder: Path) -> None:
    """Write the configs of :func:`two_stage`, which differ by their proposers."""
    folder.mkdir(parents=True, exist_ok=True)
    for proposer in PROPOSERS:
        for namer, suffix in NAMERS.items():
            base = TWO_STAGE / f'superpixel_clip_shapes_tiny{suffix}.py'
            lines = [f'_base_ = {str(base)!r}']
            if proposer != 'superpixel':
                masks = dict(_delete_=True, **proposer_of(proposer, folder))
                lines.append(f'model = dict(decode_head=dict(proposer={masks!r}))')
            text = '\n'.join(lines) + '\n'
            (folder / f'{proposer}_{namer}.py').write_text(text)


def proposer_of(name: str, folder: Path) -> dict[str, object]:
    """Return the config of a proposer."""
    if name == 'oracle':
        return dict(type='MaskFileProposer', root=str(folder / 'oracle'))
    config = Config.fromfile(TWO_STAGE / f'{name}_clip_shapes_tiny.py')
    return dict(config.model.decode_head.proposer)


def write_oracle(folder: Path, data_root: Path, subset: str) -> None:
    """Write the connected regions of the true label maps, without their names."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = ShapesDataset(data_root=str(data_root), subset=subset, pipeline=[])
    for scene in track(scenes, 'true regions'):
        path = folder / f'{Path(scene["img_path"]).stem}.npz'
        if path.is_file():
            continue
        label_map = np.asarray(Image.open(scene['seg_map_path']))
        masks = [
            regions == number
            for label in np.unique(label_map)
            for regions, count in [ndimage.label(label_map == label)]
            for number in range(1, count + 1)
        ]
        np.savez_compressed(path, masks=np.stack(masks))


def main() -> None:
    methods = [
        Method('dense_clip', CONFIGS / 'clip_dense/shapes_tiny.py'),
        *two_stage(Path()),
        Method('superpixel_majority', TWO_STAGE / 'superpixel_majority_shapes_tiny.py'),
        *(Method(name, CONFIGS / f'{path}.py', trained=True) for name, path in TRAINED),
    ]
    args = parse_args(__doc__, methods, SPLITS)
    if len(args.subsets) > 1:
        raise SystemExit(
            'Scenes of several subsets have the same file names, by which their true '
            'regions are found: give --subsets one subset at a time'
        )
    subset = args.subsets[0]
    folder = args.work_dir / 'two_stage' / subset
    write_configs(folder)
    write_oracle(folder / 'oracle', args.data_root, subset)
    written = {method.name: method for method in two_stage(folder)}
    compare(
        [written.get(method.name, method) for method in methods],
        args,
        'shapes_masks.json',
        'shapes_masks_seconds.json',
        SECOND_LOOKS,
    )


if __name__ == '__main__':
    main()
