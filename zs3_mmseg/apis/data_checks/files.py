"""Checks of files: lists that belong together, images and masks that can be read."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from mmengine.fileio import exists

from zs3_mmseg.utils.cache import content_hash
from zs3_mmseg.utils.image_io import (
    IMAGE_SUFFIXES,
    MaskError,
    decode_mask,
    read_image,
)

from .parts import Finding, Part, about_files

LabelReader = Callable[[str], np.ndarray]

# Modes of Pillow of which LoadAnnotations makes (H, W).
_READ_BY_LOADERS = ('1', 'L', 'P', 'F', 'I', 'I;16', 'I;16B', 'I;16L', 'I;16N')
# EXIF's number of a picture that is stored as it is shown.
_UPRIGHT = 1
# How many bytes tell most files of one size apart.
_COMPARED = 4096
# What is said of a mask that may be a photograph.
_PICTURES = ('colour_mask', 'smeared_mask')
# A label map has at most so many colours, a photograph more.
_FEW_COLOURS = 64


@dataclass
class SampleFacts:
    """What is in an image and its mask.

    Attributes:
        picture: the image, (H, W, 3) RGB, if it can be read.
        labels: values of the mask, (H, W); None if it has none that could be indices.
        palette: colours of the mask file by value, (256, 3), if it carries any.
        problems: kind of finding -> file and a few words.
    """

    picture: np.ndarray | None = None
    labels: np.ndarray | None = None
    palette: np.ndarray | None = None
    problems: dict[str, tuple[str, str]] = field(default_factory=dict)


def inspect_sample(
    image: Any, mask: Any, reader: LabelReader | None, deep: bool
) -> SampleFacts:
    """Decode an image and its mask without the pipeline; other paths are left out."""
    facts = SampleFacts()
    pixels = None
    if isinstance(image, str) and os.path.isfile(image):
        try:
            facts.picture = read_image(image)
        except OSError as error:
            facts.problems['unreadable_image'] = image, str(error)
    if not isinstance(mask, str) or not os.path.isfile(mask):
        return facts
    try:
        pixels = _read(facts, mask, reader, deep)
    except ValueError as error:
        facts.problems['label_out_of_range'] = mask, str(error)
    except (OSError, SyntaxError) as error:
        facts.problems['unreadable_mask'] = mask, str(error)
    if facts.picture is not None and pixels is not None:
        _compare(facts, image, facts.picture, mask, pixels)
    return facts


def _read(
    facts: SampleFacts, path: str, reader: LabelReader | None, deep: bool
) -> np.ndarray | None:
    """Take over labels as the data set would get them; return all that is there."""
    try:
        if reader is not None:
            facts.labels = reader(path)
            return facts.labels
        mask = decode_mask(path)
    except MaskError as error:
        facts.problems[error.kind] = path, error.reason
        return read_image(path) if error.kind in _PICTURES else None
    if mask.mode not in _READ_BY_LOADERS:
        kind = 'colour_mask' if mask.grey is None else 'unusual_mask'
        facts.problems[kind] = path, f'mode {mask.mode}'
        return mask.pixels
    facts.labels, facts.palette = mask.pixels, mask.palette
    if mask.mode.startswith('I') and not deep:
        facts.problems['deep_mask'] = path, f'values up to {mask.pixels.max()}'
    return mask.pixels


def _compare(
    facts: SampleFacts, image: str, picture: np.ndarray, mask: str, pixels: np.ndarray
) -> None:
    """Look for what an image and its mask say together."""
    height, width = pixels.shape[:2]
    turned = _orientation(image)
    if picture.shape[:2] != (height, width):
        across, down = picture.shape[1], picture.shape[0]
        detail = f'{width} x {height} against {across} x {down}'
        lying = (width, height) == (down, across)
        if lying and turned > _UPRIGHT:
            detail += f'; EXIF turns {image}, number {turned}, and the mask lies'
        elif lying:
            detail += '; one of them is turned by 90 degrees'
        facts.problems['size_mismatch'] = mask, detail
        return
    if turned > _UPRIGHT:
        facts.problems['turned_image'] = image, f'orientation {turned}'
    as_colours = pixels if pixels.ndim == 3 else pixels[..., None]
    if (picture == as_colours).all() and _colours(pixels) > _FEW_COLOURS:
        detail = f'it shows the same as {image}'
    elif (
        pixels.ndim == 3
        and (pixels[..., 0] != pixels[..., 1]).any()
        and _colours(picture) <= _FEW_COLOURS < _colours(pixels)
    ):
        detail = f'it has many colours, and {image} has few'
    else:
        return
    for kind in _PICTURES:
        facts.problems.pop(kind, None)
    facts.problems['exchanged_files'] = mask, detail


def _colours(pixels: np.ndarray) -> int:
    """Count the colours of a picture, (H, W, 3) or (H, W)."""
    flat = pixels.reshape(pixels.shape[0] * pixels.shape[1], -1).astype(np.int64)
    return len(np.unique(flat @ (256 ** np.arange(flat.shape[1]))))


def _orientation(path: str) -> int:
    try:
        with Image.open(path) as image:
            return int(image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT))
    except (OSError, SyntaxError, ValueError, TypeError):
        return _UPRIGHT


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
            f'{part.place("masks")}, or take the images away',
            missing,
        )
    twice = [path for path, count in Counter(images).items() if count > 1]
    if twice:
        yield about_files(
            'duplicate_ids',
            part.key,
            '{n} images are listed more than once and count more than once',
            part.place('list'),
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
            'list of other images, or images lie elsewhere',
            part.place('list'),
            missing,
        )
        return
    yield about_files(
        'missing_image',
        part.key,
        f'{{n}} of {len(images)} listed images do not exist',
        f'{part.place("images")}, or {part.place("list")}',
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
            part.place('images'),
            spare,
            fault=False,
        )


def check_overlap(images: Mapping[str, Iterable[str]]) -> Iterator[Finding]:
    """Find images of training that are evaluated too, and images that are copies."""
    real = {
        key: {os.path.realpath(path) for path in paths} for key, paths in images.items()
    }
    originals = _originals(sorted(set().union(*real.values())))
    for key, ours in real.items():
        groups = Counter(originals.get(path, path) for path in ours)
        copies = [path for path in ours if groups[originals.get(path, path)] > 1]
        yield from _copied(key, f'{{n}} of its {len(ours)} images', copies, 'of them')
        for other, theirs in real.items():
            if not key.startswith('train') or other.startswith('train'):
                continue
            common = sorted(ours & theirs)
            if common:
                yield about_files(
                    'wrong_split_file',
                    key,
                    f'{{n}} of its {len(ours)} images are also among the '
                    f'{len(theirs)} of {other}: the model would be tested on what it '
                    'learnt',
                    f'the lists of {key} and {other} (ann_file, or NAME.txt of a '
                    'folder), or their folders; for parts of one list, held_out of '
                    'both',
                    common,
                )
            copies = [p for p in theirs - ours if originals.get(p, p) in groups]
            what = f'{{n}} of the {len(theirs)} images of {other}'
            yield from _copied(key, what, copies, 'that is trained on')


def _copied(
    key: str, what: str, files: Collection[str], other: str
) -> Iterator[Finding]:
    if files:
        yield about_files(
            'copied_images',
            key,
            f'{what} have, to the last byte, the content of another {other}',
            'take the copies away, unless they are wanted',
            sorted(files),
            fault=False,
        )


def _originals(paths: Iterable[str]) -> dict[str, str]:
    """Return for each file the first one of the same content, if that is another."""
    alike: dict[Any, list[str]] = defaultdict(list)
    for path in filter(os.path.isfile, paths):
        alike[_middle(path)].append(path)  # tells most of a large data set apart
    same: dict[str, list[str]] = defaultdict(list)
    for path in chain.from_iterable(g for g in alike.values() if len(g) > 1):
        same[content_hash(Path(path).read_bytes())].append(path)
    return {path: group[0] for group in same.values() for path in group[1:]}


def _middle(path: str) -> tuple[int, bytes]:
    size = os.path.getsize(path)
    with open(path, 'rb') as stream:
        stream.seek(size // 2)
        return size, stream.read(_COMPARED)


def _ann_file(part: Part) -> str:
    return getattr(part.dataset, 'ann_file', '') or ''


def _is_there(part: Part, path: Any) -> bool:
    """Whether a file exists; data sets without such files are left alone."""
    if not isinstance(path, str):
        return True
    return exists(path, backend_args=getattr(part.dataset, 'backend_args', None))
