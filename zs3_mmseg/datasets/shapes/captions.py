"""Image-level captions in plain words; they name only what is in the scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zs3_mmseg.datasets.shapes.drawing import SIDE
from zs3_mmseg.datasets.shapes.layout import SceneObject
from zs3_mmseg.datasets.shapes.vocabulary import CLASSES, COLOURS, FILLS

_MEDIA = ('photo', 'photo', 'photo', 'picture', 'image', 'drawing')
_STATEMENTS = ('there is ', 'this is ', 'we see ', '')
#: Words about the picture itself. As on the web they tell nothing about what is in
#: it; prompt templates use them.
_OPINIONS = (
    'good',
    'nice',
    'cool',
    'clean',
    'bad',
    'weird',
    'bright',
    'dark',
    'blurry',
    'cropped',
)
_PLAIN = 0.35
_SMALL, _LARGE = 0.22, 0.31


def known_words() -> list[str]:
    """Every word that a caption may hold, sorted."""
    words = {'a', 'an', 'the', 'and', 'of', 'on', 'with', 'small', 'large'}
    words.update(_MEDIA, _OPINIONS, CLASSES, COLOURS)
    words.update(' '.join(_STATEMENTS).split())
    words.update(name for name in FILLS if name != 'plain')
    return sorted(words)


def _article(phrase: str) -> str:
    return f'{"an" if phrase[0] in "aeiou" else "a"} {phrase}'


def _join(phrases: Sequence[str]) -> str:
    """``'x'``, ``'x and y'`` or ``'x, y and z'``."""
    if len(phrases) == 1:
        return phrases[0]
    return f'{", ".join(phrases[:-1])} and {phrases[-1]}'


def _described(item: SceneObject, rng: np.random.Generator) -> str:
    words = []
    if rng.random() < 0.15:
        if item.radius < _SMALL * SIDE:
            words.append('small')
        elif item.radius > _LARGE * SIDE:
            words.append('large')
    if item.fill != 'plain' and rng.random() < 0.5:
        words.append(item.fill)
    if rng.random() < 0.45:
        words.append(item.colour)
    phrase = ' '.join([*words, item.name])
    return f'the {phrase}' if rng.random() < 0.15 else _article(phrase)


def _opening(rng: np.random.Generator) -> str:
    if rng.random() < 0.4:
        return _STATEMENTS[int(rng.integers(len(_STATEMENTS)))]
    medium = _MEDIA[int(rng.integers(len(_MEDIA)))]
    if rng.random() < 0.2:
        medium = f'{_OPINIONS[int(rng.integers(len(_OPINIONS)))]} {medium}'
    return f'{_article(medium)} of '


def plain_caption(objects: Sequence[SceneObject]) -> str:
    """``'a photo of a star and a key'``: every class of thing, nothing else."""
    names = dict.fromkeys(item.name for item in objects)
    return f'a photo of {_join([_article(name) for name in names])}'


def ground_caption(grounds: Sequence[str], rng: np.random.Generator) -> str:
    """Draw a caption that tells only grounds, as ``'a photo of grass and sand.'``.

    Of two grounds, half of the captions tell one.
    """
    told = [grounds[int(i)] for i in rng.permutation(len(grounds))]
    if rng.random() < 0.5:
        told = told[:1]
    end = '.' if rng.random() < 0.25 else ''
    return f'{_opening(rng)}{_join(told)}{end}'


def thing_caption(objects: Sequence[SceneObject], rng: np.random.Generator) -> str:
    """Draw a caption that tells one thing only, as ``'a photo of a star.'``."""
    told = objects[int(rng.integers(len(objects)))]
    end = '.' if rng.random() < 0.25 else ''
    return f'{_opening(rng)}{_article(told.name)}{end}'


def draw_caption(
    objects: Sequence[SceneObject], grounds: Sequence[str], rng: np.random.Generator
) -> str:
    """Draw one of the many true captions of a scene.

    35 % are plain. The others may leave out objects and grounds, and may add words
    of size, texture and colour. Of several things of one class, one is told.
    """
    end = '.' if rng.random() < 0.25 else ''
    if rng.random() < _PLAIN:
        return plain_caption(objects) + end
    order = rng.permutation(len(objects))
    told = list({objects[int(i)].name: objects[int(i)] for i in order}.values())
    if len(told) > 1 and rng.random() < 0.3:
        told = told[: int(rng.integers(1, len(told)))]
    phrases = [_described(item, rng) for item in told]
    place = ''
    if grounds and rng.random() < 0.7:
        shuffled = [grounds[int(i)] for i in rng.permutation(len(grounds))]
        if rng.random() < 0.2:
            phrases += shuffled
        else:
            place = f' {"on" if rng.random() < 0.7 else "with"} {_join(shuffled)}'
    return f'{_opening(rng)}{_join(phrases)}{place}{end}'
