"""Check the data of a config: ``python tools/check_data.py CONFIG``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from _arguments import add_config_options


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Look for faults in the data of a config. Ends with 1 if there '
        'are any, with 2 if the config itself cannot be read.'
    )
    parser.add_argument('config', help='path of the config file')
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        '--samples',
        type=int,
        default=50,
        metavar='N',
        help='how many samples of each data set to look at (default: 50)',
    )
    amount.add_argument('--all', action='store_true', help='look at all of them')
    parser.add_argument(
        '--out',
        type=Path,
        help='folder of report.json and the contact sheets; '
        'default: work_dirs/check_data/METHOD/CONFIG',
    )
    add_config_options(parser)
    arguments = parser.parse_args(argv)
    if arguments.samples < 1:
        parser.error(f'--samples must be 1 or more, got {arguments.samples}')
    return arguments


def main() -> int:
    arguments = parse_args()
    from rich.console import Console

    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope

    from zs3_mmseg.apis.data_checks import check_data, print_report, write_report
    from zs3_mmseg.engine.launch import one_line_errors
    from zs3_mmseg.utils.config_check import read_config, run_name

    console = Console(soft_wrap=True)
    with one_line_errors():
        config = read_config(arguments.config, arguments.cfg_options)
        init_default_scope(config.get('default_scope', 'mmseg'))
        MMLogger.get_instance('check_data', log_level='WARNING')
        samples = None if arguments.all else arguments.samples
        report = check_data(config, samples, progress=console.is_terminal)
    print_report(report, console)
    name = run_name(arguments.config)
    folder = arguments.out or Path('work_dirs/check_data') / name
    for path in write_report(report, folder):
        console.print(f'written: {path}', markup=False, highlight=False)
    return 1 if report.faults else 0


if __name__ == '__main__':
    sys.exit(main())
