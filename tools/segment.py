"""Segment your own pictures with your own words.

    python tools/segment.py photo.jpg --classes star "two words" "cup|mug" --out-dir out

For each picture three files appear in the output folder: NAME_overlay.png (the regions
drawn over the picture, with a legend), NAME_labels.png (an indexed picture whose values
are the classes) and NAME.json (names, shares of pixels, colours); with --heat-maps a
fourth, NAME_heat.png, that shows where each word was found. Without --config the
small model that ships with the package is used: it was trained on drawn scenes, to show
the whole way, and knows few words.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from _arguments import add_config_options, at_least_one

if TYPE_CHECKING:
    from rich.table import Table

    from zs3_mmseg.apis import OutputNames, Segmentation, ZeroShotInferencer
    from zs3_mmseg.apis.inputs import PictureFile

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
        'images',
        nargs='+',
        metavar='IMG',
        help='pictures, folders (with all folders below), glob patterns, http(s) '
        'addresses, videos, or camera:0 for the first camera; - reads them from '
        'standard input, one on each line',
    )
    parser.add_argument(
        '--no-recursive',
        action='store_true',
        help='leave out the folders below a folder',
    )
    words = parser.add_mutually_exclusive_group()
    words.add_argument(
        '--classes',
        nargs='+',
        metavar='NAME',
        help='any names; synonyms joined by |, as in "sofa|couch". '
        "Default: the model's own classes",
    )
    words.add_argument(
        '--names-file',
        type=Path,
        metavar='FILE',
        help='text file with the names in place of --classes, one on each line',
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
        help='names of --classes or --names-file to treat as unseen. Default: all that '
        'had no masks in training',
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
        '--heat-maps',
        action='store_true',
        help='write the scores of each word as a heat map, too',
    )
    video = parser.add_argument_group(
        'videos and cameras',
        'NAME_overlay.mp4 and NAME.json are written; Ctrl-C ends a film where it is',
    )
    video.add_argument(
        '--every',
        type=at_least_one,
        default=1,
        metavar='N',
        help='take every Nth frame. Default: 1',
    )
    video.add_argument(
        '--max-frames', type=at_least_one, metavar='N', help='end after so many frames'
    )
    video.add_argument(
        '--frame-files',
        action='store_true',
        help='write for each frame what is written for a picture, too',
    )
    add_config_options(parser)
    args = parser.parse_args(argv)
    for name in args.classes or ():
        # Unlike Path.is_file, it takes names of any length.
        if os.path.isfile(name):
            parser.error(
                f'--classes: {name!r} is a file; give the pictures before --classes, '
                'and a file of names as --names-file'
            )
    if args.out_dir.exists() and not args.out_dir.is_dir():
        parser.error(f'--out-dir: {str(args.out_dir)!r} is no folder')
    if args.unseen and not (args.classes or args.names_file):
        parser.error('--unseen: the names of --classes are needed, too')
    if args.checkpoint and not args.config:
        parser.error('--checkpoint: the --config it belongs to is needed, too')
    return args


def complain(text: object) -> None:
    print(f'error: {text}', file=sys.stderr, flush=True)


def describe(error: BaseException, source: object) -> str:
    """Return one line that begins with the file or whatever it came from."""
    text = ' '.join(str(error).split()) or type(error).__name__
    return text if text.startswith(str(source)) else f'{source}: {text}'


def names_given(args: argparse.Namespace) -> list[str] | None:
    """Return the names of the command line, checked; None for the model's own."""
    from zs3_mmseg.datasets.splits.name_files import read_names
    from zs3_mmseg.models.class_embeddings import split_names
    from zs3_mmseg.utils.console import typed_text

    if args.names_file is not None:
        names = read_names(args.names_file)
    elif args.classes:
        names = [typed_text(name) for name in args.classes]
    else:
        return None
    split_names(names)
    return names


def read_list(lines: Iterable[str]) -> list[str]:
    """Return the names on lines that are not empty."""
    return [line.rstrip('\n') for line in lines if line.strip()]


