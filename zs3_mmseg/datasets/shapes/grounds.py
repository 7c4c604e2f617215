"""Textures of the four grounds, drawn by the canvas."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from zs3_mmseg.datasets.shapes.drawing import CANVAS, Image, frame_coordinates

Shade = NDArray[np.float32]  # (CANVAS, CANVAS) or (CANVAS, CANVAS, 3) multipliers

#: Typical base colour (RGB) of each ground.
TYPICAL = {
    'grass': (72, 142, 46),
    'sand': (214, 184, 126),
    'water': (44, 104, 178),
    'bricks': (172, 78, 62),
}

_MORTAR = np.array((200, 190, 176), np.float32)


def _noise(rng: np.random.Generator, kernel: tuple[int, int]) -> Shade:
    """Unit-variance noise (CANVAS, CANVAS) of blots of ``kernel`` (width, height)."""
    noise = rng.standard_normal((CANVAS, CANVAS), dtype=np.float32)
    blots = cv2.blur(noise, kernel, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blots, np.float32) * np.float32(np.sqrt(kernel[0] * kernel[1]))


def _blotches(rng: np.random.Generator, cells: int) -> Shade:
    """Smooth unit-variance variation with about ``cells`` blotches along a side."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    fine = cv2.resize(coarse, (CANVAS, CANVAS), interpolation=cv2.INTER_CUBIC)
    return np.asarray(fine, np.float32)


def _tinted(colour: Shade, shade: Shade) -> Image:
    """Multiply one colour (3,) by a shade and clip to 0..255."""
    return np.clip(shade[..., None] * colour, 0, 255).astype(np.uint8)


def _grass(rng: np.random.Generator, colour: Shade) -> Image:
    blades = _noise(rng, (2, 17)) * 0.16 + _noise(rng, (3, 9)) * 0.1
    return _tinted(colour, 1.0 + blades + 0.06 * _blotches(rng, 5))


def _sand(rng: np.random.Generator, colour: Shade) -> Image:
    grains = _noise(rng, (2, 2)) * 0.1
    return _tinted(colour, 1.0 + grains + 0.07 * _blotches(rng, 7))


def _water(rng: np.random.Generator, colour: Shade) -> Image:
    x, y = frame_coordinates((0, 0), rng.uniform(-0.12, 0.12))
    period, length = rng.uniform(6.5, 9.5), rng.uniform(17, 26)
    phase, shift = rng.uniform(0, 2 * np.pi, 2)
    bend = np.sin(x * np.float32(2 * np.pi / length) + np.float32(shift)) * 1.5
    waves = np.sin((y + bend) * np.float32(2 * np.pi / period) + np.float32(phase))
    return _tinted(colour, 1.0 + 0.24 * waves + 0.03 * _blotches(rng, 6))


def _bricks(rng: np.random.Generator, colour: Shade) -> Image:
    offset = rng.uniform(0, 40, 2)
    x, y = frame_coordinates((-offset[0] - 60, -offset[1] - 60), rng.uniform(-0.1, 0.1))
    height = np.float32(rng.uniform(9, 12.5))
    width = height * np.float32(rng.uniform(1.9, 2.4))
    row = np.floor(y / height)
    column = x / width + 0.5 * np.mod(row, 2)
    brick = np.floor(column)
    along = (column - brick) * width
    across = y - row * height
    mortar = (along < 1.4) | (across < 1.4)
    tones = rng.normal(1.0, 0.1, 4096).astype(np.float32)
    index = (row * 61 + brick).astype(np.int64) % tones.size
    shade = tones[index] + 0.05 * _noise(rng, (2, 2))
    texture = shade[..., None] * colour
    paint = _MORTAR * 0.75 + colour * 0.25
    texture[mortar] = paint
    return np.clip(texture, 0, 255).astype(np.uint8)


_TEXTURES: dict[str, Callable[[np.random.Generator, Shade], Image]] = {
    'grass': _grass,
    'sand': _sand,
    'water': _water,
    'bricks': _bricks,
}


def ground_texture(
    name: str, colour: tuple[int, int, int], rng: np.random.Generator
) -> Image:
    """Draw a ground over the whole canvas.

    Args:
        name: class name of the ground.
        colour: its base colour, RGB.
        rng: source of every random choice in the texture.

    Returns:
        RGB image (CANVAS, CANVAS, 3).
    """
    return _TEXTURES[name](rng, np.array(colour, np.float32))
