"""Files of others: read when they hold data, refused when they hold code."""

import hashlib
import io
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.logging import history_buffer as history_module

from zs3_mmseg.utils.checkpoint import (
    CheckpointError,
    DamagedCheckpointError,
    UnsafeCheckpointError,
    safe_load,
    safe_load_object,
)


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def mmengine_checkpoint() -> dict:
    hub = MessageHub('reading')
    hub.update_scalar('train/loss', 0.5)
    hub.update_scalar('train/loss', 0.25)
    hub.update_info('best_score', np.float64(31.5))
    hub.update_info('keep_ckpt_ids', [4, 8])
    return {
        'meta': {'iter': 8, 'dataset_meta': {'palette': np.zeros((2, 3), np.uint8)}},
        'state_dict': {'weight': torch.ones(2)},
        'message_hub': hub.state_dict(),
    }


@pytest.mark.parametrize('zipped', [True, False])
def test_mmengine_training_state_is_read(tmp_path: Path, zipped: bool) -> None:
    file = tmp_path / 'iter_8.pth'
    torch.save(mmengine_checkpoint(), file, _use_new_zipfile_serialization=zipped)
    read = safe_load(file)
    history = read['message_hub']['log_scalars']['train/loss']
    assert history.data[0].tolist() == [0.5, 0.25]
    assert history.statistics('mean') == 0.375
    assert read['message_hub']['runtime_info']['best_score'] == 31.5


def test_numpy_scalars_of_both_generations_are_read(tmp_path: Path) -> None:
    stream = io.BytesIO()
    content = {'best': np.float64(1.5), 'step': np.int64(7), 'rates': np.ones(3, 'f4')}
    torch.save(content, stream, _use_new_zipfile_serialization=False)
    for name in (b'numpy._core.multiarray', b'numpy.core.multiarray'):
        file = tmp_path / 'old.pth'
        raw = stream.getvalue().replace(b'numpy._core.multiarray', name)
        assert name in raw
        file.write_bytes(raw)
        read = safe_load(file)
        assert (read['best'], read['step'], read['rates'].sum()) == (1.5, 7, 3.0)


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file({'weight': torch.arange(3)}, tmp_path / 'w.safetensors')
    assert safe_load(tmp_path / 'w.safetensors')['weight'].tolist() == [0, 1, 2]


@pytest.mark.parametrize('zipped', [True, False])
def test_code_is_refused_by_name_and_not_run(tmp_path: Path, zipped: bool) -> None:
    marker = tmp_path / 'executed'
    file = tmp_path / 'poisoned.pth'
    poison = {'state_dict': {}, 'x': Calls(os.mkdir, str(marker))}
    torch.save(poison, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeCheckpointError, match=r'poisoned\.pth.*posix\.mkdir'):
        safe_load(file, trust=True)
    assert not marker.exists()
    torch.load(file, weights_only=False)  # the poison does work
    assert marker.exists()


@pytest.mark.parametrize(
    'look_up',
    [
        (HistoryBuffer, '__init__'),
        (HistoryBuffer, '__dict__'),
        (np.ndarray, 'tofile'),
        (history_module.HistoryBuffer.mean, '__globals__'),
    ],
    ids=['method', 'class-dict', 'writer', 'globals'],
)
def test_attributes_cannot_be_looked_up(tmp_path: Path, look_up: tuple) -> None:
    file = tmp_path / 'lookup.pth'
    torch.save({'x': Calls(getattr, *look_up)}, file)
    with pytest.raises(UnsafeCheckpointError, match=r'lookup\.pth'):
        safe_load(file)


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    torch.save({'x': np.array([None], object)}, tmp_path / 'objects.pth')
    with pytest.raises(CheckpointError, match=r'objects\.pth'):
        safe_load(tmp_path / 'objects.pth')


def test_whole_models_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(1, 1), tmp_path / 'model.pth')
    with pytest.raises(UnsafeCheckpointError, match=r'Linear.*state_dict\(\)'):
        safe_load(tmp_path / 'model.pth')


@pytest.mark.parametrize(
    'raw',
    [b'', b'hello', b'PK\x03\x04 no archive', pickle.dumps([1, 2], protocol=4)],
    ids=['empty', 'text', 'zip', 'other-pickle'],
)
def test_other_files_are_no_checkpoints(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / 'other.pth'
    file.write_bytes(raw)
    with pytest.raises(DamagedCheckpointError, match=rf'other\.pth.*{len(raw)} bytes'):
        safe_load(file)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('part', [0.05, 0.5, 0.95])
def test_cut_files_are_damaged(tmp_path: Path, suffix: str, part: float) -> None:
    file = tmp_path / f'cut{suffix}'
    save = save_file if suffix == '.safetensors' else torch.save
    save({'weight': torch.rand(2000)}, file)
    raw = file.read_bytes()
    file.write_bytes(raw[: int(len(raw) * part)])
    with pytest.raises(DamagedCheckpointError, match='cut'):
        safe_load(file)


def test_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / 'iter_320.pth').touch()
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'iter_320\.pth'"):
        safe_load(tmp_path / 'iter_32.pth')


def test_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='is a folder'):
        safe_load(tmp_path)


def test_tensor_alone_is_no_checkpoint_but_an_object(tmp_path: Path) -> None:
    torch.save(torch.ones(2, 3), tmp_path / 'rows.pt')
    with pytest.raises(CheckpointError, match='holds a Tensor'):
        safe_load(tmp_path / 'rows.pt')
    assert safe_load_object(tmp_path / 'rows.pt').shape == (2, 3)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    file = tmp_path / 'ViT-B-16.pt'
    torch.jit.trace(torch.nn.Linear(2, 1), torch.ones(1, 2)).save(file)
    return file


def test_torchscript_is_refused_with_its_hash(archive: Path) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    with pytest.raises(UnsafeCheckpointError, match=f'TorchScript.*{digest}.*--trust'):
        safe_load(archive)


def test_torchscript_of_a_known_publisher_is_read(archive: Path) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert safe_load(archive, known_sha256=[digest.upper()])['weight'].shape == (1, 2)


def test_trusted_torchscript_is_read(archive: Path) -> None:
    assert set(safe_load(archive, trust=True)) == {'weight', 'bias'}


def test_the_process_allows_no_more_and_no_less_afterwards(tmp_path: Path) -> None:
    torch.save(mmengine_checkpoint(), tmp_path / 'a.pth')
    with torch.serialization.safe_globals(
        [HistoryBuffer, (np.ndarray, 'numpy.ndarray')]
    ):
        before = set(torch.serialization.get_safe_globals())
        safe_load(tmp_path / 'a.pth')
        assert set(torch.serialization.get_safe_globals()) == before


def test_threads_do_not_take_each_others_permission(tmp_path: Path) -> None:
    torch.save(mmengine_checkpoint(), tmp_path / 'a.pth')
    failures: list[Exception] = []

    def read() -> None:
        try:
            for _ in range(20):
                safe_load(tmp_path / 'a.pth')
        except CheckpointError as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