def find_inputs(
    args: argparse.Namespace,
) -> tuple[list[PictureFile], list[Path | int], list[str]]:
    """Return the files that look like pictures, the videos, and what is wrong."""
    from zs3_mmseg.apis import collect_files
    from zs3_mmseg.apis.inputs import require_readable
    from zs3_mmseg.apis.video import camera_number, is_video

    named = [
        path
        for item in args.images
        for path in (read_list(sys.stdin) if item == '-' else [item])
    ]
    cameras = {item: camera_number(item) for item in named}
    videos: list[Path | int] = [n for n in cameras.values() if n is not None]
    files, problems = collect_files(
        [item for item in named if cameras[item] is None],
        recursive=not args.no_recursive,
    )
    pictures: list[PictureFile] = []
    for file in files:
        if isinstance(file, Path) and is_video(file):
            videos.append(Path(file))
            continue
        try:
            require_readable(file)
        except OSError as error:
            problems.append(describe(error, file))
        else:
            pictures.append(file)
    return pictures, videos, problems


def build_inferencer(
    args: argparse.Namespace, names: list[str] | None
) -> ZeroShotInferencer:
    from zs3_mmseg.apis import DEFAULT_CONFIG, ZeroShotInferencer
    from zs3_mmseg.engine.runner import route_mmengine_loading
    from zs3_mmseg.utils.console import typed_text

    route_mmengine_loading()
    return ZeroShotInferencer(
        args.config or DEFAULT_CONFIG,
        args.checkpoint,
        names,
        args.device,
        unseen=args.unseen and [typed_text(name) for name in args.unseen],
        cfg_options=args.cfg_options,
        return_scores=args.heat_maps,
    )


def count_of(number: int, kind: str) -> str:
    return f'{number} {kind}' if number == 1 else f'{number} {kind}s'


def new_table() -> Table:
    from rich.table import Table

    # No column claims more than the others can do without on a narrow console.
    table = Table(title='Segmented pictures')
    for heading in ('picture', 'found', 'drawn as'):
        table.add_column(heading, overflow='fold')
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


def name_of(source: object) -> str:
    return f'camera {source}' if isinstance(source, int) else str(source)


def segment_one(
    source: PictureFile | int,
    inferencer: ZeroShotInferencer,
    names: OutputNames,
    args: argparse.Namespace,
) -> tuple[Path, Segmentation]:
    """Segment a picture or a video; return the drawing and the (last) result."""
    from zs3_mmseg.apis import segment_video
    from zs3_mmseg.apis.video import is_video

    if isinstance(source, int) or is_video(source):
        return segment_video(
            inferencer,
            source,
            names,
            step=args.every,
            most=args.max_frames,
            alpha=args.opacity,
            frame_files=args.frame_files,
        )
    segmentation, _ = inferencer.segment(source)
    drawing, *_ = inferencer.write(segmentation, names, source.stem, alpha=args.opacity)
    return drawing, segmentation


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool.

    Returns:
        0 if everything was segmented, 1 if there was anything that could not be.
        Mistakes in the arguments end with status 2.
    """
    args = parse_args(argv)
    # Imported only now: --help and typing mistakes need not wait for torch.
    from rich.console import Console
    from rich.progress import track
    from rich.text import Text

    from zs3_mmseg.apis import OutputNames
    from zs3_mmseg.engine.launch import TRACEBACK_ENV, one_line_errors

    with one_line_errors():
        words = names_given(args)
        pictures, videos, problems = find_inputs(args)
        inputs = [*pictures, *videos]
        if inputs:
            args.out_dir.mkdir(parents=True, exist_ok=True)
            inferencer = build_inferencer(args, words)
    names = OutputNames(args.out_dir, [i for i in inputs if isinstance(i, Path)])
    table = new_table()
    began = time.perf_counter()
    progress = track(
        inputs,
        'Segmenting',
        console=Console(stderr=True),
        transient=True,
        disable=len(inputs) < 2,
    )
    for source in progress:
        name = name_of(source)
        try:
            drawing, segmentation = segment_one(source, inferencer, names, args)
        except PICTURE_ERRORS as error:
            if os.environ.get(TRACEBACK_ENV) == '1':
                raise
            problems.append(describe(error, name))
            continue
        # As plain text: names may hold brackets, which rich would take for markup.
        cells = (name, list_found(segmentation), drawing.name)
        table.add_row(*(Text(cell) for cell in cells))
        for note in segmentation.notes:
            print(f'note: {name}: {note}', file=sys.stderr)
    console = Console()
    if table.row_count:
        console.print(table)
    for problem in problems:
        complain(problem)
    seconds = time.perf_counter() - began
    done = f'; results in {args.out_dir} ({seconds:.1f} s)' if table.row_count else ''
    kind = 'picture' if not videos else 'input'
    console.print(
        f'{count_of(table.row_count, kind)} segmented, {len(problems)} failed{done}',
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
