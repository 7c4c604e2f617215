from __future__ import annotations

import json
from pathlib import Path

import pytest
from open_clip import OPENAI_IMAGENET_TEMPLATES

from zs3_mmseg.models.class_embeddings.clip_text import fill, resolve_templates

TOKENS = Path(__file__).parents[2] / 'data' / 'golden' / 'clip_tokens.json'


@pytest.mark.parametrize(
    ('name', 'count'),
    [('bare', 1), ('single', 1), ('zegclip', 15), ('imagenet', 80)],
)
def test_sets_have_their_published_size(name: str, count: int) -> None:
    templates = resolve_templates(name)
    assert len(set(templates)) == len(templates) == count
    assert all(template.count('{}') == 1 for template in templates)


def test_imagenet_templates_are_open_clips() -> None:
    ours = [fill(template, 'car') for template in resolve_templates('imagenet')]
    assert ours == [template('car') for template in OPENAI_IMAGENET_TEMPLATES]


def test_recorded_prompts_come_from_our_templates() -> None:
    """The recorded prompts of ZegCLIP, single and multiple, are all among ours."""
    recorded = json.loads(TOKENS.read_text())['tokens']
    single, several = resolve_templates('single')[0], resolve_templates('zegclip')
    assert fill(single, 'tvmonitor') in recorded
    assert fill(several[0], 'hair drier') in recorded
    assert {fill(template, 'cow') for template in several} & set(recorded) == {
        'This is one cow in the scene.'
    }


def test_otsegs_sentences_are_the_published_ones_in_order() -> None:
    assert [fill(template, 'cow') for template in resolve_templates('otseg8')] == [
        'a photo of a cow.',
        'a portrait of a cow.',
        'a part of a cow.',
        'a segment of a cow.',
        'a photo of small cow.',
        'a photo of medium cow.',
        'a photo of large cow.',
        'a background of a cow.',
    ]
    assert resolve_templates('otseg6') == resolve_templates('otseg8')[:6]


def test_braces_in_a_name_stay() -> None:
    assert fill('a photo of a {}', 'set {x} of {}') == 'a photo of a set {x} of {}'


@pytest.mark.parametrize(
    ('templates', 'message'),
    [
        ('imagenot', "Did you mean 'imagenet'"),
        (['a photo'], r"with '\{\}' for the class name, got \['a photo'\]"),
        ([], 'got none'),
        ([3], r'got \[3\]'),
    ],
)
def test_wrong_templates_are_named(templates, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_templates(templates)
