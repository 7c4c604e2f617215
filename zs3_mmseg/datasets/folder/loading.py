"""The pipeline step that loads masks of a folder."""

from __future__ import annotations

import numpy as np

from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadFolderMasks(LoadAnnotations):
    """``LoadAnnotations`` for :class:`FolderSegDataset`: indices or colours.

    Unlike mmseg's it keeps all 16 bits of a mask and reads drawn colours by the
    palette of the data set.
    """

    def _load_seg_map(self, results: dict) -> None:
        if 'read_mask' not in results:
            raise ValueError(
                'LoadFolderMasks belongs to FolderSegDataset; other data sets have '
                'LoadAnnotations'
            )
        labels = results['read_mask'](results['seg_map_path'])
        if labels.max(initial=0) < 2**8:
            labels = labels.astype(np.uint8)
        results['gt_seg_map'] = labels
        results['seg_fields'].append('gt_seg_map')
