"""``ShapesDataset``: the embedded world as an ordinary mmseg data set."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from zs3_mmseg.datasets.shapes.scene import (
    CAPTIONS,
    IMAGES,
    LABELS,
    generate,
    subset_folder,
)
from zs3_mmseg.datasets.shapes.vocabulary import CLASSES, PALETTE, VOID
from zs3_mmseg.utils.names import choose

#: Subsets for segmentation and their default numbers of scenes.
DEFAULT_SIZES = {
    'train': 4000,
    'val': 300,
    'test': 600,
    'test_neutral': 300,
    'test_hard': 300,
}


@DATASETS.register_module()
class ShapesDataset(BaseSegDataset):
    """Procedural scenes of 16 things on 4 grounds with pixel-exact masks.

    On disk and in memory, pixel value ``k`` is class ``METAINFO['classes'][k]`` and
    255 is clutter without a class. The PNG files are drawn on first use into a
    folder below ``data_root`` named after subset, recipe version, seed and number,
    so that other settings never meet stale files; the same settings give the same
    bytes. Each sample carries its image-level ``caption``.

    Args:
        data_root: folder for the generated files.
        subset: ``'train'``, ``'val'``, ``'test'``, ``'test_neutral'`` (no
            class-typical colours) or ``'test_hard'`` (three objects that hide parts
            of each other).
        num_images: number of scenes; the first so many of the subset. Defaults to
            4000, 300, 600, 300 and 300.
        seed: seed of the world. Subsets and seeds share no scene.
        workers: processes to draw with on first use; all cores by default.
        kwargs: of mmseg's ``BaseSegDataset``, such as ``pipeline`` or ``metainfo``.

    Raises:
        ValueError: if the subset is unknown, or a number is out of range.
    """

    METAINFO = dict(classes=CLASSES, palette=[list(colour) for colour in PALETTE])

    def __init__(
        self,
        data_root: str | os.PathLike = 'data/shapes',
        subset: str = 'train',
        num_images: int | None = None,
        *,
        seed: int = 0,
        workers: int | None = None,
        **kwargs: Any,
    ) -> None:
        choose('subset', subset, DEFAULT_SIZES)
        if num_images is not None and num_images < 1:
            raise ValueError(f'expected num_images >= 1 or None, got {num_images}')
        if seed < 0:
            raise ValueError(f'expected seed >= 0, got {seed}')
        self.subset = subset
        self.num_images = num_images or DEFAULT_SIZES[subset]
        self.seed = seed
        self._root = Path(data_root)
        self._workers = workers
        kwargs.setdefault('ignore_index', VOID)
        super().__init__(
            data_root=str(subset_folder(data_root, subset, self.num_images, seed)),
            data_prefix=dict(img_path=IMAGES, seg_map_path=LABELS),
            img_suffix='.png',
            seg_map_suffix='.png',
            reduce_zero_label=False,
            **kwargs,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Draw the files if they are missing, then list them with their captions.

        Raises:
            FileNotFoundError: if files of an earlier run have been deleted.
        """
        folder = generate(
            self._root, self.subset, self.num_images, self.seed, workers=self._workers
        )
        data_list = super().load_data_list()
        if len(data_list) != self.num_images:
            raise FileNotFoundError(
                f'expected {self.num_images} images in {folder / IMAGES}, found '
                f'{len(data_list)}. Delete {folder}: it is drawn again on next use.'
            )
        captions = json.loads((folder / CAPTIONS).read_text())
        for info in data_list:
            info['caption'] = captions[Path(info['img_path']).stem]
        return data_list
