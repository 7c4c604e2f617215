"""Shapes on disk: PNG images, PNG label maps and captions, made on first use."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from zs3_mmseg.datasets.shapes.parallel import run_in_ranges
from zs3_mmseg.datasets.shapes.rules import RECIPE_VERSION, get_rules
from zs3_mmseg.datasets.shapes.scene import render_scene

IMAGES, LABELS, CAPTIONS = 'images', 'labels', 'captions.json'


def subset_folder(root: str | os.PathLike, subset: str, count: int, seed: int) -> Path:
    """Folder of a subset: everything that its content depends on is in the name."""
    return Path(root) / f'{subset}-v{RECIPE_VERSION}-seed{seed}-{count}'


def file_stem(index: int) -> str:
    """Name of the files of one scene, without suffix."""
    return f'{index:06d}'


def generate(
    root: str | os.PathLike,
    subset: str,
    count: int,
    seed: int = 0,
    *,
    workers: int | None = None,
) -> Path:
    """Make a subset on disk unless it is there already.

    Ranks that start at once are safe: one renders while the others wait, and the
    folder gets its final name only when it is complete, also if a process dies.

    Args:
        root: data folder; the subset gets a folder of its own in it.
        subset: name out of ``rules.SUBSETS``.
        count: number of scenes, the first of the subset's stream.
        seed: seed of the world.
        workers: processes to render with; all cores by default.

    Returns:
        The folder, holding ``images/``, ``labels/`` and ``captions.json``.

    Raises:
        KeyError: if there is no such subset.
        ValueError: if ``count`` or ``seed`` is out of range.
    """
    get_rules(subset)
    if count < 1 or seed < 0:
        raise ValueError(f'expected count >= 1 and seed >= 0, got {count} and {seed}')
    final = subset_folder(root, subset, count, seed)
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(final.with_name(f'.{final.name}.lock')):
        if not final.is_dir():
            _fill_and_rename(final, subset, count, seed, workers)
    return final


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """Hold a file lock where the system has them; it dies with the process.

    It only saves double work. Correctness rests on the rename.
    """
    with lock.open('w') as stream:
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX)
        except (ImportError, OSError):
            # Windows has no fcntl, some network file systems no locks.
            yield
        else:
            yield
    lock.unlink(missing_ok=True)


def _fill_and_rename(
    final: Path, subset: str, count: int, seed: int, workers: int | None
) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f'.{final.name}.', dir=final.parent))
    try:
        for part in (IMAGES, LABELS, CAPTIONS + '.parts'):
            (temporary / part).mkdir()
        run_in_ranges(
            partial(_write_range, temporary, subset, seed),
            count,
            workers,
            f'Shapes: draw {count} {subset} scenes',
        )
        _join_captions(temporary)
        # mkdtemp makes private folders; data must stay readable for other users.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        os.rename(temporary, final)
    except OSError:
        # Without locks somebody else may have been quicker, with the same content.
        if not final.is_dir():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_range(folder: Path, subset: str, seed: int, start: int, stop: int) -> None:
    captions = {}
    for index in range(start, stop):
        scene = render_scene(seed, subset, index)
        name = f'{file_stem(index)}.png'
        # OpenCV writes its third channel as red.
        write_png(folder / IMAGES / name, scene.image[..., ::-1])
        write_png(folder / LABELS / name, scene.mask)
        captions[file_stem(index)] = scene.caption
    part = folder / f'{CAPTIONS}.parts' / f'{file_stem(start)}.json'
    part.write_text(json.dumps(captions))


def _join_captions(folder: Path) -> None:
    parts = folder / f'{CAPTIONS}.parts'
    captions: dict[str, str] = {}
    for part in sorted(parts.iterdir()):
        captions.update(json.loads(part.read_text()))
    shutil.rmtree(parts)
    (folder / CAPTIONS).write_text(json.dumps(captions, indent=0) + '\n')


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a grey (H, W) or BGR (H, W, 3) image as PNG.

    Raises:
        OSError: if it cannot be written (OpenCV itself would only return False).
    """
    # Level 1: noise hardly compresses, and encoding would take most of the time.
    fine, encoded = cv2.imencode('.png', image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not fine:
        raise OSError(f'could not encode {path} as PNG')
    path.write_bytes(encoded.tobytes())
