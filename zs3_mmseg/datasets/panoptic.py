"""Panoptic masks in COCO's format: labels, and which pixels are one thing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmengine.structures import PixelData
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs
from mmseg.registry import DATASETS, TRANSFORMS

from zs3_mmseg.utils.image_io import MaskError, decode_mask
from zs3_mmseg.utils.labels import special_labels
from zs3_mmseg.utils.names import read_json, synonyms_of
from zs3_mmseg.utils.palette import default_palette

from .labels import SEGMENT_MAP, listed_values
from .splits.classes import COCO80, COCO_GROUNDS53
from .splits.fcclip import TRAINED_NAMES

__all__ = [
    'COCOPanopticDataset',
    'LoadPanopticAnnotations',
    'PackPanopticInputs',
    'PanopticDataset',
]

#: What reading a file of another kind ends in; numbers may be larger than 64 bits.
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


@DATASETS.register_module()
class PanopticDataset(BaseSegDataset):
    """Panoptic masks in the format of COCO (arXiv 1801.00868), of any data set.

    ``ann_file`` is a JSON object with the lists ``images`` (``id``, ``file_name``),
    ``categories`` (``id``, ``name``) and ``annotations`` (``image_id``, ``file_name``
    of the mask, ``segments_info``). A segment is a thing, or all of a ground, with an
    ``id``, a ``category_id`` and perhaps ``iscrowd``: crowds are pixels without a
    label. Masks are PNG files whose colours are numbers of segments, R + 256 G +
    65536 B; 0 is none.

    Labels are positions of categories in the order of their ids. The pipeline needs
    :class:`LoadPanopticAnnotations` in the place of ``LoadAnnotations``; with
    :class:`PackPanopticInputs` in the place of ``PackSegInputs``, heads of query masks
    take each segment for a target of its own.

    Args:
        ann_file: the JSON file, below ``data_root``.
        metainfo: with ``classes``, names for all categories in the order of their ids;
            None: those of the file.
        **kwargs: of ``BaseSegDataset``.

    Raises:
        FileNotFoundError: without ``ann_file``.
        ValueError: naming the file, if it holds something else; for another number of
            names; for ``reduce_zero_label``, which panoptic masks do not have.
    """

    def __init__(
        self,
        ann_file: str,
        *,
        metainfo: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.get('reduce_zero_label'):
            raise ValueError(
                f'{type(self).__name__}.reduce_zero_label must be False: pixels of no '
                'segment have no label in panoptic masks'
            )
        path = Path(kwargs.get('data_root') or '', ann_file)
        if not path.is_file():
            raise FileNotFoundError(
                f'{type(self).__name__}: {path} (ann_file) is missing'
            )
        self._content: Any = read_json(path)
        categories = _categories(self._content, path)
        named = {'classes': self.METAINFO.get('classes'), **(metainfo or {})}
        classes = named['classes'] or tuple(categories.values())
        if len(classes) != len(categories):
            raise ValueError(
                f'{path} has {len(categories)} categories, metainfo.classes '
                f'{len(classes)} names'
            )
        self._labels = {number: label for label, number in enumerate(categories)}
        kwargs.setdefault('ignore_index', special_labels(len(classes)).ignore)
        palette = default_palette(len(classes))
        super().__init__(
            ann_file=ann_file,
            metainfo=dict({'palette': palette, **named}, classes=classes),
            **kwargs,
        )

    @classmethod
    def get_label_map(cls, new_classes: Sequence[str] | None = None) -> None:
        """Return None: given names are other names of all categories, and no choice."""

    def load_data_list(self) -> list[dict[str, Any]]:
        """List images, their masks and the labels of their segments."""
        path = Path(self.ann_file)
        # Hundreds of megabytes for COCO: read once, and not kept.
        content = self._content or read_json(path)
        self._content = None
        try:
            images = {image['id']: image['file_name'] for image in content['images']}
            samples = [self._sample(each, images) for each in content['annotations']]
        except _MALFORMED as error:
            raise _unlike_panoptic(path, error) from error
        if not samples:
            raise ValueError(f'{path} has no annotations')
        return samples

    def _sample(
        self, annotation: Mapping[str, Any], images: Mapping[int, str]
    ) -> dict[str, Any]:
        """Return what is known of one image."""
        segments = [
            (int(each['id']), self._label(each)) for each in annotation['segments_info']
        ]
        return dict(
            img_path=self._below('img_path', images[annotation['image_id']]),
            seg_map_path=self._below('seg_map_path', annotation['file_name']),
            segments=np.array(segments, dtype=np.int64).reshape(-1, 2),
            segment_void=self.ignore_index,
            label_map=None,
            reduce_zero_label=False,
            seg_fields=[],
        )

    def _label(self, segment: Mapping[str, Any]) -> int:
        label = self._labels[segment['category_id']]
        return self.ignore_index if segment.get('iscrowd') else label

    @cached_property
    def _segments(self) -> dict[str, np.ndarray]:
        infos = map(self.get_data_info, range(len(self)))
        return {info['seg_map_path']: info['segments'] for info in infos}

    def read_mask(self, path: str) -> np.ndarray:
        """Read one of the masks as labels, ``(H, W)``, see :func:`read_panoptic`."""
        return read_panoptic(path, self._segments[path], self.ignore_index)[0]

    def _below(self, kind: str, name: str) -> str:
        return os.path.join(self.data_prefix.get(kind) or '', name)


def _categories(content: Any, path: Path) -> dict[int, str]:
    """Return the names of the categories by their ids, ascending."""
    try:
        named = [(int(each['id']), str(each['name'])) for each in content['categories']]
    except _MALFORMED as error:
        raise _unlike_panoptic(path, error) from error
    if not named or len(dict(named)) < len(named):
        raise ValueError(
            f'{path} has ' + ('two categories of one id' if named else 'no categories')
        )
    return dict(sorted(named))


def _unlike_panoptic(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} is no panoptic annotation file of COCO's format, with images, "
        f'categories, annotations and their segments_info: {error!r}'
    )


@DATASETS.register_module()
class COCOPanopticDataset(PanopticDataset):
    """COCO's 133 panoptic classes of 2017: 80 things and 53 grounds.

    A class has its name in the file and those of FC-CLIP's list, so that the split
    ``fcclip_coco_133`` and splits in COCO's own words find it.
    """

    METAINFO = dict(
        classes=tuple(
            '|'.join(dict.fromkeys([official, *synonyms_of(names)]))
            for official, names in zip(
                (*COCO80, *COCO_GROUNDS53), TRAINED_NAMES, strict=True
            )
        )
    )


@TRANSFORMS.register_module()
class LoadPanopticAnnotations(LoadAnnotations):
    """``LoadAnnotations`` for :class:`PanopticDataset`.

    Sets ``gt_seg_map``, labels ``(H, W)``, and ``gt_segment_map``, ``(H, W)`` uint16:
    1 + the position of a pixel's segment among those of its image, 0 where no segment
    with a label is. A picture that comes without a mask passes unchanged. It has no
    options: what a label is, the data set says.
    """

    def __init__(self) -> None:
        super().__init__()

    def transform(self, results: dict) -> dict:
        # mmseg's inference_model takes LoadAnnotations out of a pipeline, not this.
        return super().transform(results) if 'seg_map_path' in results else results

    def _load_seg_map(self, results: dict) -> None:
        if 'segments' not in results:
            raise ValueError(
                'LoadPanopticAnnotations belongs to PanopticDataset; other data sets '
                'have LoadAnnotations'
            )
        labels, segments = read_panoptic(
            results['seg_map_path'], results['segments'], results['segment_void']
        )
        results['gt_seg_map'], results[SEGMENT_MAP] = labels, segments
        results['seg_fields'] += ['gt_seg_map', SEGMENT_MAP]


def read_panoptic(
    path: str | os.PathLike, segments: np.ndarray, void: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read a panoptic mask.

    Args:
        path: the file.
        segments: number and label of each, ``(S, 2)``.
        void: label of crowds and of pixels in no segment.

    Returns:
        labels ``(H, W)``, uint8 or uint16, and positions of segments plus 1, 0 where
        the label is ``void``, ``(H, W)`` uint16.

    Raises:
        OSError: naming the file, if it cannot be decoded to its end.
        MaskError: naming the file, if it is no colour picture, or shows a segment that
            is not listed.
    """
    pixels = decode_mask(path).pixels
    if pixels.ndim != 3:
        raise MaskError(
            Path(path), 'is grey; numbers of segments are colours, R + 256 G + 65536 B'
        )
    numbers = pixels.astype(np.int64) @ (1, 2**8, 2**16)
    kind = np.uint8 if void < 2**8 else np.uint16
    # No segment, which is number 0, comes first.
    ids, labels = np.array([(0, void), *segments]).T
    order = np.argsort(ids, kind='stable')
    places = order[np.searchsorted(ids[order], numbers, side='right') - 1]
    unknown = np.unique(numbers[ids[places] != numbers])
    if len(unknown):
        named = listed_values(unknown.tolist())
        raise MaskError(
            Path(path), f'shows segments that segments_info does not list: {named}'
        )
    found = labels.astype(kind)[places]
    return found, np.where(found == void, 0, places).astype(np.uint16)


@TRANSFORMS.register_module()
class PackPanopticInputs(PackSegInputs):
    """``PackSegInputs`` that also hands on which pixels are one segment.

    ``data_samples.gt_segments`` holds ``gt_segment_map`` as ``(1, H, W)`` int32;
    :class:`~zs3_mmseg.models.losses.MaskTargets` tells what is made of it. Where
    ``Pad`` has made the label map larger, there is no segment.

    Args:
        meta_keys: as of ``PackSegInputs``.
    """

    def transform(self, results: dict) -> dict:
        packed = super().transform(results)
        if SEGMENT_MAP in results:
            segments = torch.from_numpy(results[SEGMENT_MAP].astype(np.int32))
            packed['data_samples'].set_data(
                dict(gt_segments=PixelData(data=segments[None]))
            )
        return packed
