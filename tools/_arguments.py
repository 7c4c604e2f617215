"""Arguments that several tools share.

Tools read their arguments before they import the package, which takes seconds:
help and typing mistakes are answered at once. So this module imports none of it, and
tools import what they work with in the functions that need it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

from mmengine.config import DictAction

_DICT = re.compile(r'(^|[\[(,])(dict\(|\{["\'])')


class ConfigOptions(DictAction):
    """mmengine's ``DictAction``, which fails or makes text of what it cannot read."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Read ``KEY=VALUE`` pairs; leave with status 2 and a message for others."""
        for pair in values or ():
            _require_readable(parser, str(pair))
        super().__call__(parser, namespace, values, option_string)


def _require_readable(parser: argparse.ArgumentParser, pair: str) -> None:
    key, equals, value = pair.partition('=')
    if not key or not equals:
        parser.error(f'--cfg-options takes KEY=VALUE, got {pair!r}')
    if _DICT.search(value):
        parser.error(
            f'--cfg-options {pair}: a dict cannot be written there; set its keys one '
            f'by one ({key}.SUBKEY=VALUE, {key}.0.SUBKEY=VALUE in a list), or write a '
            "config with _base_ = ['YOUR_CONFIG.py']"
        )
    for opening, closing in ('[]', '()'):
        if value.count(opening) != value.count(closing):
            parser.error(
                f'--cfg-options {pair}: as many {opening} as {closing} are needed'
            )


def at_least_one(text: str) -> int:
    """Read a whole number from 1 on."""
    # Digits of other scripts are digits to isdigit, and superscripts no numbers.
    if not re.fullmatch('[0-9]{1,18}', text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a number from 1 on, got {text}')
    return int(text)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, which gives ``cfg_options``: a dict or None."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='settings that replace those of the config, e.g. '
        'train_dataloader.batch_size=8 key="[a,b]" key="[(a,b),(c,d)]"; '
        'no white space inside a value',
    )


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that mmseg's own ``train.py`` and ``test.py`` share."""
    parser.add_argument('config', help='path of the config file')
    parser.add_argument(
        '--work-dir',
        help='folder of logs and results; default: work_dirs/METHOD/CONFIG',
    )
    add_config_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started several processes; pytorch means torchrun',
    )
    parser.add_argument(
        '--allow-missing',
        action='store_true',
        help='load a checkpoint although some of its keys do not fit the model',
    )
    # torch.distributed.launch gives the rank as a flag, torchrun in the environment.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
