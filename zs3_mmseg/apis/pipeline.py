"""From a picture to what the segmentor takes, by the test transforms of its config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from zs3_mmseg.apis.init import tested_dataset
from zs3_mmseg.utils.names import type_name

_FROM_FILE, _FROM_ARRAY = 'LoadImageFromFile', 'LoadImageFromNDArray'


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


def reads_labels(transform: Mapping) -> bool:
    """Whether a transform needs the truth of a picture."""
    return 'LoadAnnotations' in type_name(transform['type'])


class UnreadableHere(ValueError):
    """The reader that a config names cannot read a file."""


class PicturePipeline:
    """Prepares one picture as ``tools/test.py`` and mmseg's ``inference_model`` do.

    The transforms of the config run as they are, so that all ways give one label map;
    only those that read labels are left out, and pictures in memory take the place of
    the file that the first one reads.

    Args:
        transforms: a test pipeline, see :func:`find_test_pipeline`.
    """

    def __init__(self, transforms: Sequence[Mapping]) -> None:
        steps = [dict(step) for step in transforms if not reads_labels(step)]
        reader: dict = {'type': _FROM_FILE}
        if steps and 'Load' in type_name(steps[0]['type']):
            reader = steps.pop(0)
        # mmseg's inference_model leaves this in the config of a model.
        if type_name(reader['type']) == _FROM_ARRAY:
            reader['type'] = _FROM_FILE
        with DefaultScope.overwrite_default_scope('mmseg'):
            self._from_file = Compose([reader])
            self._from_array = Compose([{**reader, 'type': _FROM_ARRAY}])
            self._rest = Compose(steps)

    def __call__(self, picture: Path | np.ndarray) -> tuple[np.ndarray, dict]:
        """Read and prepare a picture.

        Args:
            picture: a file, or ``(H, W, 3)`` uint8, BGR.

        Returns:
            what was read, ``(H, W, 3)`` uint8 RGB, and the item for
            :func:`as_batch`: ``inputs`` ``(3, h, w)`` and a data sample that knows
            the original shape.

        Raises:
            UnreadableHere: the config's own reader does not know this kind of file.
        """
        if isinstance(picture, np.ndarray):
            results = self._from_array({'img': picture})
        else:
            try:
                results = self._from_file({'img_path': str(picture)})
            # An assertion is how mmcv tells that OpenCV returned nothing.
            except (AssertionError, cv2.error, OSError) as error:
                raise UnreadableHere(str(error)) from error
        read = np.clip(results['img'], 0, 255).astype(np.uint8)
        if read.ndim == 2:
            read = np.repeat(read[..., None], 3, axis=2)
        return np.ascontiguousarray(read[..., 2::-1]), self._rest(results)


def as_batch(item: dict) -> dict[str, list]:
    """Return one item of a test pipeline as a batch for ``test_step``."""
    inputs: torch.Tensor = item['inputs']
    return {'inputs': [inputs], 'data_samples': [item['data_samples']]}
