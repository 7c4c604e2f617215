"""Prepare a benchmark: one command from the official files to what the configs read.

    python tools/prepare_data.py voc12 --source ~/Downloads
    python tools/prepare_data.py coco20i --download

Sources are folders and archives with the official files; archives are looked through
before anything is taken from them. What is there already stays as it is, so a second
run changes nothing, and one that was stopped goes on where it ended. At the end the
images with a label map are counted. Exit status: 0 if everything is there in the
official numbers, 1 if something is missing, 2 if a file cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from zs3_mmseg.datasets.preparation import BENCHMARKS, Report, prepare, summary
from zs3_mmseg.engine.launch import one_line_errors


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    headline, _, rest = (__doc__ or '').partition('\n')
    parser = argparse.ArgumentParser(
        description=headline,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('name', choices=BENCHMARKS, help='which data set')
    parser.add_argument(
        '--root',
        metavar='DIR',
        help="folder of the data set: data_root in the config; default: the configs' "
        'own, such as data/VOCdevkit/VOC2012',
    )
    parser.add_argument(
        '--source',
        action='append',
        default=[],
        metavar='DIR|ARCHIVE',
        help='folder or archive with official files; may be given several times',
    )
    parser.add_argument(
        '--download',
        action='store_true',
        help='fetch the official archives with known checksums into ROOT/downloads; '
        'one that was cut off is continued',
    )
    parser.add_argument(
        '--allow-partial',
        action='store_true',
        help='accept other numbers than the official ones, for a subset of your own',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='make files again that are there already',
    )
    parser.add_argument(
        '--workers',
        type=int,
        metavar='N',
        help='label maps converted at the same time; default: one per processor',
    )
    arguments = parser.parse_args(argv)
    if arguments.workers is not None and arguments.workers < 1:
        parser.error(f'--workers must be 1 or more, got {arguments.workers}')
    return arguments


def verdict(report: Report, allow_partial: bool) -> tuple[str, bool]:
    """Say in one sentence how it ended, and whether that is a success."""
    if report.complete:
        return f'complete: {report.root}', True
    if not report.usable:
        return (
            'not usable: a list or a folder names files that are missing (see above)',
            False,
        )
    difference = '; '.join(
        f'{count.what}: {count.verdict}'
        for count in report.counts
        if count.verdict != 'ok'
    )
    if allow_partial:
        return f'partial, as you allowed ({difference}): {report.root}', True
    return (
        f'incomplete ({difference}). Name the rest with --source, or accept your own '
        'subset with --allow-partial',
        False,
    )


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    with one_line_errors(OSError, ValueError, ImportError):
        report = prepare(
            arguments.name,
            arguments.root,
            arguments.source,
            download=arguments.download,
            overwrite=arguments.overwrite,
            workers=arguments.workers,
            progress=True,
        )
    console = Console()
    console.print(summary(arguments.name, report.counts))
    text, success = verdict(report, arguments.allow_partial)
    print(f'{report.written:,} files written, {report.kept:,} were there.')
    print(text)
    return 0 if success else 1


if __name__ == '__main__':
    sys.exit(main())
