"""From a layout to a rendered scene, and to the files of a subset."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from zs3_mmseg.datasets.shapes import drawing

from .captions import draw_caption
from .drawing import BODY, CATALOGUE, SIDE, Image, ground_texture
from .layout import RECIPE_VERSION, Ground, Layout, SceneObject, draw_layout, get_rules

#: ``task(start, stop)`` does the items start to stop - 1.
Task = Callable[[int, int], object]

_CHUNK = 64


def usable_cores() -> int:
    """Cores that this process may use, where the system tells; else all of them."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_workers() -> int:
    """Processes to use when nothing is said: one per usable core, at most eight."""
    return min(usable_cores(), 8)


def _chunks(count: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, _CHUNK):
        yield start, min(start + _CHUNK, count)


def run_in_ranges(
    task: Task, count: int, workers: int | None = None, title: str | None = None
) -> None:
    """Run ``task``, picklable, over 0 to ``count`` - 1 in ranges on several processes.

    One worker stays in this process, and so does a daemonic one (a data loader worker),
    which may have no children. ``title`` labels a progress bar on stderr.
    """
    workers = default_workers() if workers is None else workers
    if workers < 1:
        raise ValueError(f'expected at least 1 worker, got {workers}')
    alone = workers == 1 or count <= _CHUNK or multiprocessing.current_process().daemon
    with Progress(
        console=Console(stderr=True), transient=True, disable=title is None
    ) as progress:
        bar = progress.add_task(title or '', total=count)
        done = _here(task, count) if alone else _spread(task, count, workers)
        for finished in done:
            progress.update(bar, advance=finished)


def _here(task: Task, count: int) -> Iterator[int]:
    for start, stop in _chunks(count):
        task(start, stop)
        yield stop - start


def _spread(task: Task, count: int, workers: int) -> Iterator[int]:
    # A forked child has everything imported already, which saves seconds for each;
    # macOS and Windows cannot fork safely.
    method = 'fork' if sys.platform == 'linux' else 'spawn'
    with ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context(method),
        initializer=cv2.setNumThreads,
        initargs=(0,),
    ) as pool:
        futures = {pool.submit(task, *chunk): chunk for chunk in _chunks(count)}
        try:
            for future in as_completed(futures):
                future.result()
                start, stop = futures[future]
                yield stop - start
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class Scene:
    """A rendered scene.

    Attributes:
        image: RGB (SIDE, SIDE, 3) uint8.
        mask: labels (SIDE, SIDE) uint8: index into ``CLASSES`` or ``VOID``.
        caption: one sentence about the image; it names only what is there.
        objects: the things, in painting order.
        grounds: class names of the grounds; empty on a bare surface.
    """

    image: Image
    mask: NDArray[np.uint8]
    caption: str
    objects: tuple[SceneObject, ...]
    grounds: tuple[str, ...]


def _paint_ground(ground: Ground, rng: np.random.Generator) -> Image:
    if ground.name is None:
        return np.full(
            (drawing.CANVAS, drawing.CANVAS, 3), ground.paint, dtype=np.uint8
        )
    return ground_texture(ground.name, ground.paint, rng)


def _paint_object(canvas: Image, item: SceneObject, rng: np.random.Generator) -> None:
    parts = CATALOGUE[item.name].parts
    if item.fill == 'plain':
        for part in parts:
            drawing.fill(canvas, item.placed(part.outline), item.paint[part.role])
        return
    texture = drawing.patterned(
        item.fill,
        item.paint[BODY],
        item.fill_paint,
        item.centre,
        item.angle + float(rng.uniform(0, np.pi)),
        item.radius * float(rng.uniform(0.22, 0.34)),
    )
    for part in parts:
        outline = item.placed(part.outline)
        if part.role == BODY:
            mask = drawing.empty_mask()
            drawing.fill(mask, outline, 1)
            drawing.paste(canvas, mask, texture)
        else:
            drawing.fill(canvas, outline, item.paint[part.role])


def _paint(layout: Layout, rng: np.random.Generator) -> Image:
    canvas = _paint_ground(layout.grounds[0], rng)
    if layout.border is not None:
        mask = drawing.empty_mask()
        drawing.fill(mask, layout.border, 1)
        drawing.paste(canvas, mask, _paint_ground(layout.grounds[1], rng))
    for piece in layout.clutter:
        drawing.fill(canvas, piece.outline, piece.paint)
    for item in layout.objects:
        _paint_object(canvas, item, rng)
    for piece in layout.clutter:
        if piece.in_front:
            drawing.fill(canvas, piece.outline, piece.paint)
    return drawing.average_down(canvas)


def _photograph(image: Image, rng: np.random.Generator) -> Image:
    """Light, contrast, blur and sensor noise, as a camera would add them."""
    light = image.astype(np.float32)
    if rng.random() < 0.35:
        angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.35)
        axis = (np.arange(SIDE, dtype=np.float32) + np.float32(0.5)) / SIDE - 0.5
        ramp = axis[None, :] * np.cos(angle) + axis[:, None] * np.sin(angle)
        light *= (1 + strength * ramp.astype(np.float32))[..., None]
    contrast, brightness = rng.uniform(0.8, 1.15), rng.uniform(-15, 15)
    light = (light - 128) * np.float32(contrast) + np.float32(128 + brightness)
    if rng.random() < 0.15:
        blur = cv2.GaussianBlur(light, (0, 0), float(rng.uniform(0.5, 1.0)))
        light = np.asarray(blur, np.float32)
    sigma = np.float32(rng.uniform(1, 6))
    light += sigma * rng.standard_normal(light.shape, dtype=np.float32)
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def _streams(seed: int, subset: str, index: int) -> list[np.random.Generator]:
    entropy = (seed, RECIPE_VERSION, zlib.crc32(subset.encode()), index)
    return [np.random.default_rng(s) for s in np.random.SeedSequence(entropy).spawn(2)]


def render_scene(seed: int, subset: str, index: int) -> Scene:
    """Render one scene; the same arguments give the same bytes.

    Args:
        seed: non-negative seed of the world.
        subset: name out of ``layout.SUBSETS``; each is its own stream of scenes.
        index: non-negative number of the scene in the stream.

    Raises:
        KeyError: if there is no such subset.
        ValueError: if seed or index is negative.
    """
    if seed < 0 or index < 0:
        raise ValueError(f'expected seed and index >= 0, got {seed} and {index}')
    rules = get_rules(subset)
    picture, words = _streams(seed, subset, index)
    layout = draw_layout(rules, picture)
    image = _photograph(_paint(layout, picture), picture)
    grounds = tuple(ground.name for ground in layout.grounds if ground.name)
    return Scene(
        image=image,
        mask=layout.labels,
        caption=draw_caption(layout.objects, grounds, words),
        objects=layout.objects,
        grounds=grounds,
    )


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
    folder gets its final name only when it is complete, also if a process dies. It
    holds ``images/``, ``labels/`` and ``captions.json``.
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
    """Write a grey (H, W) or BGR (H, W, 3) image as PNG, or raise an error."""
    # Level 1: noise hardly compresses, and encoding would take most of the time.
    fine, encoded = cv2.imencode('.png', image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not fine:
        raise OSError(f'could not encode {path} as PNG')
    path.write_bytes(encoded.tobytes())
