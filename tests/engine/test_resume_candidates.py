from pathlib import Path
from types import SimpleNamespace

import pytest

from zs3_mmseg.engine.runner import SafeRunner, resume_candidates


def names(folder: Path) -> list[str]:
    return [path.name for path in resume_candidates(folder)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name in ('iter_9.pth', 'iter_10.pth', 'iter_100.pth', 'best_mIoU_iter_10.pth'):
        (tmp_path / name).touch()
    return tmp_path


def test_the_named_one_comes_first_then_the_newest(run: Path) -> None:
    # iter_100 is what an earlier, longer run left in the folder.
    (run / 'last_checkpoint').write_text(f'{run}/iter_10.pth')
    assert names(run) == ['iter_10.pth', 'iter_100.pth', 'iter_9.pth']


def test_a_copied_folder_is_meant_itself(run: Path, tmp_path_factory) -> None:
    elsewhere = tmp_path_factory.mktemp('origin')
    (elsewhere / 'iter_10.pth').touch()
    (run / 'last_checkpoint').write_text(f'{elsewhere}/iter_10.pth')
    assert resume_candidates(run)[0] == run / 'iter_10.pth'


def test_checkpoints_may_lie_outside_the_work_dir(run: Path, tmp_path_factory) -> None:
    work_dir = tmp_path_factory.mktemp('work')
    (work_dir / 'last_checkpoint').write_text(f'{run}/iter_9.pth')
    assert names(work_dir) == ['iter_9.pth', 'iter_100.pth', 'iter_10.pth']


@pytest.mark.parametrize('pointer', ['', '/gone/iter_7.pth', None])
def test_a_useless_pointer_is_passed_over(run: Path, pointer: str | None) -> None:
    if pointer is not None:
        (run / 'last_checkpoint').write_text(pointer)
    assert names(run) == ['iter_100.pth', 'iter_10.pth', 'iter_9.pth']


def test_nothing_there(tmp_path: Path) -> None:
    assert resume_candidates(tmp_path / 'absent') == []


@pytest.mark.parametrize(
    ('wrote', 'told'),
    [
        ('zegclip_shapes_tiny_20250101_101010', False),
        ('shapes_tiny_20250101_101010', False),  # as runs were called before
        ('esda_shapes_tiny_20250101_101010', True),
        ('20250101_101010', False),
        (None, False),
    ],
)
def test_a_checkpoint_of_another_run_is_told(wrote: str | None, told: bool) -> None:
    warnings: list[str] = []
    runner = SimpleNamespace(
        experiment_name='zegclip_shapes_tiny_20260101_101010',
        logger=SimpleNamespace(warning=warnings.append),
    )
    meta = {} if wrote is None else {'experiment_name': wrote}
    SafeRunner._tell_other_run(runner, meta, 'iter_9.pth')  # type: ignore[arg-type]
    assert [('esda_shapes_tiny' in text) for text in warnings] == [True] * told
