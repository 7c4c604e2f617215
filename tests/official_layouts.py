"""Miniature copies of the benchmarks, in the folders and formats of the official files.

Each function writes the files of one benchmark below a folder, with names, file types
and label numbers as published, and returns what the pixels are: the truth that a data
set must give back after preparation.
"""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.io import savemat

from zs3_mmseg.datasets.splits.fss1000 import FSS1000

#: A pixel that belongs to no class.
VOID = ''
Truth = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Official:
    """Official files and what they mean.

    Attributes:
        folder: where they are, unpacked.
        archives: which part of the folder is published as which archive.
        train: class name of each pixel of each training image, in the order in which
            a data set lists them; :data:`VOID` for none.
        test: the same of the test images.
    """

    folder: Path
    archives: Mapping[str, Sequence[str]]
    train: Mapping[str, np.ndarray]
    test: Mapping[str, np.ndarray]

    def pack(self, folder: Path) -> Path:
        """Pack the files into archives of the official names."""
        folder.mkdir(parents=True)
        for name, parts in self.archives.items():
            paths = [path for part in parts for path in self._files(part)]
            if name.endswith('.zip'):
                with zipfile.ZipFile(folder / name, 'w') as archive:
                    for path in paths:
                        archive.write(path, path.relative_to(self.folder))
            elif '.t' in name:
                mode = 'w:gz' if name.endswith('gz') else 'w'
                with tarfile.open(folder / name, mode) as archive:
                    for path in paths:
                        archive.add(path, path.relative_to(self.folder))
            else:
                (folder / name).write_bytes(paths[0].read_bytes())
        return folder

    def _files(self, part: str) -> list[Path]:
        start = self.folder / part
        return sorted(p for p in [start, *start.rglob('*')] if p.is_file())


def _scene(rng: np.random.Generator, names: Sequence[str]) -> np.ndarray:
    """Return the class name of each pixel: rectangles in a picture of an odd size."""
    height, width = rng.integers(17, 40, size=2) * 2 + 1
    pixels = np.full((height, width), names[0], dtype=object)
    for name in names[1:]:
        top, left = rng.integers(0, height - 5), rng.integers(0, width - 5)
        bottom, right = top + rng.integers(3, height), left + rng.integers(3, width)
        pixels[top:bottom, left:right] = name
    return pixels


def _values(pixels: np.ndarray, numbers: Mapping[str, int]) -> np.ndarray:
    return np.vectorize(numbers.__getitem__, otypes=[np.int64])(pixels)


