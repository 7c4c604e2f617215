"""Convert weights of others: ``python tools/convert_checkpoint.py KIND SRC DST``."""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import save

import zs3_mmseg  # noqa: F401  (its checks of the installation come first)
from zs3_mmseg.engine.converters import CONVERTERS, Conversion
from zs3_mmseg.engine.launch import one_line_errors
from zs3_mmseg.utils.cache import atomic_write


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
            'target', type=Path, metavar='DST', help='.safetensors file to write'
        )
        kind.add_argument(
            '--trust',
            action='store_true',
            help='open a TorchScript archive (which holds code) of unknown origin',
        )
        kind.add_argument(
            '--force', action='store_true', help='replace DST if it is there'
        )
        converter.add_arguments(kind)
    return parser.parse_args()


def check_target(target: Path, force: bool) -> None:
    if target.suffix != '.safetensors':
        raise ValueError(f'DST must end in .safetensors, got {target}')
    if target.exists() and not force:
        raise FileExistsError(f'{target} is there already; --force replaces it')


def write(conversion: Conversion, target: Path) -> None:
    # Copies: the format knows neither shared memory nor strides.
    state = {key: value.clone().contiguous() for key, value in conversion.state.items()}
    raw = save(state, metadata=conversion.metadata)
    atomic_write(target, lambda stream: stream.write(raw))


def main() -> None:
    arguments = parse_args()
    converter = CONVERTERS[arguments.kind]()
    with one_line_errors(OSError, ValueError):
        check_target(arguments.target, arguments.force)
        conversion = converter.convert(arguments.source, arguments)
        print(f'{arguments.source}\n{conversion}')
        if not conversion.complete:
            print(f'Not converted: {arguments.target} was not written.')
            raise SystemExit(1)
        write(conversion, arguments.target)
    print(f'Written: {arguments.target} ({len(conversion.state)} entries)')


if __name__ == '__main__':
    main()
