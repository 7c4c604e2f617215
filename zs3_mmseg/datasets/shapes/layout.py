"""What stands where in a scene: classes, colours, places and the label map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from zs3_mmseg.datasets.shapes import drawing
from zs3_mmseg.utils.names import choose

from .drawing import BODY, CATALOGUE, SIDE, TYPICAL, Colour, Points
from .vocabulary import CLASSES, COLOURS, FILLS, GROUNDS, THINGS, VOID

#: Part of every seed and of every folder name: raise it when any drawing changes.
RECIPE_VERSION = 1


@dataclass(frozen=True)
class Rules:
    """The distribution that scenes are drawn from.

    Lengths are fractions of the image side.

    Attributes:
        counts: probability of one, two and three objects.
        radius: smallest and largest radius of an object.
        radius_of_three: the same in scenes with three objects.
        class_colours: False draws every colour independently of the class.
        plain: probability of a plain body; the three patterns share the rest.
        must_hide: at least one object has this share of its pixels covered by
            another one.
        may_hide: no object is covered more than this.
        two_grounds: probability of a second ground behind a wavy border.
        bare: probability of a pale plain surface in place of a ground class.
        clutter: largest number of blobs and bars labelled void.
    """

    counts: tuple[float, float, float] = (0.4, 0.4, 0.2)
    radius: tuple[float, float] = (0.20, 0.36)
    radius_of_three: tuple[float, float] = (0.17, 0.27)
    class_colours: bool = True
    plain: float = 0.7
    must_hide: float = 0.0
    may_hide: float = 0.5
    two_grounds: float = 0.45
    bare: float = 0.0
    clutter: int = 2


_SCENES = Rules()
_ICONS = Rules(
    counts=(1.0, 0.0, 0.0), radius=(0.26, 0.42), two_grounds=0.0, bare=0.5, clutter=0
)

#: Rules of every stream of scenes. Streams of different names share no scene.
SUBSETS: dict[str, Rules] = {
    'train': _SCENES,
    'val': _SCENES,
    'test': _SCENES,
    'test_neutral': replace(_SCENES, class_colours=False),
    'test_hard': replace(
        _SCENES,
        counts=(0.0, 0.0, 1.0),
        radius_of_three=(0.20, 0.30),
        must_hide=0.15,
        may_hide=0.6,
    ),
    'clip_scenes': _SCENES,
    'clip_drawings': replace(_ICONS, class_colours=False, bare=1.0, plain=1.0),
    'clip_icons': replace(_ICONS, class_colours=False),
    'clip_heldout_scenes': _SCENES,
    'clip_heldout_icons': _ICONS,
}


def get_rules(subset: str) -> Rules:
    """Return the rules of a subset."""
    return SUBSETS[choose('subset', subset, SUBSETS)]


_COLOUR_NAMES = tuple(COLOURS)
#: An object with fewer visible pixels could not be named by anybody.
_LEAST_VISIBLE = 40


@dataclass(frozen=True)
class SceneObject:
    """One thing in a scene.

    Lengths are in pixels, the angle in radians. ``colour`` is the word for its body,
    ``paint`` the RGB of every role, ``fill_paint`` that of stripes, dots or checks.
    """

    name: str
    colour: str
    fill: str
    radius: float
    centre: tuple[float, float]
    angle: float
    flip: bool
    paint: dict[str, Colour]
    fill_paint: Colour

    def placed(self, outline: Points) -> Points:
        """Map an outline (n, 2) from the frame of the thing to pixels."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        points = outline * (-1.0 if self.flip else 1.0, 1.0)
        rotation = np.array([[cos, sin], [-sin, cos]])
        return points @ rotation * self.radius + self.centre


@dataclass(frozen=True)
class Ground:
    """One ground of a scene: a class name, or ``None`` for a bare surface."""

    name: str | None
    paint: Colour


@dataclass(frozen=True)
class Clutter:
    """A blob or bar without a class: its corners (n, 2), colour, and depth."""

    outline: Points
    paint: Colour
    in_front: bool


@dataclass(frozen=True)
class Layout:
    """A scene before it is painted.

    Attributes:
        grounds: one ground or two; the second lies within ``border``.
        border: polygon (n, 2) of the second ground, or ``None``.
        objects: things in painting order.
        clutter: shapes labelled void.
        labels: label map (SIDE, SIDE) uint8: class index or ``VOID``.
    """

    grounds: tuple[Ground, ...]
    border: Points | None
    objects: tuple[SceneObject, ...]
    clutter: tuple[Clutter, ...]
    labels: NDArray[np.uint8]


