"""Parts of the tiny training runs: images from numbers, and a hook that kills."""

from __future__ import annotations

import os
import signal

import cv2
import numpy as np
from torch import Tensor, nn

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.datasets import BaseSegDataset
from mmseg.models import EncoderDecoder
from mmseg.registry import DATASETS, HOOKS, MODELS

from zs3_mmseg.utils.random_state import draw_rng


@DATASETS.register_module()
class TinySquares(BaseSegDataset):
    """Seven images of 24 x 24 with one square each, written on first use."""

    METAINFO = {
        'classes': ('ground', 'square', 'stripe'),
        'palette': [[0, 0, 0], [255, 0, 0], [0, 255, 0]],
    }

    def __init__(self, data_root: str, **kwargs: object) -> None:
        for number in range(7):
            rng = np.random.default_rng(number)
            label = np.zeros((24, 24), np.uint8)
            top, left = rng.integers(2, 12, 2)
            label[top : top + 8, left : left + 8] = 1
            label[20:22] = 2
            image = (label[..., None] * 80 + rng.integers(0, 60, (24, 24, 3))).astype(
                np.uint8
            )
            for folder, pixels in (('img', image), ('ann', label)):
                os.makedirs(os.path.join(data_root, folder), exist_ok=True)
                path = os.path.join(data_root, folder, f'{number}.png')
                if not os.path.exists(path):
                    cv2.imwrite(path, pixels)
        super().__init__(
            data_root=data_root,
            img_suffix='.png',
            seg_map_suffix='.png',
            data_prefix={'img_path': 'img', 'seg_map_path': 'ann'},
            **kwargs,
        )

    def __getitem__(self, idx: int) -> dict:
        with draw_rng(idx):
            return super().__getitem__(idx)


@HOOKS.register_module()
class KillAfter(Hook):
    """Kill the process like a lost machine would, after so many iterations.

    Or send it another signal, and only to the process of one rank.
    """

    priority = 'LOWEST'

    def __init__(
        self, iteration: int, number: int = signal.SIGKILL, rank: int | None = None
    ) -> None:
        self.iteration = iteration
        self.number = number
        self.rank = rank

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        meant = self.rank is None or self.rank == runner.rank
        if meant and runner.iter + 1 == self.iteration:
            os.kill(os.getpid(), self.number)


@MODELS.register_module()
class FrozenEncoderDecoder(EncoderDecoder):
    """A segmentor in which nothing learns, like dense CLIP without training."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.requires_grad_(False)


@MODELS.register_module()
class OneConvolution(nn.Module):
    """A backbone of one 1 x 1 convolution from 3 to 5 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1, bias=False)

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Map ``(N, 3, H, W)`` to ``(N, 5, H, W)``."""
        return (self.conv(image),)
