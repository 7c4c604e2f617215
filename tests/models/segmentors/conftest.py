"""A segmentor of toy parts: every number in it can be computed by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from zs3_mmseg.models.class_embeddings import ClassEmbeddings, split_names
from zs3_mmseg.models.decode_heads import ZeroShotHead
from zs3_mmseg.models.segmentors import ZeroShotEncoderDecoder

DIM = 6
PATCH = 4


@MODELS.register_module()
class ToyPatches(nn.Module):
    """One convolution of patches; like OpenCLIPViT in all that a segmentor sees."""

    def __init__(self, grid: str = 'pad', out_global: bool = False) -> None:
        super().__init__()
        self.patch_size = PATCH
        self.grid_mode = grid
        self.out_global = out_global
        self.out_channels = (DIM,)
        self.conv = nn.Conv2d(3, DIM, PATCH, PATCH)

    def forward(self, img: Tensor) -> tuple[Tensor, ...]:
        if self.grid_mode == 'pad':
            height, width = img.shape[-2:]
            img = F.pad(img, (0, -width % PATCH, 0, -height % PATCH))
        maps = self.conv(img)
        return (maps, maps.mean(dim=(2, 3))) if self.out_global else (maps,)


class _ToyRowsHead(ZeroShotHead):
    """Dot products of patches and rows, with a trained scale."""

    def __init__(self, in_channels: int, **kwargs: Any) -> None:
        super().__init__(in_channels, **kwargs)
        self.factor = nn.Parameter(torch.tensor(3.0))

    def query_logits(
        self, inputs: Sequence[Tensor], *, queries: Any, global_token: Any = None
    ) -> Tensor:
        maps = self._transform_inputs(inputs)
        return self.factor * torch.einsum('nchw,qc->nqhw', maps, queries.embeddings)


@MODELS.register_module()
class ToySoftmaxHead(_ToyRowsHead):
    score_kind = 'softmax'


@MODELS.register_module()
class ToySigmoidHead(_ToyRowsHead):
    score_kind = 'sigmoid'


@MODELS.register_module()
class ToyLogitHead(_ToyRowsHead):
    score_kind = 'logit'


@MODELS.register_module()
class ToyPlainHead(BaseDecodeHead):
    """A head as mmseg users write them, which only declares ``queries``."""

    score_kind = 'sigmoid'

    def forward(self, inputs: Sequence[Tensor], queries: Any = None) -> Tensor:
        return torch.einsum('nchw,qc->nqhw', inputs[-1], queries.embeddings)

    def predict(
        self, inputs: Any, batch_img_metas: Any, test_cfg: Any, queries: Any = None
    ) -> Tensor:
        return self.forward(inputs, queries=queries)


def toy_rows(texts: Sequence[str]) -> Tensor:
    """A row for every text, always the same one."""
    rows = []
    for text in texts:
        seed = sum(ord(letter) * 31**place for place, letter in enumerate(text))
        generator = torch.Generator().manual_seed(seed % 2**31)
        rows.append(torch.randn(DIM, generator=generator))
    return torch.stack(rows)


class ToyBank:
    """Keeps book of the names it was asked for."""

    dim = DIM

    def __init__(self, tower: str = 'toy') -> None:
        self.asked: list[tuple[str, ...]] = []
        self.tower = tower

    def embed(self, names: Sequence[str]) -> ClassEmbeddings:
        self.asked.append(tuple(names))
        texts, classes = split_names(names)
        return ClassEmbeddings(
            embeddings=toy_rows(texts),
            query_to_class=torch.tensor(classes),
            names=tuple(names),
            provenance={'templates': '["{}"]', 'tower_hash': self.tower},
        )


SPLIT = dict(
    name='toy',
    classes=['ant', 'bee', 'cat', 'dog', 'eel'],
    unseen=['bee', 'dog'],
)


@pytest.fixture
def toy_bank() -> ToyBank:
    return ToyBank()


@pytest.fixture
def make_bank() -> type[ToyBank]:
    return ToyBank


@pytest.fixture
def rows_of() -> Callable[[Sequence[str]], Tensor]:
    return toy_rows


@pytest.fixture
def make_segmentor(toy_bank: ToyBank) -> Callable[..., ZeroShotEncoderDecoder]:
    """Build a segmentor; ``head``, ``backbone`` and ``test_cfg`` are merged."""

    def build(
        head: str | dict = 'ToySoftmaxHead',
        *,
        grid: str = 'pad',
        out_global: bool = False,
        **kwargs: Any,
    ) -> ZeroShotEncoderDecoder:
        torch.manual_seed(0)
        options: dict[str, Any] = dict(
            class_embeddings=toy_bank, split=SPLIT, setting='inductive'
        )
        return ZeroShotEncoderDecoder(
            dict(type='ToyPatches', grid=grid, out_global=out_global),
            dict(type=head) if isinstance(head, str) else head,
            **(options | kwargs),
        ).eval()

    return build


@pytest.fixture
def make_samples() -> Callable[..., list[SegDataSample]]:
    """Make samples with labels ``(N, H, W)`` and metainfo."""

    def make(labels: Tensor, **meta: Any) -> list[SegDataSample]:
        samples = []
        for label_map in labels:
            size = tuple(label_map.shape)
            info = dict(ori_shape=size, img_shape=size, pad_shape=size) | meta
            sample = SegDataSample(metainfo=info)
            sample.gt_sem_seg = PixelData(data=label_map[None].clone())
            samples.append(sample)
        return samples

    return make
