"""A short run of the fuzzer, and what it and others have found."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import fuzz
import numpy as np
import pytest
import torch
from PIL import Image

from zs3_mmseg.datasets.folder import read_palette
from zs3_mmseg.datasets.preparation.archives import PreparationError, open_archive
from zs3_mmseg.datasets.preparation.labels import read_mat
from zs3_mmseg.models.class_embeddings.sources import TensorSource, WordVectorSource
from zs3_mmseg.utils.checkpoint import CheckpointError, UnsafeCheckpointError, safe_load
from zs3_mmseg.utils.image_io import ImageReadError, decode_image

CASES = 60


@pytest.mark.parametrize('target', fuzz.targets(), ids=lambda target: target.name)
def test_damaged_files_are_refused_by_name(target: fuzz.Target) -> None:
    for data in target.seeds:
        assert data  # whole files are read, or the damage would mean nothing
    found = fuzz.run_target(target, CASES, seed=0)
    assert found.cases == CASES
    assert fuzz.problems(target, found) == []


@pytest.mark.parametrize('target', fuzz.targets(), ids=lambda target: target.name)
def test_whole_files_are_read(target: fuzz.Target, tmp_path: Path) -> None:
    for number, data in enumerate(target.seeds):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / f'whole{target.suffix}'
        path.write_bytes(data)
        if (target.name, number) not in (('mask', 2),):  # with transparent pixels
            target.read(path)


# ------------------------------------------------------------------------- bombs


def test_a_checkpoint_that_unpacks_to_more_than_it_is(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save({'a': torch.zeros(2**20)}, stream)
    bomb = tmp_path / 'bomb.pth'
    packing = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(stream) as whole, zipfile.ZipFile(bomb, 'w', packing) as new:
        for name in whole.namelist():
            new.writestr(name, whole.read(name))
    with pytest.raises(
        CheckpointError, match=r'bomb\.pth is refused: .* that unpack to'
    ):
        safe_load(bomb)


def test_a_tar_with_a_name_of_gigabytes(tmp_path: Path) -> None:
    entry = tarfile.TarInfo('long')
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 3 * 2**30
    bomb = tmp_path / 'bomb.tar.gz'
    bomb.write_bytes(gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) + bytes(2**20)))
    with pytest.raises(PreparationError, match='bytes of a name or attributes'):
        open_archive(bomb)


def test_a_tar_with_a_record_longer_than_numbers_go(tmp_path: Path) -> None:
    content = b'%d path=x\n' % 10**30
    entry = tarfile.TarInfo('x')
    entry.type, entry.size = tarfile.XHDTYPE, len(content)
    path = tmp_path / 'data.tar.gz'
    padded = content.ljust(512, b'\0') + bytes(1024)
    path.write_bytes(gzip.compress(entry.tobuf() + padded))
    with pytest.raises(PreparationError, match=r'data\.tar\.gz'):
        open_archive(path)


def test_a_zip_with_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / 'data.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('é.txt', b'x')  # marked as UTF-8
    path.write_bytes(path.read_bytes().replace('é'.encode(), b'\xff\xff'))
    with pytest.raises(PreparationError, match=r'data\.zip'):
        open_archive(path)


def test_a_jpeg_of_another_size(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new('RGB', (16, 16)).save(stream, 'JPEG')
    raw = bytearray(stream.getvalue())
    place = raw.index(b'\xff\xc0') + 5
    raw[place : place + 4] = struct.pack('>HH', 8000, 8000)
    (tmp_path / 'blank.jpg').write_bytes(raw)
    with pytest.raises(ImageReadError, match='cannot hold 8000 x 8000 pixels'):
        decode_image(tmp_path / 'blank.jpg')


def test_arrays_and_vectors_that_claim_more_than_there_is(tmp_path: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (10**6, 10**6), }"
    text = header.replace('10**6', str(10**6)).encode() + b'\n'
    file = tmp_path / 'rows.npy'
    file.write_bytes(b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text)
    with pytest.raises(ValueError, match=r'rows\.npy is no plain \.npy array'):
        TensorSource(file).rows(['ant'], True, None)
    torch.save(torch.zeros(1).expand(10**6, 10**6), tmp_path / 'rows.pt')
    with pytest.raises(ValueError, match=r'rows\.pt holds .* not stored'):
        TensorSource(tmp_path / 'rows.pt').rows(['ant'], True, None)
    (tmp_path / 'words.bin').write_bytes(b'3 1000000000000\nant ')
    with pytest.raises(ValueError, match=r'words\.bin claims vectors of'):
        WordVectorSource(tmp_path / 'words.bin').rows(['ant'], True, None)


@pytest.mark.parametrize('kind', [0, 8, 14, 15, 99, 200])
def test_a_matlab_file_with_a_type_that_ends_scipy(kind: int) -> None:
    savemat = pytest.importorskip('scipy.io').savemat
    stream = io.BytesIO()
    savemat(stream, dict(labels=np.arange(12.0).reshape(3, 4) + 0.5))
    raw = bytearray(stream.getvalue())
    place = raw.index(np.float64(0.5).tobytes()) - 8  # the tag of the numbers
    raw[place : place + 4] = struct.pack('<I', kind)
    with pytest.raises(PreparationError, match=f'of the type {kind}'):
        read_mat(bytes(raw), 'labels', 'x.mat')


class _Poison:
    def __reduce__(self) -> tuple:
        return exec, ('raise SystemExit(9)',)


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_a_bare_poisoned_pickle_is_called_what_it_is(
    tmp_path: Path, protocol: int
) -> None:
    file = tmp_path / 'model.pth'
    file.write_bytes(pickle.dumps({'a': _Poison()}, protocol=protocol))
    with pytest.raises(
        UnsafeCheckpointError, match=r"would call '(\w+\.)?exec'"
    ) as caught:
        safe_load(file)
    assert 'weights_only' not in str(caught.value)
    assert 'trust' not in str(caught.value)


def _spanned_archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as archive:
        archive.writestr('a', 'b')
    # The locator of a zip64 end that says there are two disks.
    locator = b'PK\x06\x07' + struct.pack('<LQL', 0, 0, 2)
    data = stream.getvalue()
    return data[:-22] + locator + data[-22:]


@pytest.mark.parametrize(
    'raw', [bytes(999), _spanned_archive()], ids=['zeros', 'disks']
)
def test_what_is_no_checkpoint_at_all(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / 'other.pth').write_bytes(raw)
    with pytest.raises(CheckpointError, match=r'other\.pth') as caught:
        safe_load(tmp_path / 'other.pth')
    assert 'weights_only' not in str(caught.value)


def test_a_palette_with_an_empty_synonym(tmp_path: Path) -> None:
    (tmp_path / 'palette.txt').write_text('0 0 0 an|\n1 1 1 bee\n')
    with pytest.raises(ValueError, match=r'palette\.txt, line 1: .* empty synonym'):
        read_palette(tmp_path, ['ant', 'bee'], 255)
