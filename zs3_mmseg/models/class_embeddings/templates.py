"""Prompt templates: a class name goes where ``{}`` stands."""

from __future__ import annotations

from collections.abc import Sequence

from zs3_mmseg.utils.names import did_you_mean

_SLOT = '{}'
_SIZES = ('small', 'medium', 'large')

#: Named sets of templates; ``'imagenet'`` is OpenAI's set of 80, read from open_clip.
TEMPLATE_SETS: dict[str, tuple[str, ...]] = {
    'bare': ('{}',),
    'single': ('a photo of a {}',),
    # The 15 templates of ZegCLIP's COCO-Stuff embeddings.
    'zegclip': (
        'a photo of a {}.',
        *(f'a photo of a {size} {{}}.' for size in _SIZES),
        'This is a photo of a {}.',
        *(f'This is a photo of a {size} {{}}.' for size in _SIZES),
        'a {} in the scene.',
        'a photo of a {} in the scene.',
        *(f'There is {article} {{}} in the scene.' for article in ('a', 'the')),
        *(f'This is {article} {{}} in the scene.' for article in ('a', 'the', 'one')),
    ),
}
_IMAGENET = 'imagenet'


def resolve_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Return the templates of a named set, or check an own list.

    Args:
        templates: ``'bare'`` (the name alone), ``'single'``, ``'zegclip'`` (15),
            ``'imagenet'`` (80), or a list of texts with ``{}`` in each.

    Raises:
        ValueError: if the set is unknown, or a text has no ``{}``.
    """
    if isinstance(templates, str):
        if templates == _IMAGENET:
            from open_clip import OPENAI_IMAGENET_TEMPLATES

            return tuple(fill(_SLOT) for fill in OPENAI_IMAGENET_TEMPLATES)
        if templates not in TEMPLATE_SETS:
            known = [*TEMPLATE_SETS, _IMAGENET]
            raise ValueError(
                f'templates={templates!r} is no set of templates.'
                f'{did_you_mean(templates, known)} Expected one of '
                f'{", ".join(map(repr, known))}, or a list of texts with {_SLOT!r}.'
            )
        return TEMPLATE_SETS[templates]
    chosen = tuple(templates)
    wrong = [text for text in chosen if not isinstance(text, str) or _SLOT not in text]
    if wrong or not chosen:
        raise ValueError(
            f'templates must be texts with {_SLOT!r} for the class name, got '
            f'{wrong or "none"}'
        )
    return chosen


def fill(template: str, name: str) -> str:
    """Put a name into a template. Braces in the name itself stay as they are."""
    return template.replace(_SLOT, name)
