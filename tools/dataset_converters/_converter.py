"""The command line that the converters share."""

from __future__ import annotations

import argparse

from zs3_mmseg.datasets.preparation import BENCHMARKS, convert_labels
from zs3_mmseg.engine.launch import one_line_errors


def main(name: str, summary: str) -> None:
    """Convert the label maps of one benchmark.

    Args:
        name: which benchmark.
        summary: what the converter does, for ``--help``.
    """
    parser = argparse.ArgumentParser(
        description=summary,
        epilog='Files that are there already stay as they are. tools/prepare_data.py '
        'does this, brings the images into place and counts them.',
    )
    parser.add_argument('source', help='folder or archive with the official files')
    parser.add_argument(
        '-o',
        '--out-dir',
        default=BENCHMARKS[name].root,
        help='folder of the data set; default: %(default)s',
    )
    parser.add_argument('--workers', type=int, help='default: one per processor')
    arguments = parser.parse_args()
    if arguments.workers is not None and arguments.workers < 1:
        parser.error(f'--workers must be 1 or more, got {arguments.workers}')
    with one_line_errors(OSError, ValueError, ImportError):
        written = convert_labels(
            name,
            arguments.source,
            arguments.out_dir,
            workers=arguments.workers,
            progress=True,
        )
    print(f'{written:,} files written below {arguments.out_dir}')
