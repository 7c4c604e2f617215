"""What the page works with: models, pictures and words, without any page."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from zs3_mmseg.apis.inferencer import ZeroShotInferencer
from zs3_mmseg.apis.init import DEFAULT_CONFIG
from zs3_mmseg.datasets.shapes import render_scene
from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank, split_names
from zs3_mmseg.models.segmentors import ZeroShotEncoderDecoder
from zs3_mmseg.utils.image_io import MAX_PIXELS, decode_image
from zs3_mmseg.utils.names import as_list, choose

from .scored import ScoredPicture

#: A config, by path or name, and its checkpoint if anything in it learns.
Offer = tuple[str, str | None]

#: What is offered when nobody says anything: nothing in these learns.
SHIPPED: tuple[Offer, ...] = (
    (DEFAULT_CONFIG, None),
    ('clip_dense/shapes_tiny', None),
    ('two_stage/superpixel_clip_shapes_tiny', None),
)
#: Pixels that are worked on at most, and scores that are kept of a picture (128 MB).
WORKING_PIXELS, KEPT_SCORES = 2**20, 2**25
#: The most names of one picture: their label maps have 8 bits.
MAX_NAMES = 254
# Scenes of the test stream of Shapes that differ in what they show.
_SAMPLES = (15, 47, 1, 28)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that somebody chose.

    Attributes:
        name: of its file, without folder.
        pixels: ``(H, W, 3)`` uint8, RGB, of at most ``WORKING_PIXELS``.
        notes: what was done to it, one sentence each.
    """

    name: str
    pixels: np.ndarray
    notes: tuple[str, ...] = ()


def _shrunk(pixels: np.ndarray, most: int) -> np.ndarray:
    """Return a picture of at most so many pixels, in the ratio of its sides."""
    height, width = pixels.shape[:2]
    if height * width <= most:
        return pixels
    factor = math.sqrt(most / (height * width))
    size = (max(1, int(width * factor)), max(1, int(height * factor)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _fitted(picture: Picture, most: int) -> Picture:
    """Return a picture of at most so many pixels, which says that it was shrunk."""
    pixels = _shrunk(picture.pixels, most)
    if pixels is picture.pixels:
        return picture
    height, width = pixels.shape[:2]
    note = f'shrunk to {width} x {height}; zs3 segment keeps the size'
    former = (text for text in picture.notes if not text.startswith('shrunk to '))
    return replace(picture, pixels=pixels, notes=(*former, note))


def read_words(text: str) -> list[str] | None:
    """Return the names of a text, one between commas or on a line.

    Returns:
        names as ``zs3 segment --classes`` takes them; None if there are none.

    Raises:
        ValueError: a name that is there twice, or too many of them.
    """
    names = [' '.join(part.split()) for part in re.split(r'[,;\n]', text)]
    names = [name for name in names if name]
    if not names:
        return None
    _require_few(len(names))
    split_names(names)
    return names


def _require_few(count: int) -> None:
    if count > MAX_NAMES:
        raise ValueError(f'{count} names: the page takes {MAX_NAMES} at once')


def _remarks(segmentor: Any, names: Sequence[str]) -> list[str]:
    """Return what makes a result less than it seems."""
    bank = segmentor.vocabulary.bank
    remarks = []
    unknown = bank.unknown_words(names) if isinstance(bank, ClassEmbeddingBank) else ()
    if unknown:
        remarks.append(
            'the model was never trained on these words, expect nothing of them: '
            + as_list(unknown)
        )
    if len(names) == 1 and segmentor.score_kind == 'softmax':
        remarks.append(
            'of one name this model says 1 everywhere: add what to tell it from, such '
            'as "background"'
        )
    return remarks


class Workbench:
    """Segments pictures with the models that are offered, and keeps nothing of them.

    What belongs to a session (pictures, scores) is returned to it.

    Args:
        offers: models by config and checkpoint.
        device: where to compute; by default an accelerator if there is one.
        max_pixels: the largest picture that is read.

    Attributes:
        encodings: how often a model has run over a picture.

    Raises:
        OSError, ValueError: a config or checkpoint that cannot be used.
    """

    def __init__(
        self,
        offers: Sequence[Offer] = SHIPPED,
        device: str | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.max_pixels = max_pixels
        self.encodings = 0
        # One at a time: two would only wait for each other's cores and memory.
        self._lock = threading.Lock()
        self._models: dict[str, ZeroShotInferencer] = {}
        for config, checkpoint in offers:
            label = config if checkpoint is None else f'{config} ({checkpoint})'
            if label in self._models:
                continue
            inferencer = ZeroShotInferencer(
                config, checkpoint, device=device, return_scores=True
            )
            if not isinstance(inferencer.model, ZeroShotEncoderDecoder):
                kind = type(inferencer.model).__name__
                raise ValueError(
                    f'{config}: a {kind} takes no names, as the page needs'
                )
            self._models[label] = inferencer

    @property
    def models(self) -> tuple[str, ...]:
        """What the models are called, in the order of the offers."""
        return tuple(self._models)

    def words(self, model: str) -> tuple[str, ...]:
        """Return a model's own names."""
        return self._models[choose('model', model, self._models)].classes

    @staticmethod
    def samples() -> dict[str, Picture]:
        """Return scenes of Shapes, drawn here, by what they show."""
        pictures = {}
        for number in _SAMPLES:
            scene = render_scene(0, 'test', number)
            shown = [*(item.name for item in scene.objects), *scene.grounds]
            picture = Picture(f'sample_{number}.png', scene.image)
            pictures[', '.join(dict.fromkeys(shown))] = picture
        return pictures

    def read(self, path: Path) -> Picture:
        """Read a file that somebody sent.

        Raises:
            OSError: see :func:`~zs3_mmseg.utils.image_io.decode_image`; the message
                begins with the name of the file, and holds no folder.
        """
        try:
            decoded = decode_image(path, self.max_pixels)
        except OSError as error:
            raise OSError(str(error).replace(str(path), path.name)) from error
        return _fitted(
            Picture(path.name, decoded.pixels, decoded.notes), WORKING_PIXELS
        )

    def segment(
        self, picture: Picture, names: Sequence[str] | None, model: str
    ) -> ScoredPicture:
        """Segment a picture and keep its scores.

        Args:
            picture: what to segment.
            names: the vocabulary; None: the model's own.
            model: one of :attr:`models`.

        Raises:
            ValueError: unknown model, or names it cannot take.
        """
        inferencer = self._models[choose('model', model, self._models)]
        segmentor: Any = inferencer.model
        count = len(names if names is not None else inferencer.classes)
        _require_few(count)
        picture = _fitted(picture, KEPT_SCORES // count)
        with self._lock:
            self.encodings += 1
            found, _ = inferencer.segment(picture.pixels, names)
        notes = (*picture.notes, *found.notes, *_remarks(segmentor, found.classes))
        result = replace(found, source=picture.name, notes=notes)
        return ScoredPicture(result, segmentor.label_rule, model)
