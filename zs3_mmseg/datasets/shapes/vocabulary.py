"""Names of the Shapes world: classes, colours, fills and the label of nothing."""

from __future__ import annotations

from zs3_mmseg.utils.labels import IGNORE_INDEX

THINGS = (
    'star',
    'heart',
    'moon',
    'arrow',
    'house',
    'tree',
    'fish',
    'flower',
    'cup',
    'key',
    'boat',
    'umbrella',
    'car',
    'mushroom',
    'butterfly',
    'rocket',
)
GROUNDS = ('grass', 'sand', 'water', 'bricks')

#: Class names; the label of a pixel is the index here, :data:`VOID` is clutter.
CLASSES = THINGS + GROUNDS
VOID = IGNORE_INDEX

#: RGB, 0 to 255. Every name may stand in a caption.
COLOURS = {
    'red': (208, 40, 46),
    'orange': (240, 132, 28),
    'yellow': (244, 208, 44),
    'green': (58, 152, 62),
    'blue': (44, 96, 206),
    'purple': (132, 58, 172),
    'pink': (238, 130, 174),
    'brown': (126, 80, 42),
    'black': (38, 36, 42),
    'white': (240, 240, 236),
    'grey': (138, 142, 148),
}

FILLS = ('plain', 'striped', 'dotted', 'checkered')

#: One colour per class for label maps, in the order of :data:`CLASSES`.
PALETTE = (
    (255, 214, 10),
    (230, 25, 75),
    (190, 170, 255),
    (0, 130, 200),
    (170, 80, 20),
    (20, 110, 50),
    (255, 125, 0),
    (255, 120, 190),
    (70, 240, 240),
    (128, 128, 0),
    (0, 0, 128),
    (145, 30, 180),
    (128, 0, 30),
    (250, 190, 170),
    (240, 50, 230),
    (70, 90, 255),
    (120, 200, 60),
    (225, 205, 150),
    (60, 180, 200),
    (150, 100, 90),
)
