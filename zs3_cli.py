"""The command ``zs3``: ``zs3 train CONFIG`` is ``python tools/train.py CONFIG``.

It stands beside the package and not in it, because importing the package takes seconds
(torch, mmseg), which ``zs3 --help`` and the shell's completion need not wait for.
"""

from __future__ import annotations

import argparse
import ast
import os
import runpy
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import NoReturn

PACKAGE = 'zs3_mmseg'
#: Name of a command -> its file below ``tools``.
TOOLS = {
    'segment': 'segment.py',
    'train': 'train.py',
    'test': 'test.py',
    'check': 'check_data.py',
    'prepare': 'prepare_data.py',
    'convert': 'convert_checkpoint.py',
    'export': 'export.py',
    'web': 'web.py',
    'list': 'list_configs.py',
    'doctor': 'doctor.py',
}
COMPLETION = 'completion'
SHELLS = ('bash', 'zsh', 'fish')
# Set by the shell's half of argcomplete: how many words of the line are the command.
COMPLETING_ENV = '_ARGCOMPLETE'


def package_folder() -> Path:
    """Return the folder of the package, without importing it."""
    spec = find_spec(PACKAGE)
    for place in (spec and spec.submodule_search_locations) or ():
        return Path(place)
    raise SystemExit(f'error: the package {PACKAGE} is not installed')


def tools_folder(package: Path) -> Path:
    """Return the folder of the tools: of an installed package, or of a checkout."""
    places = (package / '.mim' / 'tools', package.parent / 'tools')
    for place in places:
        if (place / TOOLS['segment']).is_file():
            return place
    raise SystemExit(
        f'error: the tools of {PACKAGE} are missing, expected in {places[0]}; install '
        'the package again'
    )


def summary_of(tool: Path) -> str:
    """Return the first line of a tool's docstring, up to a colon."""
    docstring = ast.get_docstring(ast.parse(tool.read_text(encoding='utf-8'))) or ''
    return docstring.partition('\n')[0].partition(': ')[0].rstrip('.')


def build_parser(package: Path) -> argparse.ArgumentParser:
    folder = tools_folder(package)
    parser = argparse.ArgumentParser(
        prog='zs3',
        description='Zero-shot semantic segmentation.',
        epilog='Every command explains itself: zs3 COMMAND --help',
    )
    version = runpy.run_path(str(package / 'version.py'))['__version__']
    parser.add_argument('--version', action='version', version=f'zs3 {version}')
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    for name, file in TOOLS.items():
        commands.add_parser(name, help=summary_of(folder / file), add_help=False)
    completion = commands.add_parser(
        COMPLETION,
        help='Print what makes a shell complete the words of this command',
        epilog='In .bashrc or .zshrc: eval "$(zs3 completion bash)"',
    )
    completion.add_argument('shell', choices=SHELLS)
    return parser


def run_tool(path: Path) -> int | None:
    """Run a tool in this process, with the files beside it in reach, as Python does."""
    sys.path.insert(0, str(path.parent))
    spec = spec_from_file_location(f'zs3_{path.stem}', path)
    if spec is None or spec.loader is None:
        raise ImportError(f'{path} cannot be imported')
    tool = module_from_spec(spec)
    sys.modules[spec.name] = tool
    spec.loader.exec_module(tool)
    return tool.main()


def answer_shell(parser: argparse.ArgumentParser, *_: object) -> NoReturn:
    """Tell the shell what may come next, and end."""
    import argcomplete

    argcomplete.autocomplete(parser)
    raise SystemExit(f'{COMPLETING_ENV} is set, but no shell asks')


def complete(package: Path) -> NoReturn:
    """Complete a command line: the command here, all else by the tool's own parser."""
    words = os.environ['COMP_LINE'][: int(os.environ['COMP_POINT'])].split(' ')
    if len(words) > 2 and words[1] in TOOLS:
        os.environ[COMPLETING_ENV] = '2'
        # The parser exists only within the tool: it answers where it would be used.
        setattr(argparse.ArgumentParser, 'parse_args', answer_shell)  # noqa: B010
        run_tool(tools_folder(package) / TOOLS[words[1]])
    answer_shell(build_parser(package))


def main() -> int | None:
    """Run the command; mistakes in the arguments end with status 2."""
    package = package_folder()
    if COMPLETING_ENV in os.environ:
        complete(package)
    command, *rest = sys.argv[1:] or ['--help']
    if command not in TOOLS:
        arguments = build_parser(package).parse_args([command, *rest])
        import argcomplete

        sys.stdout.write(argcomplete.shellcode(['zs3'], shell=arguments.shell) + '\n')
        return 0
    # Messages of the tool begin with its first word.
    sys.argv = [f'zs3 {command}', *rest]
    return run_tool(tools_folder(package) / TOOLS[command])


if __name__ == '__main__':
    sys.exit(main())