def _write_image(path: Path, size: tuple[int, ...], rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = rng.integers(0, 255, size=(*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def _write_png(path: Path, values: np.ndarray, *, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8))
    if palette:
        image.putpalette([(37 * i + 11) % 256 for i in range(768)])
    image.save(path)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


_VOC = (
    *('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair'),
    *('cow', 'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant'),
    *('sheep', 'sofa', 'train', 'tvmonitor'),
)


def voc12(folder: Path) -> Official:
    """VOC 2012 with palette masks, VOC 2007 beside it, and SBD with MATLAB masks."""
    rng = np.random.default_rng(12)
    numbers = {'background': 0, VOID: 255} | {n: i for i, n in enumerate(_VOC, 1)}
    voc, sbd = folder / 'VOCdevkit/VOC2012', folder / 'benchmark_RELEASE/dataset'
    train, val = ['2007_000032', '2011_000005'], ['2008_000002', '2010_000004']
    sbd_train, sbd_val = ['2009_000003', '2011_000005'], ['2008_000007', '2010_000004']
    truth: dict[str, np.ndarray] = {}
    for name in sorted({*train, *val, *sbd_train, *sbd_val}):
        chosen = rng.choice(_VOC, 3, replace=False)
        drawn = name in train + val
        pixels = _scene(rng, ['background', *chosen, *([VOID] if drawn else [])])
        truth[name] = pixels
        _write_image(voc / f'JPEGImages/{name}.jpg', pixels.shape, rng)
        if drawn:
            path = voc / f'SegmentationClass/{name}.png'
            _write_png(path, _values(pixels, numbers), palette=True)
    for name in sorted({*sbd_train, *sbd_val}):
        # Where VOC has a mask, SBD has another one that must not be used.
        pixels = truth[name]
        wrong = name in train + val
        values = _values(pixels, numbers) if not wrong else np.full(pixels.shape, 9)
        for kind, variable in (('cls', 'GTcls'), ('inst', 'GTinst')):
            path = sbd / f'{kind}/{name}.mat'
            path.parent.mkdir(parents=True, exist_ok=True)
            content = dict(Segmentation=values.astype(np.uint8), Boundaries=[1, 2])
            savemat(path, {variable: content}, do_compression=True)
        _write_image(sbd / f'img/{name}.jpg', pixels.shape, rng)
    lists = voc / 'ImageSets/Segmentation'
    for subset, names in dict(train=train, val=val, trainval=train + val).items():
        _write_text(lists / f'{subset}.txt', '\n'.join(names))
    _write_text(sbd / 'train.txt', '\n'.join(sbd_train))
    _write_text(sbd / 'val.txt', '\n'.join(sbd_val))
    _write_text(voc / 'Annotations/2007_000032.xml', '<annotation/>')
    other = folder / 'VOCdevkit/VOC2007'
    _write_png(other / 'SegmentationClass/2007_000032.png', np.full((5, 5), 3))
    _write_text(other / 'ImageSets/Segmentation/val.txt', '2007_000032')
    return Official(
        folder,
        {
            'VOCtrainval_11-May-2012.tar': ['VOCdevkit/VOC2012'],
            'benchmark.tgz': ['benchmark_RELEASE'],
        },
        {name: truth[name] for name in [*train, '2008_000007', '2009_000003']},
        {name: truth[name] for name in val},
    )


# A few of the 459 labels, and three of those that are background in the benchmark.
_CONTEXT = {
    **{'aeroplane': 2, 'bag': 9, 'cow': 98, 'fence': 144, 'keyboard': 220},
    **{'person': 284, 'snow': 366, 'sofa': 368, 'tree': 420, 'wood': 458},
}
_CONTEXT_BACKGROUND = {'accordion': 1, 'wool': 459, 'stage': 379}


def _context(folder: Path, form: str) -> Official:
    rng = np.random.default_rng(10)
    voc = folder / 'VOCdevkit/VOC2010'
    raw = _CONTEXT | _CONTEXT_BACKGROUND
    subsets = {
        'train': ['2008_000008', '2008_000015'],
        'val': ['2008_000002', '2008_000003', '2010_000001'],
    }
    truth: Truth = {subset: {} for subset in subsets}
    images, annotations = [], []
    for subset, names in subsets.items():
        for name in names:
            pixels = _scene(rng, list(rng.permutation(list(raw)))[:6])
            values = _values(pixels, raw)
            if form == 'json':
                # Pixels that nobody drew.
                values[:2] = 0
            _write_image(voc / f'JPEGImages/{name}.jpg', pixels.shape, rng)
            background = np.isin(values, [0, *_CONTEXT_BACKGROUND.values()])
            truth[subset][name] = np.where(background, 'background', pixels)
            image_id = int(name.replace('_', ''))
            images.append(
                dict(
                    file_name=f'{name}.jpg',
                    phase=subset,
                    image_id=image_id,
                    height=pixels.shape[0],
                    width=pixels.shape[1],
                )
            )
            for value in set(values.flat) - {0}:
                runs = coco_mask.encode(np.asfortranarray(values == value, np.uint8))
                annotations.append(
                    dict(
                        image_id=image_id,
                        category_id=int(value),
                        segmentation=runs | dict(counts=runs['counts'].decode()),
                    )
                )
            if form == 'mat':
                path = folder / f'trainval/{name}.mat'
                path.parent.mkdir(exist_ok=True)
                savemat(path, {'LabelMap': values.astype(np.uint16)})
        extra = ['2010_999999'] if subset == 'train' else []
        _write_text(voc / f'ImageSets/Main/{subset}.txt', '\n'.join(names + extra))
    images.append(dict(file_name='2010_5.jpg', phase='test', image_id=5))
    if form == 'json':
        content = dict(images=images, annos_segmentation=annotations)
        _write_text(folder / 'trainval_merged.json', json.dumps(content))
        archives = {'trainval_merged.json': ['trainval_merged.json']}
    else:
        labels = '\n'.join(f'{number}: {name}' for name, number in raw.items())
        _write_text(folder / 'trainval/labels.txt', labels)
        archives = {'trainval.tar.gz': ['trainval']}
    return Official(
        folder,
        {'VOCtrainval_03-May-2010.tar': ['VOCdevkit'], **archives},
        truth['train'],
        truth['val'],
    )


def context_json(folder: Path) -> Official:
    """Pascal-Context with run lengths in one JSON file."""
    return _context(folder, 'json')


def context_mat(folder: Path) -> Official:
    """Pascal-Context with a MATLAB file for each image."""
    return _context(folder, 'mat')


# Labels of the official pixel maps, before the eleven unused ones are left out.
_STUFF = {
    **{'person': 0, 'fire hydrant': 10, 'stop sign': 12, 'cow': 20, 'giraffe': 24},
    **{'toothbrush': 89, 'banner': 91, 'clouds': 105, 'road': 148, 'wood': 181},
}


def cocostuff(folder: Path) -> Official:
    """COCO 2017 images and the pixel maps of COCO-Stuff."""
    rng = np.random.default_rng(164)
    truth: Truth = {}
    for subset, numbers in (('train2017', (9, 25, 30)), ('val2017', (139, 285))):
        truth[subset] = {}
        for number in numbers:
            name = f'{number:012}'
            names = [*list(rng.permutation(list(_STUFF)))[:5], VOID]
            pixels = truth[subset][name] = _scene(rng, names)
            _write_image(folder / f'{subset}/{name}.jpg', pixels.shape, rng)
            values = _values(pixels, _STUFF | {VOID: 255})
            _write_png(folder / f'stuffthingmaps/{subset}/{name}.png', values)
    return Official(
        folder,
        {
            'train2017.zip': ['train2017'],
            'val2017.zip': ['val2017'],
            'stuffthingmaps_trainval2017.zip': ['stuffthingmaps'],
        },
        truth['train2017'],
        truth['val2017'],
    )


# COCO's category ids have gaps: they end at 90.
_COCO = {
    **{'person': 1, 'stop sign': 13, 'cow': 21, 'umbrella': 28, 'bottle': 44},
    **{'dining table': 67, 'tv': 72, 'toothbrush': 90},
}


def _coco(folder: Path, year: int) -> Official:
    rng = np.random.default_rng(year)
    truth: Truth = {}
    for kind, numbers in (('train', (9, 25, 30)), ('val', (42, 73))):
        subset = f'{kind}{year}'
        truth[subset] = {}
        images, annotations = [], []
        for number in numbers:
            prefix = f'COCO_{subset}_' if year == 2014 else ''
            height, width = (int(side) for side in rng.integers(20, 50, size=2))
            file_name = f'{prefix}{number:012}.jpg'
            images.append(
                dict(id=number, file_name=file_name, height=height, width=width)
            )
            _write_image(folder / subset / file_name, (height, width), rng)
            # One image has no object at all, and so no annotation.
            boxes = [] if number == 30 else _boxes(rng, height, width)
            annotations += [
                dict(
                    id=1000 * number + i,
                    image_id=number,
                    category_id=_COCO[name],
                    iscrowd=int(is_crowd),
                    segmentation=_runs(box, height, width)
                    if is_crowd
                    else [_polygon(box)],
                )
                for i, (name, box, is_crowd) in enumerate(boxes)
            ]
            pixels = _smallest_box(boxes, height, width)
            truth[subset][Path(file_name).stem] = pixels
        categories = [dict(id=number, name=name) for name, number in _COCO.items()]
        content = dict(images=images, annotations=annotations, categories=categories)
        path = folder / f'annotations/instances_{subset}.json'
        _write_text(path, json.dumps(content))
        _write_text(folder / f'annotations/captions_{subset}.json', '{}')
    first, second = truth.values()
    return Official(
        folder,
        {
            f'train{year}.zip': [f'train{year}'],
            f'val{year}.zip': [f'val{year}'],
            f'annotations_trainval{year}.zip': ['annotations'],
        },
        first,
        second,
    )


Box = tuple[int, int, int, int]


def _boxes(
    rng: np.random.Generator, height: int, width: int
) -> list[tuple[str, Box, bool]]:
    """Return overlapping (class name, (top, left, bottom, right), is a crowd)."""
    boxes = []
    for name in rng.permutation(list(_COCO))[:6]:
        top, bottom = sorted(int(v) for v in rng.choice(height + 1, 2, replace=False))
        left, right = sorted(int(v) for v in rng.choice(width + 1, 2, replace=False))
        boxes.append((str(name), (top, left, bottom, right), len(boxes) in (1, 4)))
    return boxes


def _polygon(box: Box) -> list[float]:
    top, left, bottom, right = box
    return [left, top, right, top, right, bottom, left, bottom]


def _runs(box: Box, height: int, width: int) -> dict:
    """Return run lengths down the columns, starting with zeros."""
    inside = np.zeros((height, width), dtype=int)
    inside[box[0] : box[2], box[1] : box[3]] = 1
    counts, last = [0], 0
    for value in inside.T.flat:
        if value == last:
            counts[-1] += 1
        else:
            counts.append(1)
            last = value
    return dict(size=[height, width], counts=counts)


def _smallest_box(
    boxes: Sequence[tuple[str, Box, bool]], height: int, width: int
) -> np.ndarray:
    """Ask each pixel for the smallest object on it, else whether it lies in a crowd."""
    pixels = np.full((height, width), 'background', dtype=object)
    for y in range(height):
        for x in range(width):
            here = [
                ((bottom - top) * (right - left), -i, name, is_crowd)
                for i, (name, (top, left, bottom, right), is_crowd) in enumerate(boxes)
                if top <= y < bottom and left <= x < right
            ]
            objects = [entry for entry in here if not entry[3]]
            if objects:
                pixels[y, x] = min(objects)[2]
            elif here:
                pixels[y, x] = VOID
    return pixels


def coco2014(folder: Path) -> Official:
    """COCO 2014 with polygons and crowds."""
    return _coco(folder, 2014)


def coco2017(folder: Path) -> Official:
    """COCO 2017 with polygons and crowds."""
    return _coco(folder, 2017)


_ADE = {'wall': 1, 'bed': 8, 'sofa': 24, 'bannister': 96, 'flag': 150, VOID: 0}


def ade20k(folder: Path) -> Official:
    """The scene parsing benchmark of ADE20K."""
    rng = np.random.default_rng(150)
    root = folder / 'ADEChallengeData2016'
    truth: Truth = {}
    for subset, short, count in (('training', 'train', 3), ('validation', 'val', 2)):
        truth[subset] = {}
        for number in range(1, count + 1):
            name = f'ADE_{short}_{number:08}'
            pixels = truth[subset][name] = _scene(rng, list(_ADE))
            _write_image(root / f'images/{subset}/{name}.jpg', pixels.shape, rng)
            path = root / f'annotations/{subset}/{name}.png'
            _write_png(path, _values(pixels, _ADE))
    _write_text(root / 'objectInfo150.txt', 'Idx\tRatio\tTrain\tVal\tStuff\tName\n')
    return Official(
        folder,
        {'ADEChallengeData2016.zip': ['ADEChallengeData2016']},
        truth['training'],
        truth['validation'],
    )


_CITY = {'road': 7, 'wall': 12, 'sky': 23, 'train': 31, 'bicycle': 33}
_CITY_VOID = {'unlabeled': 0, 'parking': 9, 'caravan': 29}


def cityscapes(folder: Path) -> Official:
    """Cityscapes with maps of ids, colours, instances and polygons."""
    rng = np.random.default_rng(19)
    truth: Truth = {}
    for subset, city in (('train', 'aachen'), ('val', 'munster'), ('test', 'berlin')):
        truth[subset] = {}
        for number in range(2):
            stem = f'{city}/{city}_{number:06}_000019'
            pixels = _scene(rng, [*_CITY, *_CITY_VOID])
            values = _values(pixels, _CITY | _CITY_VOID)
            truth[subset][stem] = np.where(
                np.isin(pixels, list(_CITY_VOID)), VOID, pixels
            )
            image = folder / f'leftImg8bit/{subset}/{stem}_leftImg8bit.png'
            _write_image(image, pixels.shape, rng)
            start = folder / f'gtFine/{subset}/{stem}_gtFine'
            _write_png(Path(f'{start}_labelIds.png'), values)
            _write_image(Path(f'{start}_color.png'), pixels.shape, rng)
            instances = (values * 1000).astype(np.uint16)
            Image.fromarray(instances).save(f'{start}_instanceIds.png')
            _write_text(Path(f'{start}_polygons.json'), '{}')
    return Official(
        folder,
        {
            'leftImg8bit_trainvaltest.zip': ['leftImg8bit'],
            'gtFine_trainvaltest.zip': ['gtFine'],
        },
        truth['train'],
        truth['val'],
    )


#: Each pixel is a block of 20 x 20 in the pictures and masks of :func:`fss1000`.
GREY = np.array([[0, 127, 128], [255, 1, 200]], np.uint8)


def fss1000(folder: Path, pictures: Mapping[str, int] | None = None) -> None:
    """FSS-1000: the folders of all classes, and so many pictures in some of them."""
    for names in FSS1000.values():
        for name in names:
            (folder / name).mkdir(parents=True)
    pictures = pictures or {'zucchini': 1, 'acorn': 1, 'abacus': 2, 'bus': 2}
    for name, count in pictures.items():
        for number in range(1, count + 1):
            blocks = np.kron(GREY, np.ones((20, 20), np.uint8))
            image = Image.fromarray(np.repeat(blocks[..., None], 3, axis=2))
            image.save(folder / f'{name}/{number}.jpg')
            image.save(folder / f'{name}/{number}.png')


@dataclass(frozen=True)
class Case:
    """One benchmark in one official form.

    Attributes:
        benchmark: what ``tools/prepare_data.py`` calls it.
        make: writes the official files.
        configs: config fragments that read it.
    """

    benchmark: str
    make: Callable[[Path], Official]
    configs: tuple[str, ...]


CASES = {
    'voc12': Case('voc12', voc12, ('voc12_512', 'voc12_background_512')),
    'context_json': Case(
        'pascal_context', context_json, ('context59_512', 'context60_512')
    ),
    'context_mat': Case('pascal_context', context_mat, ('context60_512',)),
    'cocostuff164k': Case('cocostuff164k', cocostuff, ('cocostuff164k_512',)),
    'coco20i': Case('coco20i', coco2014, ('coco20i_512',)),
    'coco20i_2017': Case('coco20i_2017', coco2017, ()),
    'ade20k': Case('ade20k', ade20k, ('ade20k_512',)),
    'cityscapes': Case('cityscapes', cityscapes, ('cityscapes_512',)),
}
