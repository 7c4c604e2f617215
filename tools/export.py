"""Export a model as one graph that takes pictures and class embeddings.

    python tools/export.py clip_dense/photo_vitb16 --out clip.onnx --classes cat dog

A file that ends in .onnx is for ONNX runtimes (extra "export"), one that ends in .pt2
for torch.export.load. The classes, with their embeddings, are written beside it
(clip.npz); --classes-only writes those of other names for the same graph.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _arguments import add_config_options

FORMATS = ('.onnx', '.pt2')


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    summary, _, rest = (__doc__ or '').partition('\n')
    parser = argparse.ArgumentParser(
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='path or name of a config')
    parser.add_argument(
        'checkpoint', nargs='?', help='trained weights, if anything in the model learns'
    )
    parser.add_argument(
        '--out', required=True, type=Path, metavar='FILE', help='.onnx or .pt2 to write'
    )
    words = parser.add_mutually_exclusive_group()
    words.add_argument(
        '--classes',
        nargs='+',
        metavar='NAME',
        help="names to write beside the graph. Default: the model's own",
    )
    words.add_argument(
        '--names-file',
        type=Path,
        metavar='FILE',
        help='text file with the names in place of --classes, one on each line',
    )
    parser.add_argument(
        '--classes-only',
        action='store_true',
        help='write only the classes (.npz), for a graph that is there already',
    )
    add_config_options(parser)
    args = parser.parse_args(argv)
    if args.out.suffix not in FORMATS:
        parser.error(f'--out must end in {" or ".join(FORMATS)}, got {args.out}')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; mistakes end with status 2, a graph that is wrong with 1."""
    args = parse_args(argv)
    import torch

    from zs3_mmseg.apis import init_segmentor
    from zs3_mmseg.apis.export import (
        TOLERANCE,
        check_onnx,
        export_onnx,
        export_program,
        write_classes,
    )
    from zs3_mmseg.datasets.splits.name_files import read_names
    from zs3_mmseg.engine.launch import one_line_errors
    from zs3_mmseg.engine.runner import route_mmengine_loading
    from zs3_mmseg.utils.console import typed_text

    with one_line_errors():
        route_mmengine_loading()
        model: Any = init_segmentor(
            args.config, args.checkpoint, cfg_options=args.cfg_options
        )
        if args.names_file is not None:
            model.set_classes(read_names(args.names_file))
        elif args.classes:
            model.set_classes([typed_text(name) for name in args.classes])
        args.out.parent.mkdir(parents=True, exist_ok=True)
        beside = args.out.with_suffix('.npz')
        write_classes(model, beside)
        print(f'Written: {beside} ({len(model.class_names)} classes)')
        if args.classes_only:
            return 0
        if args.out.suffix == '.pt2':
            torch.export.save(export_program(model), args.out)
        else:
            export_onnx(model, args.out)
        print(f'Written: {args.out} ({args.out.stat().st_size / 2**20:.1f} MiB)')
        if args.out.suffix == '.onnx':
            difference = check_onnx(model, args.out)
            print(f'Largest difference of scores to the model: {difference:.1e}')
            return 0 if difference <= TOLERANCE else 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
