from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load

from zs3_mmseg.engine.converters import KeyRule, apply_rules

A, B = torch.zeros(2), torch.ones(3)
MATRIX = torch.arange(6).reshape(2, 3)


def test_every_key_is_accounted_for() -> None:
    conversion = apply_rules(
        {'same': A, 'old.x': B, 'step': A, 'odd': A},
        [
            KeyRule(r'old\.(.*)', r'new.\1'),
            KeyRule('step', None, 'counter'),
            KeyRule('same', '\\g<0>'),
        ],
        {'same': A, 'new.x': A, 'absent': A},
    )
    assert conversion.sources == {'same': 'same', 'new.x': 'old.x'}
    assert conversion.dropped == {'step': 'counter'}
    assert conversion.unknown == ('odd',)
    assert conversion.missing == ('absent',)
    assert conversion.mismatched == ('new.x: [3] in the source, [2] in the model',)
    assert not conversion.complete
    report = str(conversion)
    for line in (
        '1 used as they are\n  same\n',
        '1 renamed\n  old.x -> new.x\n',
        '1 dropped\n  step (counter)\n',
        '1 UNKNOWN in the source\n  odd\n',
        '1 MISSING in the source\n  absent\n',
    ):
        assert line in report


def test_the_first_rule_decides() -> None:
    rules = [KeyRule('a', None, 'first'), KeyRule('a', 'b', 'second')]
    assert apply_rules({'a': A}, rules, {}).dropped == {'a': 'first'}


def test_a_pattern_must_match_the_whole_key() -> None:
    assert apply_rules({'ab': A}, [KeyRule('a', 'a')], {'a': A}).unknown == ('ab',)


def test_a_renamed_key_the_model_lacks_is_unknown() -> None:
    assert apply_rules({'a': A}, [KeyRule('a', 'b')], {}).unknown == ('a',)


def test_two_sources_of_one_key_are_an_error() -> None:
    with pytest.raises(ValueError, match="both 'a' and 'b' would become 'c'"):
        apply_rules({'a': A, 'b': A}, [KeyRule('[ab]', 'c')], {'c': A})


def test_equal_results_have_equal_bytes() -> None:
    """safetensors itself shuffles the metadata."""
    metadata = {f'key {number}': str(number) for number in range(6)}
    rules = [KeyRule('.*', r'\g<0>')]
    state = {'a': A, 'b': MATRIX.T}
    files = [apply_rules(state, rules, state, metadata=metadata) for _ in range(4)]
    contents = {file.as_safetensors() for file in files}
    assert len(contents) == 1
    (content,) = contents
    assert torch.equal(load(content)['b'], MATRIX.T)


def test_metadata_is_stored(tmp_path: Path) -> None:
    metadata = {'arch': 'ViT\u2011B', 'activation': 'gelu'}
    rules = [KeyRule('.*', r'\g<0>')]
    conversion = apply_rules({'a': A}, rules, {'a': A}, metadata=metadata)
    (tmp_path / 'file.safetensors').write_bytes(conversion.as_safetensors())
    with safe_open(tmp_path / 'file.safetensors', 'pt') as file:
        assert file.metadata() == metadata
