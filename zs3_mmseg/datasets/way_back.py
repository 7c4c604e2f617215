"""Can what is predicted for a test picture be brought back to the size of its file?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mmcv.transforms
from mmseg.datasets import transforms as mmseg_transforms

from .labels import nested_pipelines
from .transforms import ForegroundCrop, LetterboxResize

# What cuts, turns or pads a picture, so that a resize alone does not lead back.
_ONE_WAY = (
    ForegroundCrop,
    mmcv.transforms.CenterCrop,
    mmcv.transforms.Pad,
    mmseg_transforms.BioMedical3DPad,
    mmseg_transforms.BioMedical3DRandomCrop,
    mmseg_transforms.RandomCrop,
    mmseg_transforms.RandomCutOut,
    mmseg_transforms.RandomMosaic,
    mmseg_transforms.RandomRotate,
    mmseg_transforms.RandomRotFlip,
)
# What each kind of transform notes for the way back.
_NOTES = {
    LetterboxResize: ('canvas_shape',),
    mmcv.transforms.RandomFlip: ('flip', 'flip_direction'),
}


def require_way_back(pipeline: Any) -> None:
    """Refuse a test pipeline whose predictions would lie beside the labels.

    Raises:
        ValueError: naming the transform, or the keys that ``PackSegInputs`` leaves out.
    """
    transforms = [*_all_of(pipeline)]
    for transform in transforms:
        if isinstance(transform, _ONE_WAY):
            raise ValueError(
                f'pipeline: {type(transform).__name__} cuts, turns or pads test '
                'pictures, so predictions would not lie on the labels of the file: '
                'leave it out. Padding is for model.data_preprocessor.test_cfg'
            )
    needed = ['ori_shape']
    for kind, notes in _NOTES.items():
        if any(isinstance(transform, kind) for transform in transforms):
            needed += notes
    for transform in transforms:
        if isinstance(transform, mmseg_transforms.PackSegInputs):
            missing = [key for key in needed if key not in transform.meta_keys]
            if missing:
                raise ValueError(
                    f'pipeline: PackSegInputs.meta_keys lacks {", ".join(missing)}, '
                    'without which predictions do not get back to the labels'
                )


def _all_of(pipeline: Any) -> Iterator[Any]:
    for transform in pipeline.transforms:
        yield transform
        for nested in nested_pipelines(transform):
            yield from _all_of(nested)
