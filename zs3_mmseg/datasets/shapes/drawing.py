"""What Shapes is drawn with: the canvas, textures of grounds, outlines of things.

Everything is painted on a canvas of twice the final size. Lengths are in final pixels,
x points right and y down. A thing is a list of polygons in a frame of about unit
radius, painted in order; the pixels of all its parts together are its mask. The part
role ``body`` takes the colour and the fill of the object, every other is an accent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .vocabulary import THINGS

SIDE = 112
OVERSAMPLE = 2
CANVAS = SIDE * OVERSAMPLE

Image = NDArray[np.uint8]  # (H, W, 3) RGB, 0 to 255
Mask = NDArray[np.uint8]  # (H, W), 0 or 1
Points = NDArray[np.float64]  # (n, 2) x, y in final pixels
Colour = tuple[int, int, int]

_SHIFT = 4  # fractional bits of polygon corners


def _corners(points: Points) -> NDArray[np.int32]:
    # Pixel k of the canvas covers k to k + 1, its centre lies at k + 0.5.
    scaled = (points * OVERSAMPLE - 0.5) * (1 << _SHIFT)
    return np.rint(scaled).astype(np.int32)


def fill(canvas: NDArray[np.uint8], points: Points, value: Colour | int) -> None:
    """Paint a polygon (n, 2), which may reach outside, on an image or mask in place."""
    scalar = (value,) if isinstance(value, int) else value
    cv2.fillPoly(canvas, [_corners(points)], scalar, lineType=cv2.LINE_8, shift=_SHIFT)


def empty_mask() -> Mask:
    """A canvas-sized mask of zeros."""
    return np.zeros((CANVAS, CANVAS), np.uint8)


def covered(mask: Mask) -> NDArray[np.bool_]:
    """Final pixels (SIDE, SIDE) of which a canvas mask covers at least half."""
    blocks = mask.reshape(SIDE, OVERSAMPLE, SIDE, OVERSAMPLE)
    return blocks.sum(axis=(1, 3)) * 2 >= OVERSAMPLE * OVERSAMPLE


def average_down(canvas: Image) -> Image:
    """Average a canvas (CANVAS, CANVAS, 3) to the final size (SIDE, SIDE, 3)."""
    small = cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def paste(canvas: Image, mask: Mask, texture: Image) -> None:
    """Copy ``texture`` onto ``canvas`` in place where ``mask`` is set."""
    cv2.copyTo(texture, mask, canvas)


def frame_coordinates(
    centre: tuple[float, float], angle: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return x and y, each (CANVAS, CANVAS), of canvas pixels in a turned frame."""
    axis = (np.arange(CANVAS, dtype=np.float32) + np.float32(0.5)) / OVERSAMPLE
    x = axis[None, :] - np.float32(centre[0])
    y = axis[:, None] - np.float32(centre[1])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = x * cos + y * sin, y * cos - x * sin
    return along.astype(np.float32), across.astype(np.float32)


def patterned(
    kind: str,
    first: Colour,
    second: Colour,
    centre: tuple[float, float],
    angle: float,
    period: float,
) -> Image:
    """Return a canvas-sized texture with stripes, dots or checks of a second colour."""
    x, y = frame_coordinates(centre, angle)
    u, v = x / np.float32(period), y / np.float32(period)
    if kind == 'striped':
        second_here = (u - np.floor(u)) < 0.5
    elif kind == 'checkered':
        second_here = ((u - np.floor(u)) < 0.5) ^ ((v - np.floor(v)) < 0.5)
    elif kind == 'dotted':
        second_here = (u - np.floor(u) - 0.5) ** 2 + (v - np.floor(v) - 0.5) ** 2 < 0.09
    else:
        raise ValueError(f"expected 'striped', 'dotted' or 'checkered', got {kind!r}")
    colours = np.array([first, second], np.uint8)
    return colours[second_here.astype(np.intp)]


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
    """Draw a ground of a base colour over the whole canvas, (CANVAS, CANVAS, 3)."""
    return _TEXTURES[name](rng, np.array(colour, np.float32))


Outline = NDArray[np.float64]

BODY = 'body'


@dataclass(frozen=True)
class Part:
    """One polygon (n, 2) of a thing: its body, or an accent by name."""

    role: str
    outline: Outline


@dataclass(frozen=True)
class Thing:
    """What a class of things looks like, with the typical colours of each role."""

    name: str
    parts: tuple[Part, ...]
    body: tuple[str, ...]
    accents: dict[str, str]


def _points(*corners: tuple[float, float]) -> Outline:
    return np.array(corners, dtype=np.float64)


def _arc(
    cx: float, cy: float, rx: float, ry: float, start: float, stop: float, n: int = 24
) -> Outline:
    """Points on an ellipse from angle ``start`` to ``stop`` (degrees, y down)."""
    angle = np.radians(np.linspace(start, stop, n))
    return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], axis=1)


def _ellipse(cx: float, cy: float, rx: float, ry: float, tilt: float = 0.0) -> Outline:
    points = _arc(0, 0, rx, ry, 0, 360, 29)[:-1]
    turn = np.radians(tilt)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return points @ rotation + (cx, cy)


