"""Image-caption pairs, rendered once into a folder and mapped from there."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from zs3_mmseg.datasets.shapes.captions import (
    draw_caption,
    ground_caption,
    plain_caption,
    thing_caption,
)
from zs3_mmseg.datasets.shapes.drawing import SIDE
from zs3_mmseg.datasets.shapes.layout import RECIPE_VERSION
from zs3_mmseg.datasets.shapes.scene import Scene, render_scene, run_in_ranges
from zs3_mmseg.datasets.shapes.vocabulary import CLASSES

#: Captions kept for each image: a plain one, then drawn ones ...
CAPTIONS_PER_IMAGE = 8
#: ... in this column one that tells only the grounds, where there are any ...
GROUND_COLUMN = CAPTIONS_PER_IMAGE
#: ... and in this one that tells only one of the things.
THING_COLUMN = CAPTIONS_PER_IMAGE + 1

# Part of the folder's name: raise it with any change to the captions kept.
_CAPTIONS_VERSION = 2


@dataclass(frozen=True)
class Pairs:
    """Images with captions of what is in them; no masks.

    Attributes:
        images: (N, H, W, 3) uint8 RGB, mapped from disk.
        captions: (N, CAPTIONS_PER_IMAGE + 2) strings; column 0 is plain, the last
            two tell only grounds, and only one thing.
        present: (N, K) whether each class is in the image; for evaluation only.
    """

    images: NDArray[np.uint8]
    captions: NDArray[np.str_]
    present: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)


def _captions(scene: Scene, seed: int, index: int) -> list[str]:
    # A stream of its own, so that the number of captions changes no image.
    rng = np.random.default_rng((seed, RECIPE_VERSION, index, 0xCA97))
    drawn = [
        draw_caption(scene.objects, scene.grounds, rng)
        for _ in range(CAPTIONS_PER_IMAGE - 1)
    ]
    plain = plain_caption(scene.objects)
    ground = ground_caption(scene.grounds, rng) if scene.grounds else plain
    return [plain, *drawn, ground, thing_caption(scene.objects, rng)]


def _render_range(folder: Path, seed: int, subset: str, start: int, stop: int) -> None:
    images = open_memmap(folder / 'images.npy', mode='r+')
    captions = open_memmap(folder / 'captions.npy', mode='r+')
    present = open_memmap(folder / 'present.npy', mode='r+')
    for index in range(start, stop):
        scene = render_scene(seed, subset, index)
        images[index] = scene.image
        captions[index] = _captions(scene, seed, index)
        for name in {*scene.grounds, *(item.name for item in scene.objects)}:
            present[index, CLASSES.index(name)] = True


def render_pairs(
    root: Path, subset: str, count: int, seed: int, workers: int | None = None
) -> Pairs:
    """Render pairs below ``root``, or map those that an earlier call rendered.

    They are the first ``count`` scenes of ``subset``, one of the ``clip_*``.
    """
    version = f'v{RECIPE_VERSION}.{_CAPTIONS_VERSION}'
    final = root / f'{subset}-{version}-seed{seed}-{count}'
    if not final.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f'.{final.name}.', dir=root))
        try:
            _render_all(folder, subset, count, seed, workers)
            os.rename(folder, final)
        except OSError:
            # Somebody else was quicker: their pairs are the same.
            if not final.is_dir():
                raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return Pairs(
        np.load(final / 'images.npy', mmap_mode='r', allow_pickle=False),
        np.load(final / 'captions.npy', allow_pickle=False),
        np.load(final / 'present.npy', allow_pickle=False),
    )


def _render_all(
    folder: Path, subset: str, count: int, seed: int, workers: int | None
) -> None:
    shapes: dict[str, tuple[type | str, tuple[int, ...]]] = {
        'images': (np.uint8, (count, SIDE, SIDE, 3)),
        'captions': ('<U160', (count, CAPTIONS_PER_IMAGE + 2)),
        'present': (np.bool_, (count, len(CLASSES))),
    }
    for name, (dtype, shape) in shapes.items():
        open_memmap(folder / f'{name}.npy', mode='w+', dtype=dtype, shape=shape)
    run_in_ranges(
        partial(_render_range, folder, seed, subset), count, workers, f'render {subset}'
    )
