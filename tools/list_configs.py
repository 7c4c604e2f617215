"""List the shipped configs by method: ``python tools/list_configs.py [WORD ...]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# Of an installed package, too: tools and configs lie side by side in both.
CONFIGS = Path(__file__).absolute().parents[1] / 'configs'


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='List the shipped configs. Each name can stand wherever a command '
        'takes a config, in any folder.'
    )
    parser.add_argument(
        'words', nargs='*', metavar='WORD', help='list only names with all these words'
    )
    parser.add_argument(
        '--path', action='store_true', help='print the file of each, one on each line'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the list; the exit status is 1 if no name has all the words."""
    args = parse_args(argv)
    found = {
        file.relative_to(CONFIGS).with_suffix('').as_posix(): file
        for file in sorted(CONFIGS.rglob('*.py'))
        if '_base_' not in file.relative_to(CONFIGS).parts
    }
    chosen = {
        name: file
        for name, file in found.items()
        if all(word.lower() in name for word in args.words)
    }
    for name, file in chosen.items():
        print(file if args.path else name)
    if not chosen:
        print(
            f'error: none of the {len(found)} configs has {" and ".join(args.words)} '
            'in its name',
            file=sys.stderr,
        )
    return 0 if chosen else 1


if __name__ == '__main__':
    sys.exit(main())
