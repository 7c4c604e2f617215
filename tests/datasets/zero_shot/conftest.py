from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_folder import CLASSES, MASK, PIPELINE, Folder

from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def _mmseg_scope() -> None:
    if DefaultScope.get_current_instance() is None:
        DefaultScope.get_instance('zero_shot_dataset', scope_name='mmseg')


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Write masks and images of the same size; return the data set's config."""

    def write(
        masks: Sequence[np.ndarray] = (MASK,), name: str = 'data', **overrides: Any
    ) -> dict[str, Any]:
        root = tmp_path / name
        for kind in ('images', 'masks'):
            (root / kind).mkdir(parents=True, exist_ok=True)
        for index, mask in enumerate(masks):
            Image.fromarray(mask).save(root / f'masks/{index}.png')
            image = np.full((*mask.shape[:2], 3), 10 * index, np.uint8)
            Image.fromarray(image).save(root / f'images/{index}.png')
        config = dict(
            type='BaseSegDataset',
            metainfo=dict(classes=CLASSES),
            data_root=str(root),
            data_prefix=dict(img_path='images', seg_map_path='masks'),
            img_suffix='.png',
            pipeline=PIPELINE,
            serialize_data=False,  # it collects garbage, which takes long here
        )
        return {**config, **overrides}

    return write
