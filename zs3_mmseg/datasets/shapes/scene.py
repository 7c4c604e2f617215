"""Scenes: a pure function of (seed, subset, index) to image, mask and caption."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from zs3_mmseg.datasets.shapes import drawing
from zs3_mmseg.datasets.shapes.captions import draw_caption
from zs3_mmseg.datasets.shapes.drawing import SIDE, Image
from zs3_mmseg.datasets.shapes.grounds import ground_texture
from zs3_mmseg.datasets.shapes.layout import (
    Ground,
    Layout,
    SceneObject,
    draw_layout,
)
from zs3_mmseg.datasets.shapes.rules import RECIPE_VERSION, get_rules
from zs3_mmseg.datasets.shapes.things import BODY, CATALOGUE


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
        subset: name out of ``rules.SUBSETS``; each is its own stream of scenes.
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
