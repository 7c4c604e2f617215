"""The object classes of COCO as label maps."""

from __future__ import annotations

from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from zs3_mmseg.datasets.splits.classes import COCO80
from zs3_mmseg.utils.palette import default_palette


@DATASETS.register_module()
class COCOObjectsDataset(BaseSegDataset):
    """COCO's 80 object classes and background, of 2014 (COCO-20i) or 2017.

    Label maps hold 0 for background, 1 to 80 for the classes and 255 for regions that
    COCO marks as a crowd. ``python tools/prepare_data.py coco20i`` makes them from the
    instance annotations; :mod:`zs3_mmseg.datasets.preparation.coco_objects` says how.

    Args:
        img_suffix: how the names of images end.
        seg_map_suffix: how the names of label maps end; ``'.png'`` for maps of the
            same labels that few-shot projects hand out.
        **kwargs: of ``BaseSegDataset``.
    """

    METAINFO = dict(
        classes=('background', *COCO80),
        palette=[[0, 0, 0], *default_palette(len(COCO80))],
    )

    def __init__(
        self,
        img_suffix: str = '.jpg',
        seg_map_suffix: str = '_instanceTrainIds.png',
        **kwargs: Any,
    ) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)
