"""What ``test_cfg`` may say, checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

MODES = ('whole', 'slide')
#: Value of ``return_scores`` that keeps the best class of each group.
GROUPS = 'groups'


@dataclass(frozen=True)
class InferenceOptions:
    """Options of ``test_cfg``.

    Attributes:
        mode: ``'whole'`` image at once, or ``'slide'`` a window over it.
        crop_size: height and width of the window.
        stride: vertical and horizontal step of the window.
        slide_batch_size: how many windows run through the network as one batch.
        mask_size: height and width that mask logits are resized to before the
            activation; None: the input's size. Published configs of methods whose
            official code does so state its training size.
        class_chunk: how many classes are handled at full resolution at a time.
        return_scores: put all class scores into the results. If False only label maps
            are made, with memory that does not grow with the number of classes.
            ``'groups'`` does that too and keeps the best seen and the best unseen
            class of each pixel in ``group_best``, for metrics that look at the groups.
        score_thr: with a single class, pixels that score at least this are it.
    """

    mode: str = 'whole'
    crop_size: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    slide_batch_size: int = 16
    mask_size: tuple[int, int] | None = None
    class_chunk: int = 8
    return_scores: bool | str = True
    score_thr: float = 0.5

    @classmethod
    def from_cfg(cls, cfg: Mapping[str, Any] | None) -> InferenceOptions:
        """Read the options out of a ``test_cfg``; keys of others are left alone.

        Raises:
            ValueError: naming the key whose value is wrong or missing.
        """
        cfg = cfg or {}
        known = {f.name: cfg[f.name] for f in fields(cls) if f.name in cfg}
        for name in ('crop_size', 'stride', 'mask_size'):
            if known.get(name) is not None:
                known[name] = _pair(name, known[name])
        options = cls(**known)
        if options.mode not in MODES:
            raise ValueError(
                f'test_cfg.mode must be one of {MODES}, not {options.mode!r}'
            )
        if options.mode == 'slide':
            options._check_window()
        returned = options.return_scores
        if not isinstance(returned, bool) and returned != GROUPS:
            raise ValueError(
                f'test_cfg.return_scores must be True, False or {GROUPS!r}, not '
                f'{returned!r}'
            )
        for name in ('slide_batch_size', 'class_chunk'):
            value = getattr(options, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f'test_cfg.{name} must be an int >= 1, not {value!r}')
        return options

    def _check_window(self) -> None:
        if self.crop_size is None or self.stride is None:
            raise ValueError(
                "test_cfg.mode='slide' needs test_cfg.crop_size and test_cfg.stride, "
                'two ints each'
            )
        if any(s > c for s, c in zip(self.stride, self.crop_size, strict=True)):
            raise ValueError(
                f'test_cfg.stride={self.stride} is larger than '
                f'test_cfg.crop_size={self.crop_size}: pixels would be left out'
            )


def _pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, int) and v > 0 for v in pair):
        raise ValueError(
            f'test_cfg.{name} must be a positive int or two of them, not {value!r}'
        )
    return pair
