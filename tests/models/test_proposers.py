from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zs3_mmseg.models.proposers import Proposer
from zs3_mmseg.utils.cache import CACHE_ENV


class Bands(Proposer):
    """Masks of brightness: as many bands as asked for."""

    def __init__(self, bands: int = 3, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.bands = bands
        self.calls = 0

    @property
    def fingerprint(self) -> str:
        return str(self.bands)

    def propose(self, image: Tensor) -> Tensor:
        self.calls += 1
        band = image.float().mean(dim=0) * self.bands // 256
        return torch.stack([band == index for index in range(self.bands)])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_ENV, str(tmp_path))
    return tmp_path / 'proposals'


def picture(seed: int = 0, height: int = 5, width: int = 7) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=random).float()


def test_masks_come_from_the_disk_in_another_process(cache: Path) -> None:
    image = picture()
    first, second = Bands(), Bands()  # the second stands for another process
    masks = first(image)
    assert torch.equal(masks, first.propose(image.byte()))
    assert torch.equal(second(image), masks)
    assert second.calls == 0
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    ('bands', 'image'),
    [
        (3, picture(seed=1)),
        (3, picture().reshape(3, 7, 5)),  # the same bytes, another shape
        (4, picture()),
    ],
    ids=['pixels', 'shape', 'options'],
)
def test_another_image_or_option_is_another_entry(bands: int, image: Tensor) -> None:
    Bands(3)(picture())
    proposer = Bands(bands)
    assert torch.equal(proposer(image), proposer.propose(image.byte()))
    assert proposer.calls == 2


def test_windows_of_a_picture_ask_once_without_a_disk(cache: Path) -> None:
    proposer = Bands(cache=False, kept_images=1)
    for image in (picture(), picture(), picture(1), picture()):
        proposer(image)
    assert proposer.calls == 3
    assert not cache.exists()


@pytest.mark.parametrize('content', [b'', b'no tensors', b'\xff' * 64])
def test_a_damaged_file_is_made_again(cache: Path, content: bytes) -> None:
    masks = Bands()(picture())
    (entry,) = cache.iterdir()
    entry.write_bytes(content)
    again = Bands()
    assert torch.equal(again(picture()), masks)
    assert again.calls == 1
    after = Bands()
    after(picture())
    assert after.calls == 0


@given(st.integers(0, 5), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_packing_keeps_every_mask(
    bands: int, height: int, width: int, seed: int
) -> None:
    class Noise(Bands):
        def propose(self, image: Tensor) -> Tensor:
            random = torch.Generator().manual_seed(seed)
            return torch.rand(bands, height, width, generator=random) < 0.5

    proposer = Noise(bands, cache=False)
    image = picture(seed, height, width)
    assert torch.equal(proposer(image), proposer.propose(image))


@pytest.mark.parametrize(
    ('masks', 'message'),
    [
        (torch.zeros(2, 5, 7), 'Wrong.propose returned torch.float32'),
        (torch.zeros(2, 7, 5, dtype=torch.bool), r'expected bool masks \(M, 5, 7\)'),
    ],
)
def test_what_is_no_mask_is_refused(masks: Tensor, message: str) -> None:
    class Wrong(Bands):
        def propose(self, image: Tensor) -> Tensor:
            return masks

    with pytest.raises(ValueError, match=message):
        Wrong()(picture())


def test_at_least_one_image_is_kept() -> None:
    with pytest.raises(ValueError, match='kept_images must be >= 1, not 0'):
        Bands(kept_images=0)
