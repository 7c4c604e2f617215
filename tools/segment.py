"""Segment your own pictures with your own words.

    python tools/segment.py photo.jpg --classes star "two words" "cup|mug" --out-dir out

For each picture three files appear in the output folder: NAME_overlay.png (the regions
drawn over the picture, with a legend), NAME_labels.png (an indexed picture whose values
are the classes) and NAME.json (names, shares of pixels, colours). Without --config the
small model that ships with the package is used: it was trained on drawn scenes, to show
the whole way, and knows few words.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmengine.config import DictAction

if TYPE_CHECKING:
    from rich.table import Table

    from zs3_mmseg.apis import OutputNames, Segmentation, ZeroShotInferencer

# What goes wrong with one picture and leaves the others alone; torch reports memory
# that is used up as a RuntimeError.
PICTURE_ERRORS = (OSError, ValueError, RuntimeError, MemoryError)
LISTED_CLASSES = 4


def opacity(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'expected a number from 0 to 1, got {text}')
    return value


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    summary, _, rest = (__doc__ or '').partition('\n')
    parser = argparse.ArgumentParser(
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'images', nargs='+', metavar='IMG', help='pictures, folders or glob patterns'
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        metavar='NAME',
        help='any names; synonyms joined by |, as in "sofa|couch". '
        "Default: the model's own classes",
    )
    parser.add_argument(
        '--out-dir', required=True, type=Path, help='folder for the results'
    )
    parser.add_argument(
        '--config', help='path or name of a config. Default: the shipped model'
    )
    parser.add_argument('--checkpoint', help='trained weights for the config')
    parser.add_argument(
        '--unseen',
        nargs='+',
        metavar='NAME',
        help='names of --classes to treat as unseen. Default: all that had no masks '
        'in training',
    )
    parser.add_argument(
        '--device',
        help='such as cpu or cuda:0. Default: an accelerator if there is one',
    )
    parser.add_argument(
        '--opacity',
        type=opacity,
        default=0.6,
        help='of the colours over the picture, 0 to 1. Default: 0.6',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that replace those of the config',
    )
    args = parser.parse_args(argv)
    for name in args.classes or ():
        if Path(name).is_file():
            parser.error(
                f'--classes: {name!r} is a file; give the pictures before --classes'
            )
    if args.out_dir.exists() and not args.out_dir.is_dir():
        parser.error(f'--out-dir: {str(args.out_dir)!r} is no folder')
    if args.unseen and not args.classes:
        parser.error('--unseen: the names of --classes are needed, too')
    if args.checkpoint and not args.config:
        parser.error('--checkpoint: the --config it belongs to is needed, too')
    return args


def complain(text: object) -> None:
    print(f'error: {text}', file=sys.stderr, flush=True)


def describe(error: BaseException, path: Path) -> str:
    """Return one line that begins with the file."""
    text = ' '.join(str(error).split()) or type(error).__name__
    return text if text.startswith(str(path)) else f'{path}: {text}'


def build_inferencer(args: argparse.Namespace) -> ZeroShotInferencer:
    """Build the model and set its vocabulary, or end with status 2."""
    from zs3_mmseg.apis import DEFAULT_CONFIG, ZeroShotInferencer
    from zs3_mmseg.engine.launch import one_line_errors
    from zs3_mmseg.engine.runner import route_mmengine_loading
    from zs3_mmseg.models.class_embeddings import split_names

    route_mmengine_loading()
    with one_line_errors():
        if args.classes:
            split_names(args.classes)  # before anything large is built
        args.out_dir.mkdir(parents=True, exist_ok=True)
        return ZeroShotInferencer(
            args.config or DEFAULT_CONFIG,
            args.checkpoint,
            args.classes,
            args.device,
            unseen=args.unseen,
            cfg_options=args.cfg_options,
        )


def count_pictures(number: int) -> str:
    return f'{number} picture' if number == 1 else f'{number} pictures'


def new_table() -> Table:
    from rich.table import Table

    table = Table(title='Segmented pictures')
    table.add_column('picture', overflow='fold')
    table.add_column('size', justify='right')
    table.add_column('found')
    table.add_column('results', no_wrap=True)
    table.add_column('seconds', justify='right')
    return table


def list_found(segmentation: Segmentation) -> str:
    """Return the largest classes of a picture with their shares."""
    from zs3_mmseg.visualization import as_percent

    shares = segmentation.shares
    order = [index for index in (-shares).argsort(kind='stable') if shares[index] > 0]
    parts = [
        f'{segmentation.display_names[index]} {as_percent(shares[index])}'
        for index in order[:LISTED_CLASSES]
    ]
    more = len(order) - LISTED_CLASSES
    return ', '.join(parts + [f'{more} more'] * (more > 0)) or 'none of the classes'


def segment_one(
    path: Path,
    inferencer: ZeroShotInferencer,
    names: OutputNames,
    table: Table,
    alpha: float,
) -> None:
    """Segment one picture, write its results and add its row to the table."""
    from rich.text import Text

    began = time.perf_counter()
    segmentation, _ = inferencer.segment(path)
    overlay, _, _ = inferencer.write(segmentation, names, path.stem, alpha=alpha)
    height, width = segmentation.labels.shape
    cells = [
        str(path),
        f'{width} x {height}',
        list_found(segmentation),
        overlay.name,
        f'{time.perf_counter() - began:.1f}',
    ]
    # As plain text: names may hold brackets, which rich would take for markup.
    table.add_row(*(Text(cell) for cell in cells))
    for note in segmentation.notes:
        print(f'note: {path}: {note}', file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool.

    Returns:
        0 if every picture was segmented, 1 if there was any that could not be.
        Mistakes in the arguments end with status 2.
    """
    args = parse_args(argv)
    # Imported only now: --help and typing mistakes need not wait for torch.
    from rich.console import Console
    from rich.progress import track

    from zs3_mmseg.apis import OutputNames, collect_files
    from zs3_mmseg.engine.launch import TRACEBACK_ENV

    inferencer = build_inferencer(args)
    files, problems = collect_files(args.images)
    names = OutputNames(args.out_dir, files)
    table = new_table()
    progress = track(
        files,
        'Segmenting',
        console=Console(stderr=True),
        transient=True,
        disable=len(files) < 2,
    )
    for path in progress:
        try:
            segment_one(path, inferencer, names, table, args.opacity)
        except PICTURE_ERRORS as error:
            if os.environ.get(TRACEBACK_ENV) == '1':
                raise
            problems.append(describe(error, path))
    console = Console()
    if table.row_count:
        console.print(table)
    for problem in problems:
        complain(problem)
    console.print(
        f'{count_pictures(table.row_count)} segmented, {len(problems)} failed; '
        f'results in {args.out_dir}',
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
