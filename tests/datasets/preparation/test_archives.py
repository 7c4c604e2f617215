"""Archives from strangers: what is read, and what is refused before a byte lands."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from zs3_mmseg.datasets.preparation import (
    PreparationError,
    UnsafeArchiveError,
    archives,
    prepare,
)
from zs3_mmseg.datasets.preparation.archives import FolderTree, open_archive

GOOD = 'train2017/000000000009.jpg'


def tar_entry(name: str, **attributes: object) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(entry, key, value)
    return entry


def write_tar(path: Path, *entries: tarfile.TarInfo) -> Path:
    with tarfile.open(path, 'w') as archive:
        good = tar_entry(GOOD, size=4)
        archive.addfile(good, io.BytesIO(b'good'))
        for entry in entries:
            archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    return path


def zip_entry(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    return entry


def write_zip(path: Path, *entries: zipfile.ZipInfo) -> Path:
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr(GOOD, b'good')
        for entry in entries:
            archive.writestr(entry, b'/etc/passwd')
    return path


def read_all(path: Path) -> list[tuple[str, bytes]]:
    tree = open_archive(path)
    return [(name, stream.read()) for name, stream in tree.read(tree.sizes)]


BAD_NAMES = [
    *('/etc/passwd', '../up.jpg', 'a/../../up.jpg', 'C:/x.jpg', 'a\\..\\x.jpg'),
    'train2017/\n.jpg',
]
BAD_ENTRIES = {
    'symbolic link': tar_entry('a.jpg', type=tarfile.SYMTYPE, linkname='/etc/passwd'),
    'link within': tar_entry('a.jpg', type=tarfile.SYMTYPE, linkname=GOOD),
    'hard link': tar_entry('a.jpg', type=tarfile.LNKTYPE, linkname='../b'),
    'device': tar_entry('a.jpg', type=tarfile.CHRTYPE),
    'pipe': tar_entry('a.jpg', type=tarfile.FIFOTYPE),
    'folder outside': tar_entry('../up', type=tarfile.DIRTYPE),
}


@pytest.mark.parametrize('name', BAD_NAMES)
@pytest.mark.parametrize('kind', ['tar', 'zip'])
def test_paths_that_lead_out_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / f'train2017.{kind}'
    if kind == 'tar':
        write_tar(path, tar_entry(name))
    else:
        write_zip(path, zip_entry(name))
    with pytest.raises(UnsafeArchiveError, match='is refused: its entry'):
        open_archive(path)


@pytest.mark.parametrize('entry', BAD_ENTRIES.values(), ids=BAD_ENTRIES)
def test_entries_that_are_no_files_are_refused(
    tmp_path: Path, entry: tarfile.TarInfo
) -> None:
    path = write_tar(tmp_path / 'x.tar', entry)
    with pytest.raises(UnsafeArchiveError, match=entry.name):
        open_archive(path)


@pytest.mark.parametrize('mode', [0o120777, 0o020666, 0o010644])
def test_links_and_devices_in_zip_files_are_refused(tmp_path: Path, mode: int) -> None:
    path = write_zip(tmp_path / 'x.zip', zip_entry('a.jpg', mode))
    with pytest.raises(UnsafeArchiveError, match='link or a device'):
        open_archive(path)


def test_nothing_is_written_from_an_archive_that_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / 'x.tar', tar_entry('../../up.jpg', size=3))
    with pytest.raises(UnsafeArchiveError):
        prepare('cocostuff164k', tmp_path / 'a/root', [path])
    assert [*tmp_path.iterdir()] == [path]


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / 'x.tar', tar_entry(f'./{GOOD}', size=2))
    with pytest.raises(UnsafeArchiveError, match='twice'):
        open_archive(path)


@pytest.mark.parametrize('suffix', ['zip', 'tar.gz'])
def test_bombs_are_refused(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, 'ALWAYS_ALLOWED', 2**16)
    zeros = bytes(2**21)
    path = tmp_path / f'bomb.{suffix}'
    if suffix == 'zip':
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(GOOD, zeros)
    else:
        with tarfile.open(path, 'w:gz') as archive:
            archive.addfile(tar_entry(GOOD, size=len(zeros)), io.BytesIO(zeros))
    with pytest.raises(UnsafeArchiveError, match='unpack to more than'):
        open_archive(path)


def test_encrypted_entries_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / 'x.zip')
    data = bytearray(path.read_bytes())
    data[data.index(b'PK\x01\x02') + 8] |= 1  # the flag in the central directory
    path.write_bytes(data)
    with pytest.raises(UnsafeArchiveError, match='encrypted'):
        open_archive(path)


@pytest.mark.parametrize('suffix', ['zip', 'tar', 'tar.gz', 'tar.xz'])
def test_what_is_no_archive_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f'x.{suffix}'
    path.write_bytes(b'<html>404 not found</html>')
    with pytest.raises(PreparationError, match=r'x\..* is no readable archive'):
        open_archive(path)


@pytest.mark.parametrize('kind', ['tar', 'tar.gz'])
def test_a_download_that_was_cut_off_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f'x.{kind}'
    with tarfile.open(path, 'w:gz' if kind.endswith('gz') else 'w') as archive:
        for number in range(20):
            entry = tar_entry(f'{number}.jpg', size=3000)
            archive.addfile(entry, io.BytesIO(bytes(range(250)) * 12))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(PreparationError, match='cut off'):
        read_all(path)


def test_a_damaged_file_in_a_zip_is_noticed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / 'x.zip')
    path.write_bytes(path.read_bytes().replace(b'good', b'gold', 1))
    with pytest.raises(PreparationError, match='Bad CRC'):
        read_all(path)


@pytest.mark.parametrize('kind', ['zip', 'tar'])
def test_files_are_read_in_order(tmp_path: Path, kind: str) -> None:
    writers = dict(zip=write_zip, tar=write_tar)
    tree = open_archive(writers[kind](tmp_path / f'x.{kind}'))
    assert tree.sizes == {GOOD: 4}
    assert [(p, s.read()) for p, s in tree.read({GOOD})] == [(GOOD, b'good')]
    assert [*tree.read(set())] == []


def test_folders_with_links_are_followed_once(tmp_path: Path) -> None:
    disk = tmp_path / 'disk'
    disk.mkdir()
    (disk / 'a.jpg').write_bytes(b'abc')
    folder = tmp_path / 'folder'
    folder.mkdir()
    (folder / 'linked').symlink_to(disk)
    (folder / 'loop').symlink_to(folder)
    (folder / 'broken').symlink_to(tmp_path / 'nowhere')
    assert FolderTree(folder).sizes == {'linked/a.jpg': 3}
