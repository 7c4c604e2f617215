"""Draw what segmentors make of the same scenes of Shapes.

``draw_shapes.py OUT.png --model TITLE CONFIG [CHECKPOINT] --model ...``
"""

from __future__ import annotations

import argparse
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Draw image, truth and predictions of the first test scenes that '
        'hold an unseen class and at least two things.'
    )
    parser.add_argument('out', type=Path, help='the picture, a .png')
    parser.add_argument(
        '--model',
        nargs='+',
        action='append',
        required=True,
        metavar='WORD',
        help='TITLE CONFIG [CHECKPOINT] of a column; may be repeated',
    )
    parser.add_argument('--split', default='shapes_a', help='of all of them')
    parser.add_argument('--scenes', type=int, default=4, help='number of rows')
    parser.add_argument(
        '--errors',
        action='store_true',
        help='behind each prediction draw where it is right (blue) and wrong (orange)',
    )
    parser.add_argument('--data-root', type=Path, default=Path('data/shapes'))
    arguments = parser.parse_args()
    for words in arguments.model:
        if not 2 <= len(words) <= 3:
            parser.error(f'--model takes TITLE CONFIG [CHECKPOINT], got {words}')
    if arguments.scenes < 1:
        parser.error(f'--scenes must be at least 1, not {arguments.scenes}')
    return arguments


def main() -> None:
    arguments = parse_args()
    from PIL import Image

    from zs3_mmseg.apis import init_segmentor
    from zs3_mmseg.engine.launch import one_line_errors
    from zs3_mmseg.visualization.sheets import draw_shapes

    with one_line_errors():
        models = ((title, init_segmentor(*files)) for title, *files in arguments.model)
        sheet = draw_shapes(
            models,
            arguments.split,
            arguments.data_root,
            arguments.scenes,
            arguments.errors,
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(arguments.out, optimize=True)


if __name__ == '__main__':
    main()
