"""From a picture of any size to what the segmentor takes, as the config's test does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from zs3_mmseg.apis.init import tested_dataset

_RESIZES = ('Resize', 'ResizeShortestEdge')


def find_test_pipeline(config: Config) -> list[ConfigDict]:
    """Return the transforms of a config's test data, those in wrappers included."""
    if config.get('test_pipeline'):
        return list(config.test_pipeline)
    dataset = tested_dataset(config)
    if not dataset.get('pipeline'):
        raise ValueError(
            f'the config {config.filename or ""} has neither test_pipeline nor '
            'test_dataloader.dataset.pipeline, so the size to which pictures are '
            'brought is unknown'
        )
    return list(dataset['pipeline'])


def target_size(
    height: int, width: int, *, short: int, long: int, least: int
) -> tuple[int, int]:
    """Return the size at which a picture is segmented, keeping the ratio of its sides.

    The short side becomes ``short`` unless the long side would exceed ``long``; that
    is mmcv's ``Resize(scale=(long, short), keep_ratio=True)``. Very long strips would
    end up thinner than a patch there, or without any pixel: their short side becomes
    ``least`` and the ratio gives way.
    """
    factor = min(long / max(height, width), short / min(height, width))
    # Rounding as in mmcv.rescale_size.
    return (
        max(least, int(height * factor + 0.5)),
        max(least, int(width * factor + 0.5)),
    )


@dataclass(frozen=True)
class FitResize:
    """Bring the picture to the size the config asks for; a transform of pictures only.

    It equals the config's own resize, except that a picture is shrunk to less than
    half by area, which averages, instead of sampling single pixels; and that no side
    falls below ``least``.

    Attributes:
        short: wanted length of the short side; None keeps the size.
        long: largest length of the long side.
        least: smallest length of either side.
        interpolation: cv2's flag for all other scales.
    """

    short: int | None
    long: int
    least: int
    interpolation: int = cv2.INTER_LINEAR

    def __call__(self, results: dict) -> dict:
        """Resize ``results['img']`` ``(H, W, 3)`` and note its new shape."""
        image = results['img']
        height, width = image.shape[:2]
        new_height, new_width = target_size(
            height,
            width,
            short=self.short or max(self.least, min(height, width)),
            long=self.long,
            least=self.least,
        )
        shrinks = min(height / new_height, width / new_width) > 2
        if (new_height, new_width) != (height, width):
            image = cv2.resize(
                image,
                (new_width, new_height),
                interpolation=cv2.INTER_AREA if shrinks else self.interpolation,
            )
        results['img'] = image
        results['img_shape'] = image.shape[:2]
        results['scale_factor'] = (new_width / width, new_height / height)
        results['keep_ratio'] = True
        return results


_INTERPOLATIONS = {
    'nearest': cv2.INTER_NEAREST,
    'bilinear': cv2.INTER_LINEAR,
    'bicubic': cv2.INTER_CUBIC,
    'area': cv2.INTER_AREA,
    'lanczos': cv2.INTER_LANCZOS4,
}


def _own_resize(transform: Mapping, least: int) -> FitResize | Mapping:
    """Return our resize in place of one that keeps the ratio; others stay."""
    scale = transform.get('scale')
    if transform['type'] == 'Resize' and not transform.get('keep_ratio'):
        return transform
    if scale is None:
        return transform
    sides = (scale, scale) if isinstance(scale, int) else tuple(scale)
    interpolation = transform.get('interpolation', 'bilinear')
    return FitResize(
        short=min(sides),
        long=transform.get('max_size', max(sides)),
        least=least,
        interpolation=_INTERPOLATIONS[interpolation],
    )


def build_pipeline(
    transforms: Sequence[Mapping], *, least: int = 1, max_side: int = 4096
) -> Callable[[np.ndarray], dict]:
    """Return a function from a picture to one item for ``model.test_step``.

    The config's test transforms run as they are, without those that read files, and
    with :class:`FitResize` for its resize.

    Returns:
        a function of an RGB picture ``(H, W, 3)`` uint8, which gives ``inputs``
        ``(3, h, w)`` and a data sample that knows the original shape.
    """
    init_default_scope('mmseg')
    chosen: list[Mapping | FitResize] = []
    for transform in transforms:
        name = str(transform['type'])
        if 'Load' in name:
            continue
        chosen.append(_own_resize(transform, least) if name in _RESIZES else transform)
    if not any(
        isinstance(transform, FitResize) or transform['type'] in _RESIZES
        for transform in chosen
    ):
        chosen.insert(0, FitResize(short=None, long=max_side, least=least))
    compose = Compose(chosen)

    def prepare(image: np.ndarray) -> dict:
        shape = image.shape[:2]
        return compose(
            {
                # mmcv's readers give BGR, and the data preprocessor swaps it.
                'img': np.ascontiguousarray(image[..., ::-1]),
                'img_path': None,
                'img_shape': shape,
                'ori_shape': shape,
            }
        )

    return prepare


def as_batch(item: dict) -> dict[str, list]:
    """Return one item of :func:`build_pipeline` as a batch for ``test_step``."""
    inputs: torch.Tensor = item['inputs']
    return {'inputs': [inputs], 'data_samples': [item['data_samples']]}
