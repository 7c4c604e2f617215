from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_checkpoint

from zs3_mmseg.engine import runner
from zs3_mmseg.engine.runner import read_checkpoint, route_mmengine_loading
from zs3_mmseg.utils.checkpoint import CheckpointError, UnsafeCheckpointError


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Note the addresses and give one file for all of them."""
    asked: list[str] = []
    torch.save(
        {'backbone.w': torch.ones(1), 'head.w': torch.ones(1)}, tmp_path / 'f.pth'
    )

    def fetch(url: str) -> str:
        asked.append(url)
        return str(tmp_path / 'f.pth')

    monkeypatch.setattr(runner, '_download', fetch)
    return asked


@pytest.mark.parametrize(
    ('source', 'address'),
    [
        ('https://example.org/w.pth', 'https://example.org/w.pth'),
        ('open-mmlab://resnet50_v1c', 'resnet50_v1c'),
        ('torchvision://resnet18', 'resnet18'),
    ],
)
def test_names_of_stock_configs_lead_to_files(downloads, source, address) -> None:
    assert set(read_checkpoint(source)) == {'backbone.w', 'head.w'}
    assert address in downloads[0]


def test_classifiers_give_their_backbone(downloads) -> None:
    checkpoint = read_checkpoint('mmcls://mobilenet_v2')
    assert set(checkpoint['state_dict']) == {'w'}


def test_unknown_names_are_answered_with_close_ones(downloads) -> None:
    with pytest.raises(KeyError, match=r"Did you mean .*'resnet50_v1c'"):
        read_checkpoint('open-mmlab://resnet50_vlc')


def test_other_storages_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r'cannot read from s3://'):
        read_checkpoint('s3://bucket/w.pth')


def test_a_file_is_fetched_once(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    fetched: list[str | None] = []

    def download(url: str, target: str, prefix: str | None, progress: bool) -> None:
        fetched.append(prefix)
        torch.save({'w': torch.ones(1)}, target)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    for _ in range(2):
        read_checkpoint('https://example.org/some/net-0a1b2c3d.pth?download=1')
    assert fetched == ['0a1b2c3d']
    assert (tmp_path / 'checkpoints/net-0a1b2c3d.pth').is_file()


def test_a_file_that_cannot_be_fetched_can_be_put_there(
    monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))

    def download(*args: object, **kwargs: object) -> None:
        raise URLError('no network')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    place = tmp_path / 'checkpoints/net.pth'
    with pytest.raises(CheckpointError, match=f'no network.*{place}'):
        read_checkpoint('https://example.org/net.pth')
    torch.save({'w': torch.ones(1)}, place)
    assert read_checkpoint('https://example.org/net.pth').keys() == {'w'}


def test_everything_mmengine_loads_takes_our_way(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    route_mmengine_loading()
    model = torch.nn.Linear(1, 1)
    torch.save(model.state_dict(), tmp_path / 'good.pth')
    load_checkpoint(model, str(tmp_path / 'good.pth'))
    torch.save(model, tmp_path / 'whole_model.pth')
    with pytest.raises(UnsafeCheckpointError):
        load_checkpoint(model, str(tmp_path / 'whole_model.pth'))
