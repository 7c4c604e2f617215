from pathlib import Path

import pytest

from zs3_mmseg.engine.runner import resume_candidates


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
