"""Count what a reader passes: files and functions of this package on common walks.

Each walk is one real call on the tiny models of Shapes, traced with ``sys.setprofile``.
Functions are told apart by file and qualified name, so a lambda counts once for the
function it stands in; comprehensions and generator expressions count as part of theirs.
A change of file is a call from one of our functions that lies in another file than the
one called before it.
"""

from __future__ import annotations

import argparse
import ast
import graphlib
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample

import zs3_mmseg
from zs3_mmseg.apis import load_config

PACKAGE = Path(zs3_mmseg.__file__).resolve().parent
CACHE_ENV = 'ZS3_MMSEG_CACHE'
SIDE = 112
_INLINE = ('<listcomp>', '<setcomp>', '<dictcomp>', '<genexpr>')


@dataclass
class Walk:
    """The calls of one walk: (file below the package, qualified name), in order."""

    name: str
    calls: list[tuple[str, str]] = field(default_factory=list)

    @property
    def functions(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys(self.calls))

    @property
    def files(self) -> list[str]:
        return list(dict.fromkeys(file for file, _ in self.calls))

    @property
    def changes(self) -> int:
        files = [file for file, _ in self.calls]
        return sum(a != b for a, b in itertools.pairwise(files))


def trace(name: str, work: Callable[[], Any]) -> tuple[Walk, Any]:
    """Do something; return the calls of ours in it, and its result."""
    walk = Walk(name)
    root = f'{PACKAGE}{os.sep}'

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != 'call' or not code.co_filename.startswith(root):
            return
        if code.co_name not in _INLINE:
            file = code.co_filename.removeprefix(root)
            walk.calls.append((file, code.co_qualname))

    sys.setprofile(note)
    try:
        result = work()
    finally:
        sys.setprofile(None)
    return walk, result


# ----------------------------------------------------------------------------- walks


def _sample(*, labels: int = 0, **meta: Any) -> SegDataSample:
    """Return a sample of one size; with labels below a number, if there are any."""
    shape = (SIDE, SIDE)
    sample = SegDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, **meta))
    if labels:
        drawn = torch.randint(labels, (1, *shape))
        sample.gt_sem_seg = PixelData(data=drawn)
    return sample


def walks(scenes: str) -> Iterator[Walk]:
    """Yield the walks, on models without training.

    Args:
        scenes: a folder for a scene.
    """
    init_default_scope('mmseg')
    torch.manual_seed(0)
    images = torch.randn(2, 3, SIDE, SIDE)

    @torch.no_grad()
    def predict(model: Any, **meta: Any) -> object:
        return model.predict(images[:1], [_sample(**meta)])

    def loss(model: Any) -> object:
        return model.loss(images, [_sample(labels=12), _sample(labels=12)])

    config = load_config('zegclip/shapes_tiny')
    building, model = trace('building ZegCLIP', lambda: MODELS.build(config.model))
    model.eval()
    first, _ = trace('first predict: class name -> logit', lambda: predict(model))
    yield trace('second predict, one image', lambda: predict(model))[0]
    model.train()
    loss(model)
    yield trace('second loss, two images', lambda: loss(model))[0]
    yield first
    yield building
    data = config.train_dataloader.dataset
    data.dataset.update(num_images=1, workers=1, data_root=scenes)
    dataset = DATASETS.build(data)
    yield trace('ZeroShotDataset[0]', lambda: dataset[0])[0]
    prompted = MODELS.build(load_config('esda/shapes_tiny').model).eval()
    predict(prompted, prompt_name='star')
    pair, _ = trace('ESDA, second pair', lambda: predict(prompted, prompt_name='star'))
    yield pair


# --------------------------------------------------------------------------- modules


def modules() -> dict[str, Path]:
    """Return the files of the package by their modules' dotted names."""
    found = {}
    for path in sorted(PACKAGE.rglob('*.py')):
        if '.mim' not in path.relative_to(PACKAGE).parts:
            parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
            found['.'.join(parts).removesuffix('.__init__')] = path
    return found


def _import_statements(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that run when a module is imported."""
    for statement in body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            yield statement
        elif isinstance(statement, ast.If) and 'TYPE_CHECKING' in ast.unparse(
            statement.test
        ):
            yield from _import_statements(statement.orelse)
        elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in ('body', 'handlers', 'orelse', 'finalbody'):
                for inner in getattr(statement, part, ()):
                    yield from _import_statements(
                        inner.body if isinstance(inner, ast.ExceptHandler) else [inner]
                    )


def _imports_of(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Yield the modules of ours that a module names in its imports."""
    package = name if path.name == '__init__.py' else name.rpartition('.')[0]
    for statement in _import_statements(ast.parse(path.read_bytes()).body):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names if alias.name in known)
            continue
        source = statement.module or ''
        if statement.level:
            above = package.split('.')[: package.count('.') + 2 - statement.level]
            source = '.'.join([*above, *([source] if source else [])])
        for alias in statement.names:
            inner = f'{source}.{alias.name}'
            if inner in known or source in known:
                yield inner if inner in known else source


def import_circle() -> list[str]:
    """Return modules of which each imports the next, the first one again at the end.

    It is empty if there is no such circle. Imports within functions and those for type
    checkers are left out, and that ``import a.b`` runs ``a`` as well.
    """
    known = modules()
    graph = {name: {*_imports_of(name, path, known)} for name, path in known.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(reversed(error.args[1]))  # it names who is imported first
    return []


# ------------------------------------------------------------------------------ tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument(
        '--list', action='store_true', help='name the files and functions, too'
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_args()
    MMLogger.get_instance('mmengine', log_level='ERROR')
    with tempfile.TemporaryDirectory() as folder:
        # Rows that an earlier run has cached would make the first walk shorter.
        os.environ[CACHE_ENV] = folder
        found = list(walks(folder))
    print(f'{"walk":36}{"files":>7}{"functions":>11}{"changes of file":>17}')
    for walk in found:
        print(
            f'{walk.name:36}{len(walk.files):7}{len(walk.functions):11}'
            f'{walk.changes:17}'
        )
    files = modules().values()
    lines = sum(path.read_bytes().count(b'\n') for path in files)
    circle = import_circle()
    print(f'\npackage: {len(files)} files, {lines:,} lines')
    print(f'circle of imports: {" -> ".join(circle) or "none"}')
    if arguments.list:
        for walk in found:
            print(f'\n{walk.name}')
            for file in walk.files:
                names = [name for place, name in walk.functions if place == file]
                print(f'  {file}: {", ".join(names)}')


if __name__ == '__main__':
    main()
