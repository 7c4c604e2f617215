import pytest
import torch

from zs3_mmseg.engine.converters import Rule, apply_rules

A, B = torch.zeros(2), torch.ones(3)


def test_every_key_is_accounted_for() -> None:
    conversion = apply_rules(
        {'same': A, 'old.x': B, 'step': A, 'odd': A},
        [
            Rule(r'old\.(.*)', r'new.\1'),
            Rule('step', None, 'counter'),
            Rule('same', '\\g<0>'),
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
    rules = [Rule('a', None, 'first'), Rule('a', 'b', 'second')]
    assert apply_rules({'a': A}, rules, {}).dropped == {'a': 'first'}


def test_a_pattern_must_match_the_whole_key() -> None:
    assert apply_rules({'ab': A}, [Rule('a', 'a')], {'a': A}).unknown == ('ab',)


def test_a_renamed_key_the_model_lacks_is_unknown() -> None:
    assert apply_rules({'a': A}, [Rule('a', 'b')], {}).unknown == ('a',)


def test_two_sources_of_one_key_are_an_error() -> None:
    with pytest.raises(ValueError, match="both 'a' and 'b' would become 'c'"):
        apply_rules({'a': A, 'b': A}, [Rule('[ab]', 'c')], {'c': A})