def _jittered(
    colour: Sequence[int], rng: np.random.Generator, spread: float = 14.0
) -> Colour:
    red, green, blue = np.clip(
        np.asarray(colour) + rng.uniform(-spread, spread, 3) + rng.uniform(-12, 12),
        0,
        255,
    ).astype(int)
    return int(red), int(green), int(blue)


def _any_colour(rng: np.random.Generator) -> str:
    return _COLOUR_NAMES[int(rng.integers(len(_COLOUR_NAMES)))]


def _another_colour(colour: str, rng: np.random.Generator) -> str:
    count = len(_COLOUR_NAMES)
    step = int(rng.integers(1, count))
    return _COLOUR_NAMES[(_COLOUR_NAMES.index(colour) + step) % count]


def _draw_object(
    rules: Rules, radii: tuple[float, float], rng: np.random.Generator
) -> SceneObject:
    thing = CATALOGUE[THINGS[int(rng.integers(len(THINGS)))]]
    colour = _any_colour(rng)
    if rules.class_colours and rng.random() < 0.6:
        colour = thing.body[int(rng.integers(len(thing.body)))]
    paint = {BODY: _jittered(COLOURS[colour], rng)}
    for role, typical in thing.accents.items():
        accent = _any_colour(rng)
        if rules.class_colours and rng.random() < 0.75:
            accent = typical
        elif accent == colour:
            # An accent of the body's colour would not be there at all.
            accent = _another_colour(colour, rng)
        paint[role] = _jittered(COLOURS[accent], rng)
    other = _another_colour(colour, rng)
    radius = float(rng.uniform(*radii)) * SIDE
    fill_chances = [rules.plain] + [(1 - rules.plain) / 3] * 3
    return SceneObject(
        name=thing.name,
        colour=colour,
        fill=FILLS[int(rng.choice(4, p=fill_chances))],
        radius=radius,
        centre=_draw_centre(radius, rng),
        angle=float(rng.uniform(-0.4, 0.4)),
        flip=bool(rng.random() < 0.5),
        paint=paint,
        fill_paint=_jittered(COLOURS[other], rng),
    )


def _draw_centre(radius: float, rng: np.random.Generator) -> tuple[float, float]:
    x, y = rng.uniform(0.78 * radius, SIDE - 0.78 * radius, 2)
    return float(x), float(y)


def _draw_grounds(rules: Rules, rng: np.random.Generator) -> tuple[Ground, ...]:
    if rng.random() < rules.bare:
        return (Ground(None, _jittered((222, 218, 214), rng, 30)),)
    count = 2 if rng.random() < rules.two_grounds else 1
    grounds = []
    for index in rng.permutation(len(GROUNDS))[:count]:
        name = GROUNDS[int(index)]
        colour: Sequence[int] = TYPICAL[name]
        if not rules.class_colours or rng.random() < 0.2:
            # Softened towards grey: a pure black ground would hide its texture.
            colour = [int(0.65 * c + 45) for c in COLOURS[_any_colour(rng)]]
        grounds.append(Ground(name, _jittered(colour, rng, 16)))
    return tuple(grounds)


def _draw_border(rng: np.random.Generator) -> Points:
    """A polygon that covers one side of a wavy line through the image."""
    along = np.linspace(-0.9, 0.9, 49) * SIDE
    waves = rng.uniform(0.5, 2.2) * 2 * np.pi / SIDE
    across = rng.uniform(-0.2, 0.2) * SIDE + rng.uniform(0, 0.06) * SIDE * np.sin(
        waves * along + rng.uniform(0, 2 * np.pi)
    )
    line = np.stack([along, across], axis=1)
    corners = np.array([[1.5 * SIDE, 1.5 * SIDE], [-1.5 * SIDE, 1.5 * SIDE]])
    polygon = np.concatenate([line, corners])
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    return polygon @ np.array([[cos, sin], [-sin, cos]]) + SIDE / 2


