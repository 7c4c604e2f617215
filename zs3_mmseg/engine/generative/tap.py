"""A tap at the input of a decode head's classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample


class TapUser(Protocol):
    """What looks at, and replaces, things on their way through a decode head."""

    def active(self) -> bool:
        """Tell whether the tap does anything in this call of ``head.loss``."""

    def relabel(self, labels: Tensor) -> Tensor:
        """Return the labels to train with, for those of the batch, ``(N, H, W)``."""

    def replace(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the input of the classifier, for the real one, ``(N, F, h, w)``."""

    def complete(self, losses: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Return the losses of the head, for those that it computed itself."""


class ClassifierTap:
    """Wraps ``head.loss`` and the input of ``head.conv_seg`` of a decode head.

    Only calls of ``head.loss`` are touched, so prediction never is. The head keeps its
    own loss, and the runner its own step: mixed precision, clipping, accumulation and
    logging work as ever.

    Args:
        head: a ``BaseDecodeHead`` that uses ``conv_seg`` once.
        user: who looks.
    """

    def __init__(self, head: BaseDecodeHead, user: TapUser) -> None:
        self.head = head
        self.user = user
        self._handle: RemovableHandle | None = None
        self._labels: Tensor | None = None
        self._passes = 0

    def install(self) -> None:
        """Put the tap in."""
        self._loss = self.head.loss
        # On the instance: a class's own method stays what it is.
        self.head.loss = self._tapped_loss
        self._handle = self.head.conv_seg.register_forward_pre_hook(self._before)

    def remove(self) -> None:
        """Take the tap out; the head is then as it was."""
        if self._handle is None:
            return
        self._handle.remove()
        self._handle = None
        del self.head.loss

    def _tapped_loss(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        if not self.user.active():
            return self._loss(*args, **kwargs)
        samples = _find_samples(args, kwargs)
        batch = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
        labels = self.user.relabel(batch)
        if labels is not batch:
            changed = [
                _with_labels(*pair) for pair in zip(samples, labels, strict=True)
            ]
            args = tuple(changed if arg is samples else arg for arg in args)
            kwargs = {k: changed if v is samples else v for k, v in kwargs.items()}
        self._labels, self._passes = labels, 0
        try:
            losses = self._loss(*args, **kwargs)
        finally:
            self._labels = None
        if self._passes != 1:
            raise RuntimeError(
                f'{type(self.head).__name__} used conv_seg {self._passes} times to '
                'compute its loss; GenerativeRetrainingHook needs it to be used once'
            )
        return self.user.complete(losses, labels)

    def _before(self, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        if self._labels is None:
            return None
        self._passes += 1
        return (self.user.replace(inputs[0], self._labels),)


def _find_samples(args: Sequence[Any], kwargs: dict[str, Any]) -> list[SegDataSample]:
    for value in (*args, *kwargs.values()):
        if isinstance(value, list) and value and isinstance(value[0], SegDataSample):
            return value
    raise RuntimeError('the decode head was asked for its loss without data samples')


def _with_labels(sample: SegDataSample, labels: Tensor) -> SegDataSample:
    """Return a sample with other labels ``(H, W)``; the given one stays as it is."""
    changed = sample.new()
    changed.gt_sem_seg = PixelData(data=labels[None])
    return changed
