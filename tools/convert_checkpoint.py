"""Convert weights of others: ``python tools/convert_checkpoint.py KIND SRC DST``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

import zs3_mmseg  # noqa: F401  (its checks of the installation come first)
from zs3_mmseg.engine.converters import CONVERTERS, Conversion
from zs3_mmseg.engine.launch import one_line_errors
from zs3_mmseg.utils.cache import atomic_write
from zs3_mmseg.utils.palette import default_palette

# Where nn.Module puts the extra state of the outermost module.
EXTRA_STATE = '_extra_state'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Convert a weights file and report what became of every key. '
        'Nothing in the file is executed, and nothing is guessed: unknown, missing or '
        'misshapen keys end the conversion with status 1.'
    )
    kinds = parser.add_subparsers(dest='kind', required=True, metavar='KIND')
    for name, converter in CONVERTERS.items():
        kind = kinds.add_parser(
            name, help=converter.help, description=converter.__doc__
        )
        kind.add_argument('source', type=Path, metavar='SRC', help='file to read')
        kind.add_argument(
            'target', type=Path, metavar='DST', help=f'{converter.suffix} file to write'
        )
        kind.add_argument(
            '--trust',
            action='store_true',
            help='open a TorchScript archive (which holds code) of unknown origin',
        )
        kind.add_argument(
            '--force', action='store_true', help='replace files that are there'
        )
        converter.add_arguments(kind)
    return parser.parse_args()


def check_target(target: Path, suffix: str, force: bool) -> None:
    if target.suffix != suffix:
        raise ValueError(f'expected a file that ends in {suffix}, got {target}')
    if target.exists() and not force:
        raise FileExistsError(f'{target} is there already; --force replaces it')


def write(conversion: Conversion, target: Path) -> None:
    entries = len(conversion.state) + (conversion.extra_state is not None)
    if target.suffix == '.safetensors':
        raw = conversion.as_safetensors()
        atomic_write(target, lambda stream: stream.write(raw))
    else:
        # Copies: torch.save would write the whole storage of a view.
        state: dict[str, Any] = {
            key: value.clone().contiguous() for key, value in conversion.state.items()
        }
        if conversion.extra_state is not None:
            state[EXTRA_STATE] = dict(conversion.extra_state)
        # mmseg's own APIs take those of Cityscapes where a file names no classes.
        classes = list(conversion.classes)
        named = dict(classes=classes, palette=default_palette(len(classes)))
        meta = {**conversion.metadata, 'dataset_meta': named}
        content = dict(meta=meta, state_dict=state)
        atomic_write(target, lambda stream: torch.save(content, stream))
    print(f'Written: {target} ({entries} entries)')


def main() -> None:
    arguments = parse_args()
    converter = CONVERTERS[arguments.kind]()
    with one_line_errors(OSError, ValueError, KeyError):
        check_target(arguments.target, converter.suffix, arguments.force)
        conversion = converter.convert(arguments.source, arguments)
        print(f'{arguments.source}\n{conversion}')
        if not conversion.complete:
            print(f'Not converted: {arguments.target} was not written.')
            raise SystemExit(1)
        for path in conversion.files:
            check_target(path, '.safetensors', arguments.force)
        for path, more in conversion.files.items():
            write(more, path)
        write(conversion, arguments.target)


if __name__ == '__main__':
    main()
