"""Write Shapes as a folder of images, masks and names: ``export_shapes.py OUT``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from rich.progress import track

from zs3_mmseg.datasets.folder import CAPTIONS, IMAGES, MASKS
from zs3_mmseg.datasets.shapes.scene import file_stem, render_scene, write_png
from zs3_mmseg.datasets.shapes.vocabulary import CLASSES, PALETTE, VOID
from zs3_mmseg.datasets.splits import get_split, split_names
from zs3_mmseg.datasets.splits.name_files import CLASSES_FILE, UNSEEN_FILE
from zs3_mmseg.engine.launch import one_line_errors

VOID_COLOUR = (0, 0, 0)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write Shapes as a folder that FolderSegDataset reads'
    )
    parser.add_argument('out', type=Path, help='the folder')
    parser.add_argument('--train', type=int, default=200, help='number of images')
    parser.add_argument('--val', type=int, default=50, help='number of images')
    parser.add_argument('--seed', type=int, default=0, help='seed of the world')
    parser.add_argument(
        '--split',
        default='shapes_a',
        choices=[name for name in split_names() if get_split(name).classes == CLASSES],
        help='who is unseen',
    )
    parser.add_argument(
        '--colours', action='store_true', help='draw the masks in colours'
    )
    arguments = parser.parse_args()
    if min(arguments.train, arguments.val) < 1 or arguments.seed < 0:
        parser.error('--train and --val must be 1 or more, --seed 0 or more')
    return arguments


def write_subset(
    folder: Path, subset: str, count: int, seed: int, colours: bool
) -> None:
    """Draw the first scenes of a subset into ``images/``, ``masks/``, ``captions/``."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(PALETTE)], table[VOID] = PALETTE, VOID_COLOUR
    for kind in (IMAGES, MASKS):
        (folder / kind / subset).mkdir(parents=True, exist_ok=True)
    captions = {}
    for index in track(range(count), subset):
        scene = render_scene(seed, subset, index)
        name = f'{file_stem(index)}.png'
        captions[file_stem(index)] = scene.caption
        mask = table[scene.mask][..., ::-1] if colours else scene.mask
        # OpenCV writes its third channel as red.
        write_png(folder / IMAGES / subset / name, scene.image[..., ::-1])
        write_png(folder / MASKS / subset / name, np.ascontiguousarray(mask))
    (folder / CAPTIONS).mkdir(exist_ok=True)
    text = json.dumps(captions, indent=1) + '\n'
    (folder / CAPTIONS / f'{subset}.json').write_text(text)


def export(arguments: argparse.Namespace) -> None:
    split = get_split(arguments.split)
    out = arguments.out
    for subset, count in (('train', arguments.train), ('val', arguments.val)):
        write_subset(out, subset, count, seed=arguments.seed, colours=arguments.colours)
    (out / CLASSES_FILE).write_text('\n'.join(CLASSES) + '\n')
    (out / UNSEEN_FILE).write_text('\n'.join(split.unseen) + '\n')
    if arguments.colours:
        entries = [*zip(PALETTE, CLASSES, strict=True), (VOID_COLOUR, 'void')]
        lines = [' '.join(map(str, (*colour, name))) for colour, name in entries]
        (out / 'palette.txt').write_text('\n'.join(lines) + '\n')


def main() -> None:
    arguments = parse_args()
    with one_line_errors():
        export(arguments)
    print(f'{arguments.train} + {arguments.val} images are in {arguments.out}')


if __name__ == '__main__':
    main()
