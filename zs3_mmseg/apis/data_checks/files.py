"""Checks of files: lists that belong together, images and masks that can be read."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmengine.fileio import exists

from zs3_mmseg.utils.image_io import IMAGE_SUFFIXES, read_image

from .parts import Finding, Part, about_files

LabelReader = Callable[[str], np.ndarray]


@dataclass
class MaskFacts:
    """What is in one mask file.

    Attributes:
        path: the file.
        labels: its values, (H, W); None if it has none that could be class indices.
        palette: its own colours by value, (256, 3), if it carries any.
        problems: kind of finding to a few words.
    """

    path: str
    labels: np.ndarray | None = None
    palette: np.ndarray | None = None
    problems: dict[str, str] = field(default_factory=dict)


def inspect_mask(path: str, reader: LabelReader | None, deep: bool) -> MaskFacts:
    """Decode a mask without the pipeline."""
    facts = MaskFacts(path)
    try:
        if reader is not None:
            facts.labels = reader(path)
            return facts
        with warnings.catch_warnings():
            # Pillow warns of odd metadata and of large files, neither of which matters.
            warnings.simplefilter('ignore')
            with Image.open(path) as image:
                image.load()
                _read(facts, image, deep)
    except ValueError as error:
        facts.problems['label_out_of_range'] = str(error)
    except (OSError, SyntaxError) as error:
        facts.problems['unreadable_mask'] = str(error)
    return facts


def _read(facts: MaskFacts, image: Image.Image, deep: bool) -> None:
    if image.mode in ('L', 'P', '1'):
        facts.labels = np.asarray(image).astype(np.uint8)
        colours = image.getpalette('RGB') if image.mode == 'P' else None
        if colours is not None:
            table = np.zeros((256, 3), np.uint8)
            table.reshape(-1)[: len(colours)] = colours
            facts.palette = table
    elif image.mode == 'I' or image.mode.startswith('I;16'):
        facts.labels = np.asarray(image).astype(np.int64)
        if not deep:
            facts.problems['deep_mask'] = f'values up to {facts.labels.max()}'
    else:
        facts.problems['colour_mask'] = f'mode {image.mode}'


def image_problem(path: str) -> tuple[str | None, tuple[int, int] | None]:
    """Decode an image to its end."""
    try:
        height, width, _ = read_image(path).shape
    except OSError as error:
        return str(error), None
    return None, (height, width)


def label_reader(dataset: Any) -> LabelReader | None:
    """Return a data set's own way from a mask file to labels, if it has one."""
    return getattr(dataset, 'read_mask', None)


Infos = Sequence[Mapping[str, Any]]
# A list of ids is taken for the wrong one if more than this share has no image.
_MOSTLY = 0.5


def check_listing(part: Part, infos: Infos) -> Iterator[Finding]:
    """Find missing files, doubled ids and masks without images."""
    images = [str(info.get('img_path')) for info in infos]
    masks = [info.get('seg_map_path') for info in infos]
    yield from _missing_images(part, images)
    missing = [
        str(mask)
        for mask, image in zip(masks, images, strict=True)
        if not _is_there(part, mask) and _is_there(part, image)
    ]
    if missing:
        yield about_files(
            'missing_mask',
            part.key,
            f'{{n}} of {len(infos)} images have no mask',
            f'{part.key}.data_prefix.seg_map_path or seg_map_suffix, or take the '
            'images out of the list',
            missing,
        )
    twice = [path for path, count in Counter(images).items() if count > 1]
    if twice:
        yield about_files(
            'duplicate_ids',
            part.key,
            '{n} images are listed more than once and count more than once',
            _list_key(part),
            twice,
        )
    yield from _unpaired_masks(part, images, masks)


def _missing_images(part: Part, images: Sequence[str]) -> Iterator[Finding]:
    missing = [path for path in images if not _is_there(part, path)]
    if not missing:
        return
    if len(missing) > _MOSTLY * len(images):
        yield about_files(
            'wrong_split_file',
            part.key,
            f'{{n}} of the {len(images)} ids in the list have no image: it is the '
            'list of other images',
            _list_key(part),
            missing,
        )
        return
    yield about_files(
        'missing_image',
        part.key,
        f'{{n}} of {len(images)} listed images do not exist',
        f'{part.key}.data_prefix.img_path or img_suffix, or {_list_key(part)}',
        missing,
    )


def _unpaired_masks(
    part: Part, images: Sequence[str], masks: Sequence[Any]
) -> Iterator[Finding]:
    """Look for masks beside those that are used; only if no list chooses images."""
    folder = (getattr(part.dataset, 'data_prefix', None) or {}).get('seg_map_path')
    suffix = getattr(part.dataset, 'seg_map_suffix', None)
    if _ann_file(part) or not folder or suffix is None or not Path(folder).is_dir():
        return
    if not images or Path(folder) == Path(images[0]).parent:
        return  # images and masks share a folder and cannot be told apart by it
    used = {os.path.normpath(str(mask)) for mask in masks}
    spare = [
        str(path)
        for path in sorted(Path(folder).rglob(f'*{suffix}'))
        if path.suffix.lower() in IMAGE_SUFFIXES and os.path.normpath(path) not in used
    ]
    if spare:
        yield about_files(
            'unpaired_mask',
            part.key,
            '{n} masks have no image of the same name and are not used',
            f'{part.key}.data_prefix.img_path or img_suffix',
            spare,
            fault=False,
        )


def check_overlap(images: Mapping[str, Iterable[str]]) -> Iterator[Finding]:
    """Find images of training that are evaluated too."""
    real = {
        key: {os.path.realpath(path) for path in paths} for key, paths in images.items()
    }
    for train, ours in real.items():
        for other, theirs in real.items():
            if not train.startswith('train') or other.startswith('train'):
                continue
            common = sorted(ours & theirs)
            if common:
                yield about_files(
                    'wrong_split_file',
                    train,
                    f'{{n}} of its {len(ours)} images are also among the '
                    f'{len(theirs)} of {other}: the model would be tested on what it '
                    'learnt',
                    f'{train}.ann_file or {other}.ann_file; without lists, '
                    'data_prefix; for parts of one list, held_out of both',
                    common,
                )


def _ann_file(part: Part) -> str:
    return getattr(part.dataset, 'ann_file', '') or ''


def _list_key(part: Part) -> str:
    listed = _ann_file(part)
    return f'{part.key}.ann_file ({listed})' if listed else f'{part.key}.data_prefix'


def _is_there(part: Part, path: Any) -> bool:
    """Whether a file exists; data sets without such files are left alone."""
    if not isinstance(path, str):
        return True
    return exists(path, backend_args=getattr(part.dataset, 'backend_args', None))