def _box(left: float, top: float, right: float, bottom: float) -> Outline:
    return _points((left, top), (right, top), (right, bottom), (left, bottom))


def _band(
    cx: float, cy: float, outer: float, inner: float, start: float, stop: float
) -> Outline:
    """A bent bar; 0 to 360 degrees make a ring whose hole stays open."""
    return np.concatenate(
        [
            _arc(cx, cy, outer, outer, start, stop, 29),
            _arc(cx, cy, inner, inner, stop, start, 29),
        ]
    )


def _star() -> list[Part]:
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.44)
    angle = np.radians(-90 + 36 * np.arange(10))
    outline = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return [Part(BODY, outline)]


def _heart() -> list[Part]:
    t = np.linspace(0, 2 * np.pi, 49)[:-1]
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return [Part(BODY, np.stack([x, y - 2], axis=1) / 16.5)]


def _moon() -> list[Part]:
    # The disc of radius 1 without a disc of radius 0.8 at x = 0.5; they meet there.
    meet = np.array([0.61, np.sqrt(1 - 0.61**2)])
    outer = float(np.degrees(np.arctan2(meet[1], meet[0])))
    inner = float(np.degrees(np.arctan2(meet[1], meet[0] - 0.5)))
    outline = np.concatenate(
        [
            _arc(0, 0, 1, 1, outer, 360 - outer, 33),
            _arc(0.5, 0, 0.8, 0.8, 360 - inner, inner, 29),
        ]
    )
    return [Part(BODY, outline + np.array((0.15, 0)))]


def _arrow() -> list[Part]:
    return [
        Part(
            BODY,
            _points(
                (-1, -0.27),
                (0.12, -0.27),
                (0.12, -0.68),
                (1, 0),
                (0.12, 0.68),
                (0.12, 0.27),
                (-1, 0.27),
            ),
        )
    ]


def _house() -> list[Part]:
    return [
        Part('roof', _box(0.34, -0.82, 0.56, -0.3)),
        Part(BODY, _box(-0.7, -0.12, 0.7, 0.85)),
        Part('roof', _points((-0.95, -0.08), (0, -0.92), (0.95, -0.08))),
        Part('door', _box(-0.45, 0.25, -0.08, 0.85)),
        Part('window', _box(0.16, 0.2, 0.5, 0.54)),
    ]


def _tree() -> list[Part]:
    return [
        Part('trunk', _points((-0.15, 0.1), (0.15, 0.1), (0.2, 1), (-0.2, 1))),
        Part(BODY, _ellipse(-0.4, -0.05, 0.44, 0.42)),
        Part(BODY, _ellipse(0.4, -0.05, 0.44, 0.42)),
        Part(BODY, _ellipse(0, -0.48, 0.5, 0.5)),
    ]


def _fish() -> list[Part]:
    return [
        Part('fin', _points((-0.4, -0.3), (0.22, -0.72), (0.32, -0.25))),
        Part(BODY, _points((0.42, 0), (0.98, -0.52), (0.84, 0), (0.98, 0.52))),
        Part(BODY, _ellipse(-0.2, 0, 0.78, 0.44)),
        Part('eye', _ellipse(-0.62, -0.1, 0.1, 0.1)),
    ]


def _flower() -> list[Part]:
    petals = [
        Part(BODY, _ellipse(0.6 * np.cos(a), 0.6 * np.sin(a), 0.37, 0.37))
        for a in np.radians(90 + 60 * np.arange(6))
    ]
    return [
        *petals,
        Part(BODY, _ellipse(0, 0, 0.5, 0.5)),
        Part('centre', _ellipse(0, 0, 0.32, 0.32)),
    ]


def _cup() -> list[Part]:
    mug = _points((-0.72, -0.66), (0.48, -0.66), (0.4, 0.78), (-0.64, 0.78))
    return [
        Part(BODY, _band(0.46, 0.02, 0.48, 0.29, -100, 100)),
        Part(BODY, mug),
        Part('inside', _ellipse(-0.12, -0.66, 0.6, 0.15)),
    ]


def _key() -> list[Part]:
    return [
        Part(BODY, _band(-0.58, 0, 0.42, 0.2, 0, 360)),
        Part(BODY, _box(-0.2, -0.12, 1, 0.12)),
        Part(BODY, _box(0.5, 0.1, 0.66, 0.42)),
        Part(BODY, _box(0.82, 0.1, 1, 0.5)),
    ]


def _boat() -> list[Part]:
    return [
        Part('mast', _box(-0.05, -0.95, 0.03, 0.4)),
        Part('sail', _points((0.07, -0.85), (0.76, 0.2), (0.07, 0.2))),
        Part('sail', _points((-0.1, -0.72), (-0.1, 0.2), (-0.64, 0.2))),
        Part(BODY, _points((-0.98, 0.34), (0.98, 0.34), (0.62, 0.84), (-0.62, 0.84))),
    ]


