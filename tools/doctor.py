"""Say what is installed here, what can run, and what is missing."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

PACKAGE = 'zs3_mmseg'
#: Extras that serve the work on the package itself.
FOR_DEVELOPERS = ('test', 'test-slow', 'lint', 'docs')
#: The two providers of the mm-packages: one of them is needed.
PROVIDERS = ('mm', 'upstream')
GOOD, BAD, ABSENT = 'ok', 'FAULT', '-'

#: What was looked at, how it is, and a remark.
Line = tuple[str, str, str]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=f'{__doc__} Nothing is downloaded. Ends with 1 if anything that '
        'every use needs is missing or broken.'
    )
    return parser.parse_args(argv)


def requirements_by_extra() -> dict[str, list[Requirement]]:
    """Return what the installed package asks for; ``''`` is what it always needs."""
    found: dict[str, list[Requirement]] = {}
    for text in metadata.requires(PACKAGE) or ():
        requirement = Requirement(text)
        condition = str(requirement.marker or '')
        extra = condition.rpartition('extra == ')[2].strip('"\'')
        found.setdefault(extra, []).append(requirement)
    return found


def fault_of(requirement: Requirement) -> str:
    """Return what is wrong with an installed package; nothing if it is as required."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f'{requirement.name} is missing'
    if requirement.specifier.contains(version, prereleases=True):
        return ''
    return f'{requirement.name} {version} is installed, wanted {requirement.specifier}'


def check_python() -> Iterator[Line]:
    yield 'Python', GOOD, f'{platform.python_version()}, {sys.executable}'
    yield 'system', GOOD, f'{platform.platform()}, {os.cpu_count()} processors'


def check_packages() -> Iterator[Line]:
    """Compare the installed packages with the requirements of this one."""
    try:
        by_extra = requirements_by_extra()
    except metadata.PackageNotFoundError:
        yield PACKAGE, BAD, 'pip does not know it: pip install -e ".[mm]"'
        return
    yield PACKAGE, GOOD, metadata.version(PACKAGE)
    for requirement in by_extra.pop(''):
        fault = fault_of(requirement)
        version = '' if fault else metadata.version(requirement.name)
        yield requirement.name, BAD if fault else GOOD, fault or version
    for extra, requirements in sorted(by_extra.items()):
        faults = [fault for fault in map(fault_of, requirements) if fault]
        if extra == 'all' or (faults and extra in FOR_DEVELOPERS):
            continue
        remark = ', '.join(faults)
        if faults and extra not in PROVIDERS:
            remark += f': pip install "{PACKAGE}[{extra}]"'
        yield f'extra {extra}', ABSENT if faults else GOOD, remark


def check_import() -> Iterator[Line]:
    """Import the package: its own check of the mm-packages says what is wrong."""
    began = time.perf_counter()
    try:
        import zs3_mmseg
    except ImportError as error:
        yield f'import {PACKAGE}', BAD, str(error)
        return
    seconds = time.perf_counter() - began
    yield f'import {PACKAGE}', GOOD, f'{zs3_mmseg.__file__} ({seconds:.1f} s)'


def check_devices() -> Iterator[Line]:
    import torch

    yield 'cpu', GOOD, f'{torch.get_num_threads()} threads of torch'
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        memory = about.total_memory / 2**30
        yield f'cuda:{index}', GOOD, f'{about.name}, {memory:.0f} GiB'
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f'torch is built for CUDA {built}, and finds no device'
        yield 'cuda', ABSENT, why if built else 'this torch is built without CUDA'
    if torch.backends.mps.is_available():
        yield 'mps', GOOD, ''


def check_model() -> Iterator[Line]:
    """Segment a grey picture with the shipped model."""
    import numpy as np

    from zs3_mmseg.apis import DEFAULT_CONFIG, ZeroShotInferencer

    began = time.perf_counter()
    inferencer = ZeroShotInferencer(device='cpu')
    inferencer.segment(np.full((64, 64, 3), 127, np.uint8))
    seconds = time.perf_counter() - began
    yield f'model {DEFAULT_CONFIG}', GOOD, f'segments a picture ({seconds:.1f} s)'


def check_weights() -> Iterator[Line]:
    """Look for the weights of the models for photographs in the hub's cache."""
    from open_clip import get_pretrained_cfg

    from zs3_mmseg.apis import load_config, shipped_configs
    from zs3_mmseg.utils.hub import cached_file
    from zs3_mmseg.utils.origins import hub_file

    for name in shipped_configs():
        if not name.startswith('clip_dense/photo_'):
            continue
        tower = load_config(name).model.backbone
        repo, file = hub_file(get_pretrained_cfg(tower.arch, tower.pretrained))
        stem = Path(file).stem
        names = (f'{stem}.safetensors', 'open_clip_model.safetensors', file)
        path = cached_file(repo, names)
        absent = f'the first use downloads {repo}'
        yield f'model {name}', GOOD if path else ABSENT, str(path or absent)


def check_data() -> Iterator[Line]:
    from zs3_mmseg.datasets.preparation import BENCHMARKS

    for name, benchmark in BENCHMARKS.items():
        there = Path(benchmark.root).is_dir()
        absent = f'zs3 prepare {name}'
        yield (
            f'data {name}',
            GOOD if there else ABSENT,
            (str(benchmark.root) if there else absent),
        )


def check_places() -> Iterator[Line]:
    from zs3_mmseg.utils.cache import CACHE_ENV, cache_dir

    folder = cache_dir()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    writable = os.access(existing, os.W_OK)
    remark = f'{folder}, {shutil.disk_usage(existing).free / 2**30:.0f} GiB free'
    advice = f'{folder} cannot be written: set {CACHE_ENV} to another folder'
    yield 'cache', GOOD if writable else BAD, remark if writable else advice


def report(check: Callable[[], Iterator[Line]]) -> bool:
    """Print what a check finds; return whether nothing is broken."""
    good = True
    try:
        for what, state, remark in check():
            good = good and state != BAD
            print(f'{state:6}{what:40} {remark}'.rstrip(), flush=True)
    # Whatever breaks is what this tool is there to tell.
    except Exception as error:  # noqa: BLE001
        print(f'{BAD:6}{check.__name__}: {type(error).__name__}: {error}', flush=True)
        return False
    return good


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report; the exit status is 1 if anything is broken."""
    parse_args(argv)
    good = all([*map(report, (check_python, check_packages))])
    if report(check_import):
        more = (check_devices, check_model, check_weights, check_data, check_places)
        good = all([*map(report, more)]) and good
    else:
        good = False
    print('Everything that is needed is here.' if good else 'See the faults above.')
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())
