"""What the page shows of a result, as HTML."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from zs3_mmseg.apis.segmentation import Segmentation
from zs3_mmseg.utils.labels import NARROW
from zs3_mmseg.visualization.drawing import contrast_colour
from zs3_mmseg.visualization.overlay import (
    as_percent,
    draw_named_regions,
    hatched_classes,
)


def _png(pixels: np.ndarray) -> str:
    """Return pixels as an address that holds them."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, 'PNG', compress_level=1)
    return 'data:image/png;base64,' + base64.b64encode(stream.getvalue()).decode()


def _rgb(colour: Iterable[int]) -> str:
    return f'rgb({", ".join(map(str, colour))})'


def picture_view(pixels: np.ndarray, text: str) -> str:
    """Return a picture ``(H, W, 3)`` with the text that stands for it."""
    return f'<img class="zs3-picture" src="{_png(pixels)}" alt="{html.escape(text)}">'


def message_view(text: str, *, fault: bool = False) -> str:
    """Return one message; a fault is read out at once."""
    kind, role = ('zs3-fault', 'alert') if fault else ('zs3-message', 'status')
    return f'<p class="{kind}" role="{role}">{html.escape(text)}</p>'


def _legend_item(segmentation: Segmentation, index: int, hatched: bool) -> str:
    colour = segmentation.palette[index]
    name = html.escape(segmentation.display_names[index])
    share = as_percent(segmentation.shares[index])
    return (
        f'<li><button type="button" data-class="{index}" data-name="{name}">'
        f'<span class="zs3-swatch{" zs3-hatched" if hatched else ""}" '
        f'style="background-color: {_rgb(colour)}; '
        f'--zs3-line: {_rgb(contrast_colour(colour))}"></span>'
        f'<span>{name}</span> <small>{share}</small></button></li>'
    )


def result_view(segmentation: Segmentation) -> str:
    """Return the regions over their picture, with a legend of what was found.

    Beside what is seen there is the label map, out of which ``hover.js`` reads the name
    under the pointer: a grey picture whose values are positions in the legend's names.
    """
    classes, positions = segmentation.display_names, segmentation.positions
    hatched = hatched_classes(classes, segmentation.unseen)
    drawn = draw_named_regions(
        segmentation.image, positions, classes, segmentation.palette, hatched
    )
    height, width = positions.shape
    shares = segmentation.shares
    order = [int(i) for i in np.argsort(-shares, kind='stable') if shares[i] > 0]
    items = ''.join(_legend_item(segmentation, i, i in hatched) for i in order)
    absent = [name for name, share in zip(classes, shares, strict=True) if not share]
    lines = []
    nameless = float(np.mean(positions == NARROW.ignore))
    if nameless:
        lines.append(f'without a name: {as_percent(nameless)}')
    if absent:
        lines.append(f'not found: {", ".join(absent)}')
    if hatched.intersection(order):
        lines.append('hatched: unseen classes, without masks in training')
    found = ', '.join(classes[index] for index in order) or 'none of the names'
    return (
        '<figure class="zs3-result">'
        f'<div class="zs3-stage" style="--zs3-ratio: {width / height:.4f}">'
        f'<img class="zs3-overlay" src="{_png(drawn)}" '
        f'alt="{html.escape(f"Regions of {found}")}">'
        f'<img class="zs3-labels" src="{_png(positions.astype(np.uint8))}" '
        'alt="" hidden>'
        '<canvas class="zs3-spot" aria-hidden="true"></canvas>'
        '<output class="zs3-name" hidden></output></div>'
        f'<figcaption><ul class="zs3-legend">{items}</ul>'
        + ''.join(f'<p>{html.escape(line)}</p>' for line in lines)
        + '</figcaption></figure>'
    )
