"""FSS-1000: a thousand classes with ten pictures each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from zs3_mmseg.datasets.splits.fss1000 import FSS1000
from zs3_mmseg.utils.image_io import read_image
from zs3_mmseg.utils.labels import special_labels
from zs3_mmseg.utils.names import choose
from zs3_mmseg.utils.palette import default_palette

_CLASSES = tuple(name for names in FSS1000.values() for name in names)
_HOME = 'https://github.com/HKUSTCV/FSS-1000'
#: A grey mask means its class from this value on, as in HSNet's and LSeg's code.
_THRESHOLD = 128


@DATASETS.register_module()
class FSS1000Dataset(BaseSegDataset):
    """FSS-1000 (Li et al., CVPR 2020) as it is unpacked::

        data_root/
          abacus/1.jpg ... 10.jpg    pictures
          abacus/1.png ... 10.png    their masks, where 128 or more is the class
          ...                        1000 folders

    Label maps hold 0 for background and 1 + i for class i of the split ``fss1000``.
    The pipeline needs :class:`~zs3_mmseg.datasets.folder.LoadFolderMasks` in place of
    ``LoadAnnotations``, which keeps 8 bits of a label.

    Args:
        data_root: the folder.
        subset: ``'trn'`` (520 classes), ``'val'`` or ``'test'`` (240 each), whose
            pictures show its own classes only.
        **kwargs: of ``BaseSegDataset``.

    Raises:
        FileNotFoundError: if a class of the subset has no folder, or a picture no mask.
        ValueError: for another subset.
    """

    METAINFO = dict(
        classes=('background', *_CLASSES),
        palette=[[0, 0, 0], *default_palette(len(_CLASSES))],
    )

    def __init__(
        self, data_root: str | os.PathLike, subset: str, **kwargs: Any
    ) -> None:
        self.subset = choose('FSS1000Dataset.subset', subset, FSS1000)
        kwargs.setdefault('ignore_index', special_labels(len(_CLASSES)).ignore)
        super().__init__(
            data_root=str(Path(data_root).expanduser()),
            img_suffix='.jpg',
            seg_map_suffix='.png',
            **kwargs,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Pair the pictures of the subset, class by class, with their masks."""
        root = Path(str(self.data_root))
        names = FSS1000[self.subset]
        gone = [name for name in names if not (root / name).is_dir()]
        if gone:
            raise FileNotFoundError(
                f'{root} has no folder of {len(gone)} of {len(names)} classes of '
                f'subset {self.subset!r}, such as {gone[0]!r}: data_root must be the '
                f'folder FSS-1000 that the archive of {_HOME} unpacks to'
            )
        pictures = [
            path for name in names for path in sorted((root / name).glob('*.jpg'))
        ]
        bare = [path for path in pictures if not path.with_suffix('.png').is_file()]
        if bare or not pictures:
            raise FileNotFoundError(
                f'{bare[0]} has no mask {bare[0].with_suffix(".png")}'
                if bare
                else f'no folder of a class in {root} holds a picture, such as '
                f'{root / names[0]}/1.jpg'
            )
        return [
            dict(
                img_path=str(path),
                seg_map_path=str(path.with_suffix('.png')),
                mask_label=_label_of(path),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            for path in pictures
        ]

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Return the annotation of one sample, and how its mask is read."""
        return dict(super().get_data_info(idx), read_mask=self.read_mask)

    def read_mask(self, path: str) -> np.ndarray:
        """Read a mask as the label of its class, and 0 elsewhere, (H, W), uint16.

        Raises:
            OSError: naming the file, if it cannot be decoded to its end.
        """
        grey = np.asarray(Image.fromarray(read_image(path)).convert('L'))
        return np.where(grey >= _THRESHOLD, _label_of(path), 0).astype(np.uint16)


def _label_of(path: str | Path) -> int:
    return 1 + _CLASSES.index(Path(path).parent.name)
