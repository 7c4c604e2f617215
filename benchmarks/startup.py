"""Claim: tools answer at once, and start in little more than mmseg itself takes.

``python benchmarks/startup.py`` starts every tool with ``--help`` and with a flag that
does not exist, imports mmseg, and builds the runner of a config, each in a process of
its own, in turns, and prints CPU and wall seconds: medians, and half of the range.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / 'tools'
PARTS = ('datasets', 'engine', 'evaluation', 'models', 'visualization')
IMPORT = 'import ' + ', '.join(f'mmseg.{part}' for part in PARTS)
RUNNER = """
import sys
from zs3_mmseg.engine.launch import build_runner
from zs3_mmseg.utils.config_check import read_config
config = read_config(sys.argv[1], {'work_dir': sys.argv[2], 'launcher': 'none'})
config.log_level = 'ERROR'
build_runner(config)
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument(
        '--config', type=Path, default=ROOT / 'configs/zegclip/shapes_tiny.py'
    )
    parser.add_argument(
        '--out', type=Path, default=ROOT / 'work_dirs/bench/startup.json'
    )
    return parser.parse_args()


def seconds(command: list[str]) -> tuple[float, float]:
    """Run a command; return its CPU seconds and those of the wall."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *command], capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, time.perf_counter() - began


def main() -> None:
    arguments = parse_args()
    commands: dict[str, list[str]] = {}
    for tool in sorted(TOOLS.rglob('[!_]*.py')):
        name = str(tool.relative_to(TOOLS))
        commands[f'{name} --help'] = [str(tool), '--help']
        commands[f'{name} --no-such-flag'] = [str(tool), '--no-such-flag']
    results: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        commands['import mmseg'] = ['-c', IMPORT]
        commands['import zs3_mmseg'] = ['-c', 'import zs3_mmseg']
        commands['a built runner'] = ['-c', RUNNER, str(arguments.config), folder]
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                results.setdefault(name, []).append(seconds(command))
    table = Table('what', 'CPU, s', 'wall, s')
    for name, runs in results.items():
        cells = [
            f'{statistics.median(values):.2f} ± {(max(values) - min(values)) / 2:.2f}'
            for values in zip(*runs, strict=True)
        ]
        table.add_row(name, *cells)
    Console().print(table)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
    main()
