"""Videos and cameras: frames in, a film of the segmentations out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import cv2
import numpy as np

from .segmentation import JSON_SUFFIX, OutputNames, Segmentation, write_json

if TYPE_CHECKING:
    from .inferencer import ZeroShotInferencer

#: Suffixes by which videos are told from pictures.
VIDEO_SUFFIXES = frozenset(
    {'.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv', '.ogv'}
)
FILM_SUFFIX = '_overlay.mp4'
_CAMERA = re.compile(r'camera:(\d+)')
_NO_FRAME = 'OpenCV can read no frame of it'
# Of a camera that doesn't say.
_USUAL_RATE = 25.0


def is_video(item: object) -> TypeGuard[str | os.PathLike]:
    """Whether something is the name of a video file."""
    return (
        isinstance(item, str | os.PathLike)
        and Path(item).suffix.lower() in VIDEO_SUFFIXES
    )


def camera_number(item: str) -> int | None:
    """Return the number of ``camera:NUMBER``; None for anything else."""
    found = _CAMERA.fullmatch(item)
    return int(found[1]) if found else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV's own lines about what it tried back: an error follows anyway."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def _opened(source: str | os.PathLike | int, step: int) -> tuple[str, cv2.VideoCapture]:
    """Return what to call a source, and its stream, for every ``step``-th frame.

    Raises:
        OSError: if it is missing or cannot be opened.
        ValueError: if the step is below 1.
    """
    if step < 1:
        raise ValueError(f'step must be at least 1, not {step}')
    if isinstance(source, int):
        name = f'camera {source}'
    else:
        name = source = os.fspath(source)
        if not Path(name).is_file():
            raise FileNotFoundError(f'{name}: no such file')
    with _quiet():
        stream = cv2.VideoCapture(source)
    if not stream.isOpened():
        raise OSError(f'{name}: {_NO_FRAME}')
    return name, stream


def _rate(stream: cv2.VideoCapture) -> float:
    """Return the frames per second that a stream claims, or a usual rate."""
    rate = stream.get(cv2.CAP_PROP_FPS)
    return rate if 0 < rate < 1000 else _USUAL_RATE


def video_frames(
    source: str | os.PathLike | int, step: int = 1
) -> Iterator[np.ndarray]:
    """Yield the frames of a video as they are read, ``(H, W, 3)`` uint8 RGB.

    Args:
        source: a file that OpenCV can read, or the number of a camera.
        step: yield every frame whose number is a multiple of this.

    Raises:
        OSError: if it cannot be opened, or holds no frame.
    """
    yield from _frames(*_opened(source, step), step)


def _frames(name: str, stream: cv2.VideoCapture, step: int) -> Iterator[np.ndarray]:
    """Yield every ``step``-th frame of a stream, and close it."""
    number = 0
    try:
        while True:
            there, frame = stream.read()
            if not there:
                break
            if number % step == 0:
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            number += 1
    finally:
        stream.release()
    if not number:
        raise OSError(f'{name}: {_NO_FRAME}')


class _Film:
    """A video file that is there as a whole, or not at all."""

    def __init__(self, path: Path, rate: float) -> None:
        self.path = path
        self._part = path.with_name(f'.{path.stem}.part{path.suffix}')
        self._rate = rate
        self._writer: cv2.VideoWriter | None = None

    def add(self, frame: np.ndarray) -> None:
        """Append a frame ``(h, w, 3)`` uint8 RGB."""
        height, width = frame.shape[:2]
        # Encoders halve the resolution of colours.
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode='edge')
        if self._writer is None:
            self._writer = cv2.VideoWriter(
                str(self._part),
                cv2.VideoWriter.fourcc(*'mp4v'),
                self._rate,
                (even.shape[1], even.shape[0]),
            )
            if not self._writer.isOpened():
                raise OSError(f'{self.path}: OpenCV cannot write a video there')
        self._writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """End the file and give it its name."""
        if self._writer is not None:
            self._writer.release()
            os.replace(self._part, self.path)

    def discard(self) -> None:
        """End the file and remove it."""
        if self._writer is not None:
            self._writer.release()
            self._part.unlink(missing_ok=True)


def segment_video(
    inferencer: ZeroShotInferencer,
    source: str | os.PathLike | int,
    names: OutputNames,
    *,
    step: int = 1,
    most: int | None = None,
    alpha: float = 0.6,
    frame_files: bool = False,
) -> tuple[Path, Segmentation]:
    """Segment a video or what a camera sees, frame by frame.

    A film of the overlays, ``STEM_overlay.mp4``, and ``STEM.json`` with the shares of
    the classes in each frame are written. Ctrl-C ends the film where it is.

    Args:
        inferencer: what segments, with its words.
        source: see :func:`video_frames`.
        names: where results go.
        step: every so many frames one is taken.
        most: end after so many of them; None: at the end of the video.
        alpha: of the colours over the picture, 0 to 1.
        frame_files: also write what is written for a picture, for each frame, as
            ``STEM_NUMBER_...``.

    Returns:
        the film, and the segmentation of its last frame.

    Raises:
        OSError: if the source cannot be read, or no frame came before Ctrl-C.
    """
    camera = source if isinstance(source, int) else None
    file = None if isinstance(source, int) else os.fspath(source)
    wanted = Path(file).stem if file else f'camera_{camera}'
    # Opened once: a camera takes seconds for it, and may not open again at once.
    name, stream = _opened(source, step)
    rate = _rate(stream) / step
    names.folder.mkdir(parents=True, exist_ok=True)
    stem = names.claim(wanted)
    film = _Film(names.folder / (stem + FILM_SUFFIX), rate)
    frames: list[dict[str, object]] = []
    last: Segmentation | None = None
    try:
        for index, frame in enumerate(islice(_frames(name, stream, step), most)):
            last = inferencer.segment(frame)[0]
            film.add(last.draw(alpha, whole_legend=True))
            number = index * step
            if frame_files:
                inferencer.write(last, names, f'{stem}_{number:06d}', alpha=alpha)
            shares = [round(float(share), 6) for share in last.shares]
            frames.append({'frame': number, 'shares': shares})
    except KeyboardInterrupt:
        if last is None:
            raise OSError(f'{wanted}: stopped before its first frame') from None
    except BaseException:
        film.discard()
        raise
    film.close()
    assert last is not None
    record = {
        'file': file,
        'camera': camera,
        'film': film.path.name,
        'frames_per_second': rate,
        'classes': list(last.classes),
        'frames': frames,
        'model': inferencer.model_record,
    }
    write_json(names.folder / (stem + JSON_SUFFIX), record)
    return film.path, last
