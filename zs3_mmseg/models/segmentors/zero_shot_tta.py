"""Test-time augmentation that knows what scores are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mmengine.model import BaseTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import SampleList

from zs3_mmseg.models.resize import resize_maps
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.names import choose

from .encoder_decoder import ZeroShotEncoderDecoder
from .inference import ImageResult


@MODELS.register_module()
class ZeroShotTTAModel(BaseTTAModel):
    """Averages the scores of a ``ZeroShotEncoderDecoder`` over augmented views.

    Sigmoid and softmax scores are averaged as they come, calibration included. Only
    raw logits pass through a softmax first, as in mmseg's ``SegTTAModel``, which would
    put every kind of score through one.

    Args:
        module: config of the segmentor, or the segmentor.
        **kwargs: as in mmengine's ``BaseTTAModel``.

    Raises:
        ValueError: if the segmentor does not return scores.
    """

    def __init__(self, module: Any, **kwargs: Any) -> None:
        super().__init__(module, **kwargs)
        if not isinstance(self.module, ZeroShotEncoderDecoder):
            raise ConfigError(
                'ZeroShotTTAModel knows the scores of ZeroShotEncoderDecoder, and the '
                f'model is a {type(self.module).__name__}: set '
                "tta_model.type='SegTTAModel'"
            )
        returned = self.module.test_cfg.get('return_scores', True)
        if returned is not True:
            raise ValueError(
                'test-time augmentation averages scores, which '
                f'model.test_cfg.return_scores={returned!r} does not return: set it to '
                'True'
            )

        labels = [p for p in self.module.post_processors if p.space == 'label']
        if labels:
            raise ValueError(
                f'{type(labels[0]).__name__} changes the label map of one view, and '
                'test-time augmentation averages the scores of several: take it out of '
                'model.post_processors'
            )

    def merge_preds(self, data_samples_list: list[SampleList]) -> SampleList:
        """Merge the predictions of each image's views.

        Args:
            data_samples_list: for each image the samples of its views, with
                ``seg_logits`` ``(K, H, W)`` at original size.

        Returns:
            the first view's sample of each image, with the mean scores in
            ``seg_logits`` and their label map ``(1, H, W)`` in ``pred_sem_seg``.
        """
        merged = []
        for views in data_samples_list:
            total: Tensor | None = None
            for view in views:
                scores = self._scores(view)
                total = scores if total is None else total + scores
            assert total is not None  # an image has at least one view
            mean = total / len(views)
            sample, result = views[0], ImageResult(len(mean), None)
            result.update(mean, slice(0, len(mean)))
            result.write(sample, self.module.label_rule)
            merged.append(sample)
        return merged

    def _scores(self, view: SegDataSample) -> Tensor:
        scores = view.seg_logits.data
        # A pair of image and name has two logits, whatever the segmentor's scores are.
        logits = self.module.score_kind == 'logit' or 'prompt_name' in view
        return torch.softmax(scores, dim=0) if logits and len(scores) > 1 else scores


#: What :class:`MultiScaleWindowTTAModel` adds up.
SUMMED = ('logit', 'score')


def multi_scale_windows(
    images: Tensor,
    network: Callable[[Tensor], Tensor],
    *,
    base_size: int,
    crop_size: int,
    stride: int,
    scales: Sequence[float],
    flip: bool,
    fill: Tensor | float = 0.0,
) -> Tensor:
    """Return the sum of a network's maps over scales, and flips if there are any.

    At scale ``s`` the long side is ``ceil(base_size s)``; square windows start at the
    top left, and what they lack at the right and bottom is ``fill``. Where windows
    overlap, maps are averaged. All resizes are bilinear and align corners.

    Args:
        images: ``(N, 3, H, W)``, normalised.
        network: from windows ``(N, 3, crop_size, crop_size)`` to maps of their size.
        base_size: long side at scale 1.
        crop_size: side of a window.
        stride: step of the windows.
        scales: factors on ``base_size``.
        flip: add the maps of mirrored windows.
        fill: value of padded pixels, which broadcasts to ``(3, 1, 1)``.

    Returns:
        ``(N, K, H, W)``.
    """

    def padded(part: Tensor) -> Tensor:
        height, width = part.shape[-2:]
        size = max(height, crop_size), max(width, crop_size)
        if size == (height, width):
            return part
        whole = part.new_ones(*part.shape[:2], *size) * fill
        whole[..., :height, :width] = part
        return whole

    def scored(window: Tensor) -> Tensor:
        maps = network(window)
        return maps + network(window.flip(-1)).flip(-1) if flip else maps

    height, width = images.shape[-2:]
    total: Tensor | None = None
    for scale in scales:
        long_side = math.ceil(base_size * scale)
        size = (
            int(height * long_side / max(height, width) + 0.5),
            int(width * long_side / max(height, width) + 0.5),
        )
        whole = padded(resize_maps(images, size, True))
        maps: Tensor | None = None
        counts = whole.new_zeros(whole.shape[-2:])
        starts = (
            range(0, max(side - crop_size + stride, 1), stride)
            for side in whole.shape[-2:]
        )
        for top, left in itertools.product(*starts):
            place = (
                slice(top, min(top + crop_size, whole.shape[-2])),
                slice(left, min(left + crop_size, whole.shape[-1])),
            )
            window = whole[(..., *place)]
            found = scored(padded(window))[..., : window.shape[-2], : window.shape[-1]]
            if maps is None:
                maps = found.new_zeros(*found.shape[:2], *whole.shape[-2:])
            maps[(..., *place)] += found
            counts[place] += 1
        assert maps is not None  # there is at least one window
        maps = (maps / counts)[..., : size[0], : size[1]]
        maps = resize_maps(maps, (height, width), True)
        total = maps if total is None else total + maps
    assert total is not None  # there is at least one scale
    return total


@MODELS.register_module()
class MultiScaleWindowTTAModel(ZeroShotTTAModel):
    """LSeg's multi-scale evaluation of ADE20K, see :func:`multi_scale_windows`.

    Images come as they are, in one view: its ``tta_pipeline`` resizes and flips
    nothing.

    Args:
        module: config of the segmentor, or the segmentor.
        base_size: long side at scale 1.
        crop_size: side of a window.
        stride: step of the windows.
        scales: factors on ``base_size``.
        flip: use mirrored windows as well.
        summed: ``'logit'`` adds up raw logits, as the released code does, so that
            scales whose logits are large count more, and calibrators have no part in
            it; ``'score'`` averages calibrated scores, as :class:`ZeroShotTTAModel`.
        **kwargs: as in mmengine's ``BaseTTAModel``.

    Raises:
        ValueError: for numbers out of range, or logits with calibrators.
    """

    def __init__(
        self,
        module: Any,
        *,
        base_size: int = 520,
        crop_size: int = 480,
        stride: int = 320,
        scales: Sequence[float] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
        flip: bool = True,
        summed: str = 'score',
        **kwargs: Any,
    ) -> None:
        super().__init__(module, **kwargs)
        self.summed = choose('tta_model.summed', summed, SUMMED)
        if not scales or min(base_size, crop_size, stride, *scales) <= 0:
            raise ValueError(
                'tta_model needs base_size, crop_size, stride and scales above 0, not '
                f'{base_size}, {crop_size}, {stride} and {tuple(scales)}'
            )
        if stride > crop_size:
            raise ValueError(
                f'tta_model.stride={stride} is larger than crop_size={crop_size}: '
                'pixels would be left out'
            )
        if summed == 'logit' and len(self.module.calibrators):
            raise ValueError(
                "tta_model.summed='logit' adds up logits before any calibration: set "
                "model.calibrators=[] or summed='score'"
            )
        self._options: dict[str, Any] = dict(
            base_size=base_size,
            crop_size=crop_size,
            stride=stride,
            scales=tuple(scales),
            flip=flip,
        )

    def test_step(self, data: Any) -> SampleList:
        """Return samples with summed scores; ``data`` has one view of each image."""
        if len(data['inputs']) != 1:
            raise ValueError(
                f'{type(self).__name__} resizes and flips for itself: let tta_pipeline '
                f'make one view, not {len(data["inputs"])}'
            )
        module = self.module
        prepared = module.data_preprocessor(
            {key: value[0] for key, value in data.items()}, False
        )
        samples = prepared['data_samples']
        left, right, top, bottom = samples[0].metainfo.get(
            'img_padding_size', (0, 0, 0, 0)
        )
        images = prepared['inputs']
        height, width = images.shape[-2:]
        images = images[..., top : height - bottom, left : width - right]
        maps = multi_scale_windows(
            images, self._maps, fill=self._black(), **self._options
        )
        views = len(self._options['scales']) * (1 + self._options['flip'])
        for sample, scores in zip(samples, maps, strict=True):
            result = ImageResult(len(scores), None)
            mean = scores if self.summed == 'logit' else scores / views
            full = resize_maps(
                mean[None], sample.metainfo['ori_shape'][:2], module.align_corners
            )
            result.update(full[0], slice(0, len(scores)))
            result.write(sample, module.label_rule, module.post_processors)
        return samples

    def _maps(self, windows: Tensor) -> Tensor:
        """Return logits or scores of windows, at their size."""
        if self.summed == 'score':
            return self.module.encode_decode(windows, [{}] * len(windows))
        logits = self.module._forward(windows).float()
        size = (windows.shape[2], windows.shape[3])
        return resize_maps(logits, size, self.module.align_corners)

    def _black(self) -> Tensor | float:
        """Return what a black pixel is after normalisation."""
        preprocessor = self.module.data_preprocessor
        if not getattr(preprocessor, '_enable_normalize', False):
            return 0.0
        return -preprocessor.mean / preprocessor.std