def _umbrella() -> list[Part]:
    scallops = [
        _arc(cx, 0.02, 0.24, 0.13, 0, -180, 9) for cx in (0.72, 0.24, -0.24, -0.72)
    ]
    canopy = np.concatenate([_arc(0, 0.02, 0.96, 0.86, 180, 360, 25), *scallops])
    return [
        Part('handle', _box(-0.05, -0.98, 0.05, 0.78)),
        Part('handle', _band(0.2, 0.76, 0.25, 0.14, 0, 180)),
        Part(BODY, canopy),
    ]


def _car() -> list[Part]:
    back = _points((-0.42, -0.08), (-0.27, -0.4), (-0.05, -0.4), (-0.05, -0.08))
    front = _points((0.06, -0.08), (0.06, -0.4), (0.24, -0.4), (0.42, -0.08))
    cabin = _points((-0.56, -0.02), (-0.34, -0.5), (0.3, -0.5), (0.58, -0.02))
    return [
        Part(BODY, cabin),
        Part(
            BODY,
            _points(
                (-0.98, 0.02),
                (-0.86, -0.1),
                (0.72, -0.1),
                (0.98, 0.06),
                (0.98, 0.4),
                (-0.98, 0.4),
            ),
        ),
        Part('window', back),
        Part('window', front),
        Part('wheel', _ellipse(-0.52, 0.4, 0.25, 0.25)),
        Part('wheel', _ellipse(0.52, 0.4, 0.25, 0.25)),
    ]


def _mushroom() -> list[Part]:
    stem = _points((-0.2, 0), (0.2, 0), (0.34, 0.92), (-0.34, 0.92))
    return [
        Part('stem', stem),
        Part(BODY, _arc(0, 0.12, 0.95, 0.98, 180, 360, 25)),
        Part('spot', _ellipse(-0.5, -0.22, 0.15, 0.14)),
        Part('spot', _ellipse(0.02, -0.5, 0.17, 0.15)),
        Part('spot', _ellipse(0.5, -0.18, 0.14, 0.13)),
    ]


def _butterfly() -> list[Part]:
    upper, lower = (0.5, -0.3, 0.52, 0.4, 35), (0.42, 0.42, 0.4, 0.34, -35)
    wings = [
        Part(BODY, _ellipse(side * x, y, rx, ry, side * tilt))
        for x, y, rx, ry, tilt in (upper, lower)
        for side in (-1, 1)
    ]
    spots = [Part('spot', _ellipse(side * 0.55, -0.36, 0.17, 0.17)) for side in (-1, 1)]
    feeler = _points((0, -0.5), (0.3, -0.96), (0.38, -0.9), (0.08, -0.5))
    feelers = [Part('trunk', feeler * (side, 1)) for side in (-1, 1)]
    return [*wings, *spots, *feelers, Part('trunk', _ellipse(0, 0.02, 0.1, 0.68))]


def _rocket() -> list[Part]:
    left = _points((-0.3, 0.1), (-0.72, 0.72), (-0.24, 0.6))
    hull = np.concatenate(
        [_arc(0.0, 0.0, 0.34, 1.0, 180, 360, 21), _points((0.27, 0.66), (-0.27, 0.66))]
    )
    return [
        Part('flame', _points((-0.18, 0.6), (0.18, 0.6), (0, 1.0))),
        Part('fin', left),
        Part('fin', left * (-1, 1)),
        Part(BODY, hull),
        Part('window', _ellipse(0, -0.28, 0.16, 0.16)),
    ]


def _catalogue() -> dict[str, Thing]:
    looks: dict[str, tuple[list[Part], tuple[str, ...], dict[str, str]]] = {
        'star': (_star(), ('yellow',), {}),
        'heart': (_heart(), ('red', 'pink'), {}),
        'moon': (_moon(), ('yellow', 'white'), {}),
        'arrow': (_arrow(), ('blue', 'red'), {}),
        'house': (
            _house(),
            ('white', 'orange'),
            {'roof': 'brown', 'door': 'brown', 'window': 'yellow'},
        ),
        'tree': (_tree(), ('green',), {'trunk': 'brown'}),
        'fish': (_fish(), ('orange', 'blue'), {'fin': 'grey', 'eye': 'black'}),
        'flower': (_flower(), ('pink', 'purple'), {'centre': 'yellow'}),
        'cup': (_cup(), ('white', 'blue'), {'inside': 'black'}),
        'key': (_key(), ('grey', 'brown'), {}),
        'boat': (_boat(), ('brown',), {'sail': 'white', 'mast': 'black'}),
        'umbrella': (_umbrella(), ('purple', 'black'), {'handle': 'black'}),
        'car': (_car(), ('red', 'blue'), {'wheel': 'black', 'window': 'white'}),
        'mushroom': (_mushroom(), ('red', 'brown'), {'stem': 'white', 'spot': 'white'}),
        'butterfly': (_butterfly(), ('orange',), {'spot': 'black', 'trunk': 'black'}),
        'rocket': (
            _rocket(),
            ('white', 'grey'),
            {'fin': 'red', 'window': 'blue', 'flame': 'orange'},
        ),
    }
    return {
        name: Thing(name, tuple(looks[name][0]), looks[name][1], looks[name][2])
        for name in THINGS
    }


#: Every thing by its class name, in the order of ``THINGS``.
CATALOGUE = _catalogue()