def _draw_clutter(rules: Rules, rng: np.random.Generator) -> tuple[Clutter, ...]:
    pieces = []
    for _ in range(int(rng.integers(rules.clutter + 1))):
        if rng.random() < 0.5:
            count = int(rng.integers(4, 7))
            angles = np.sort(rng.uniform(0, 2 * np.pi, count))
            radius = rng.uniform(0.025, 0.06) * SIDE
            corner = np.stack([np.cos(angles), np.sin(angles)], axis=1)
            shape = corner * rng.uniform(0.6, 1.0, (count, 1)) * radius
        else:
            length, width = rng.uniform(0.07, 0.14) * SIDE, rng.uniform(0.8, 2.0)
            turn = rng.uniform(0, np.pi)
            box = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (length, width)
            cos, sin = np.cos(turn), np.sin(turn)
            shape = box @ np.array([[cos, sin], [-sin, cos]])
        pieces.append(
            Clutter(
                shape + rng.uniform(0, SIDE, 2),
                _jittered(COLOURS[_any_colour(rng)], rng),
                bool(rng.random() < 0.5),
            )
        )
    return tuple(pieces)


def object_mask(item: SceneObject) -> drawing.Mask:
    """Canvas mask of all parts of a thing."""
    mask = drawing.empty_mask()
    for part in CATALOGUE[item.name].parts:
        drawing.fill(mask, item.placed(part.outline), 1)
    return mask


def _place(
    rules: Rules, rng: np.random.Generator
) -> tuple[list[SceneObject], list[NDArray[np.bool_]]] | None:
    """Draw objects; ``None`` if one of them is hidden too much or too little."""
    count = 1 + int(rng.choice(3, p=rules.counts))
    radii = rules.radius_of_three if count == 3 else rules.radius
    objects = [_draw_object(rules, radii, rng) for _ in range(count)]
    masks = [drawing.covered(object_mask(item)) for item in objects]
    most_hidden = 0.0
    for place, mask in enumerate(masks):
        above = np.zeros_like(mask)
        for later in masks[place + 1 :]:
            above |= later
        hidden = float((mask & above).sum()) / max(int(mask.sum()), 1)
        if hidden > rules.may_hide:
            return None
        most_hidden = max(most_hidden, hidden)
    return None if most_hidden < rules.must_hide else (objects, masks)


def _label_map(
    grounds: tuple[Ground, ...],
    border: Points | None,
    clutter: tuple[Clutter, ...],
    objects: list[SceneObject],
    masks: list[NDArray[np.bool_]],
) -> tuple[NDArray[np.uint8], list[int]]:
    """Label map and the number of visible pixels of each object."""
    names = [ground.name for ground in grounds]
    values = [VOID if name is None else CLASSES.index(name) for name in names]
    labels = np.full((SIDE, SIDE), values[0], np.uint8)
    if border is not None:
        labels[_polygon_pixels(border)] = values[1]
    owner = np.full((SIDE, SIDE), -1)
    for piece in clutter:
        labels[_polygon_pixels(piece.outline)] = VOID
    for place, (item, mask) in enumerate(zip(objects, masks, strict=True)):
        labels[mask] = CLASSES.index(item.name)
        owner[mask] = place
    for piece in clutter:
        if piece.in_front:
            pixels = _polygon_pixels(piece.outline)
            labels[pixels] = VOID
            owner[pixels] = -1
    return labels, [int((owner == place).sum()) for place in range(len(objects))]


def _polygon_pixels(points: Points) -> NDArray[np.bool_]:
    mask = drawing.empty_mask()
    drawing.fill(mask, points, 1)
    return drawing.covered(mask)


def draw_layout(rules: Rules, rng: np.random.Generator) -> Layout:
    """Draw a layout that keeps the rules; every object in it is visible."""
    while True:
        placed = _place(rules, rng)
        if placed is None:
            continue
        grounds = _draw_grounds(rules, rng)
        border = _draw_border(rng) if len(grounds) == 2 else None
        clutter = _draw_clutter(rules, rng)
        labels, visible = _label_map(grounds, border, clutter, *placed)
        # A name in a caption promises pixels: of every object and every ground.
        shown = np.bincount(labels.ravel(), minlength=256)
        ground_pixels = [
            shown[CLASSES.index(ground.name)] for ground in grounds if ground.name
        ]
        if min([*visible, *ground_pixels]) >= _LEAST_VISIBLE:
            return Layout(grounds, border, tuple(placed[0]), clutter, labels)
