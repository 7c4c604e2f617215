"""One test for each golden file of ``--golden-dir`` (or ``tests/data/golden``)."""

from __future__ import annotations

from pathlib import Path

import pytest
import registry
from expected_failures import NOT_BUILT_YET

CHECK_MODULES = registry.load_checks()
DEFAULT_DIR = Path(__file__).parents[1] / 'data' / 'golden'
ENDINGS = ('.json', '.safetensors')


def golden_paths(config: pytest.Config) -> list[Path]:
    """List the recordings: a JSON and its tensors are one, other files stand alone."""
    chosen = config.getoption('--golden-dir')
    folder = config.invocation_params.dir / chosen if chosen else DEFAULT_DIR
    files = {path for path in folder.iterdir() if path.is_file()}
    paths = [
        path
        for path in files
        if path.stem != 'README'
        and not path.name.startswith('.')
        and not (path.suffix == '.safetensors' and path.with_suffix('.json') in files)
    ]
    return sorted(paths) or [folder / 'holds no golden file']


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if 'golden_path' not in metafunc.fixturenames:
        return
    parameters = []
    for path in golden_paths(metafunc.config):
        missing = registry.longest_prefix(path.stem, NOT_BUILT_YET)
        known = registry.longest_prefix(path.stem, {**registry.CHECKS, **NOT_BUILT_YET})
        marks = ()
        if missing is not None and missing == known:
            marks = pytest.mark.xfail(
                strict=True,
                raises=registry.MissingPieceError,
                reason=f'not built yet: {NOT_BUILT_YET[missing]}',
            )
        parameters.append(pytest.param(path, id=path.name, marks=marks))
    metafunc.parametrize('golden_path', parameters)


def test_golden(golden_path: Path) -> None:
    known = {**registry.CHECKS, **NOT_BUILT_YET}
    prefix = registry.longest_prefix(golden_path.stem, known)
    assert golden_path.suffix in ENDINGS, f'{golden_path.name} is no golden file'
    assert prefix is not None, (
        f'{golden_path.name} has no known prefix; known are: {", ".join(sorted(known))}'
    )
    golden = registry.GoldenFile(golden_path.with_suffix('.json'))
    if prefix not in registry.CHECKS:
        raise registry.MissingPieceError(
            f'{golden.name} needs {NOT_BUILT_YET[prefix]}, which is not built yet'
        )
    golden.require_complete()
    registry.CHECKS[prefix](golden)


@pytest.mark.parametrize('module', CHECK_MODULES)
def test_checks_can_be_imported(module: str) -> None:
    error = CHECK_MODULES[module]
    if error is not None:
        raise error
