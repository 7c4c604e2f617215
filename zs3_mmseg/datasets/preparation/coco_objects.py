"""The 80 object classes of COCO as label maps, from the instance annotations.

COCO-20i is made of COCO 2014; 2017 holds the same images in other subsets. Instances
overlap, and some regions are marked as a crowd of a class without saying which pixels
are whose. No paper states what its label maps do there, so this is our rule:

1. Everything is background, 0.
2. Crowd regions become 255 (ignored): whether a pixel in them is an object or a gap
   between two is unknown.
3. Instances are drawn over that in the order of their size in pixels, the largest
   first, so that a spoon stays visible on its table. Of equals the later one in the
   file lies on top.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from zs3_mmseg.datasets.preparation.archives import PreparationError, Readable
from zs3_mmseg.datasets.preparation.counts import count_folders
from zs3_mmseg.datasets.preparation.job import Benchmark, Download, Job, Rule
from zs3_mmseg.datasets.preparation.labels import decode_mask, image_size, image_stem
from zs3_mmseg.datasets.splits.classes import COCO80
from zs3_mmseg.utils.labels import IGNORE_INDEX

#: Images in the subsets of 2017.
COCO2017 = {'train2017': 118287, 'val2017': 5000}
LABEL_SUFFIX = '_instanceTrainIds.png'
_MD5 = {
    'train2014.zip': '0da8c0bd3d6becc4dcb32757491aca88',
    'val2014.zip': 'a3d79f5ed8d289b7a7554ce06a5782b3',
    'annotations_trainval2014.zip': '0a379cfc70b0e71301e0f377548639bd',
    'train2017.zip': 'cced6f7f71b7629ddf16f17bbcfab6b2',
    'val2017.zip': '442b8da7639aecaf257c1dceb8ba8c80',
    'annotations_trainval2017.zip': 'f4bbac642086de4f52a3fdda2de5fa2c',
}


@dataclass(frozen=True)
class _Instances:
    """The content of an instance file: images, masks by image, label by category."""

    origin: str
    images: dict[str, dict[str, Any]]
    annotations: dict[int, list[dict[str, Any]]]
    labels: dict[int, int]

    def draw(self, target: str) -> np.ndarray:
        """Draw the label map of one target; see the rule above."""
        image = self.images[target]
        where = f'{self.origin}, {image["file_name"]}'
        try:
            return self._draw(image, where)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, PreparationError):
                raise
            raise PreparationError(f'{where}: broken annotation ({error!r})') from error

    def _draw(self, image: dict[str, Any], where: str) -> np.ndarray:
        height, width = image_size(image, where)
        labels = np.zeros((height, width), dtype=np.uint8)
        instances = []
        for annotation in self.annotations.get(image['id'], ()):
            origin = f'{where}, annotation {annotation.get("id")}'
            mask = decode_mask(annotation['segmentation'], height, width, origin)
            if annotation['iscrowd']:
                labels[mask] = IGNORE_INDEX
            else:
                instances.append((mask, self.labels[annotation['category_id']]))
        for mask, label in sorted(instances, key=lambda pair: -int(pair[0].sum())):
            labels[mask] = label
        return labels


def _read(stream: Readable, origin: str, folder: str) -> _Instances:
    """Read an instance file, whose label maps will lie in ``folder``."""
    try:
        content = json.load(stream)
        labels = {
            category['id']: COCO80.index(category['name']) + 1
            for category in content['categories']
        }
        images = {
            f'{folder}/{image_stem(image, origin)}{LABEL_SUFFIX}': image
            for image in content['images']
        }
        annotations = defaultdict(list)
        for annotation in content['annotations']:
            annotations[annotation['image_id']].append(annotation)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, PreparationError):
            raise
        raise PreparationError(
            f'{origin} is no instance file of COCO: {error!r}'
        ) from error
    return _Instances(origin, images, dict(annotations), labels)


def convert(job: Job, subsets: Sequence[str]) -> None:
    """Draw the label maps of all images of some subsets, those without objects too."""
    for subset in subsets:
        for origin, stream in job.find(f'instances_{subset}.json'):
            instances = _read(stream, origin, f'annotations/{subset}')
            job.draw_all(sorted(instances.images), instances.draw, f'maps of {subset}')
            break


def arrange(job: Job, subsets: Sequence[str]) -> None:
    """Put images and label maps below the root."""
    names = '|'.join(subsets)
    job.apply(Rule(rf'({names})/([\w-]+\.jpg)', r'images/\1/\2'), label='images')
    convert(job, subsets)


def coco_download(file: str, holds: str) -> Download:
    """Return a file of COCO's own site, by folder and name there."""
    name = file.split('/')[-1]
    return Download(name, f'http://images.cocodataset.org/{file}', holds, _MD5[name])


def coco_images(*subsets: str) -> tuple[Download, ...]:
    """Return the archives with the images of some subsets, such as ``'val2017'``."""
    return tuple(
        coco_download(f'zips/{subset}.zip', f'images {subset}') for subset in subsets
    )


def _benchmark(name: str, year: int, official: dict[str, int]) -> Benchmark:
    return Benchmark(
        name=name,
        root=f'data/coco{year}',
        downloads=(
            *coco_images(*official),
            coco_download(
                f'annotations/annotations_trainval{year}.zip', 'instance annotations'
            ),
        ),
        arrange=partial(arrange, subsets=tuple(official)),
        convert=partial(convert, subsets=tuple(official)),
        count=partial(
            count_folders,
            official=official,
            label_suffix=LABEL_SUFFIX,
        ),
    )


COCO20I = _benchmark('coco20i', 2014, {'train2014': 82783, 'val2014': 40504})
COCO20I_2017 = _benchmark('coco20i_2017', 2017, COCO2017)
