from __future__ import annotations

import gzip
import json
from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor

from zs3_mmseg.models.class_embeddings import clip_text
from zs3_mmseg.models.class_embeddings.clip_text import ClipTextSource
from zs3_mmseg.models.towers import (
    load_clip,
    release_towers,
    text_features,
    tower_hash,
)

NAMES = ['cat', 'traffic light', 'sofa']


@pytest.fixture
def weights(tmp_path: Path, tiny_clip) -> Path:
    path = tmp_path / 'weights.pt'
    torch.save(tiny_clip().state_dict(), path)
    return path


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(clip_text, 'print_log', lambda text, **_: messages.append(text))
    return messages


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('ZS3_MMSEG_CACHE', str(tmp_path / 'cache'))


@pytest.mark.parametrize('batch_size', [1, 7, 256])
def test_rows_are_open_clips_zero_shot_classifier(
    batch_size: int, weights: Path, tiny_config
) -> None:
    templates = ['a photo of a {}.', 'a {} in the scene.', '{}']
    source = ClipTextSource(
        tiny_config(), weights, templates=templates, batch_size=batch_size, cache=False
    )
    rows = source.rows(NAMES, True, None)
    clip = load_clip(tiny_config(), weights)
    expected = open_clip.build_zero_shot_classifier(
        clip.model, clip.tokenizer, NAMES, templates
    )
    torch.testing.assert_close(rows, expected.T)
    assert source.dim == 24


def test_without_normalising_rows_are_the_towers_output(
    weights: Path, tiny_config
) -> None:
    source = ClipTextSource(tiny_config(), weights, templates='bare')
    clip = load_clip(tiny_config(), weights)
    with torch.no_grad():
        expected = clip.model.encode_text(clip.tokenizer(NAMES))
    torch.testing.assert_close(source.rows(NAMES, False, None), expected)


def test_cached_rows_need_no_tower(
    weights: Path, tiny_config, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ClipTextSource(tiny_config(), weights).rows(NAMES, True, None)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError('the tower is built')

    monkeypatch.setattr(clip_text, 'load_clip', fail)
    again = ClipTextSource(tiny_config(), weights)
    assert torch.equal(again.rows(NAMES, True, None), rows)
    assert again.provenance()['tower_hash'] == tower_hash(tiny_config(), weights)
    for source, names, normalize in (
        (again, NAMES[:2], True),
        (again, NAMES[::-1], True),
        (again, NAMES, False),
        (ClipTextSource(tiny_config(), weights, templates='bare'), NAMES, True),
        (ClipTextSource(tiny_config(quick_gelu=True), weights), NAMES, True),
    ):
        with pytest.raises(AssertionError, match='tower is built'):
            source.rows(names, normalize, None)


def test_what_is_drawn_does_not_depend_on_the_cache(weights: Path, tiny_config) -> None:
    release_towers()
    before = torch.get_rng_state()
    ClipTextSource(tiny_config(), weights).rows(['cat'], True, None)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_rows_are_not_cached(tiny_config, tmp_path: Path) -> None:
    source = ClipTextSource(tiny_config())
    first: Tensor = source.rows(NAMES, True, None)
    assert not torch.equal(first, source.rows(NAMES, True, None))
    assert not (tmp_path / 'cache').exists()


def test_token_features_are_the_towers_and_cached(
    weights: Path, tiny_config, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ClipTextSource(tiny_config(), weights, templates='bare', batch_size=2)
    features = source.token_features(NAMES, None)
    clip = load_clip(tiny_config(), weights)
    with torch.no_grad():
        _, expected = text_features(clip.model, clip.tokenizer(NAMES))
    torch.testing.assert_close(features, expected)
    monkeypatch.setattr(clip_text, 'load_clip', None)  # the tower is not built again
    again = ClipTextSource(tiny_config(), weights, templates='bare')
    assert torch.equal(again.token_features(NAMES, None), features)
    assert again.provenance()['tower_hash'] == tower_hash(tiny_config(), weights)


def test_token_features_have_no_average(weights: Path, tiny_config) -> None:
    source = ClipTextSource(tiny_config(), weights, templates=['a {}', 'the {}'])
    with pytest.raises(ValueError, match='cannot be averaged over 2 templates'):
        source.token_features(NAMES, None)


def test_unknown_words_are_named_in_one_warning(
    weights: Path, tiny_config, said: list[str]
) -> None:
    config = tiny_config() | dict(known_words=['cat', 'light', 'a'])
    source = ClipTextSource(config, weights)
    for _ in range(2):  # also when the rows are cached
        source.rows(['Cat', 'traffic light', 'teapot', 'old teapot'], True, None)
        assert len(said) == 1
        assert "'traffic', 'teapot', 'old'" in said.pop()
    source.rows(['cat', 'light cat'], True, None)
    assert not said


def test_cut_prompts_are_named(weights: Path, tiny_config, said: list[str]) -> None:
    source = ClipTextSource(tiny_config(), weights, templates='bare')
    ten, eleven = ' '.join(['cat'] * 10), ' '.join(['cat'] * 11)
    source.rows([ten, eleven], True, None)
    assert len(said) == 1
    assert said[0].endswith(f"text tower: '{eleven}'")


def test_a_tokenizer_of_another_vocabulary_is_an_error(tmp_path: Path, tiny_config):
    config = tiny_config()
    config['text_cfg']['vocab_size'] = 515  # 516 with the two merges below
    config['text_cfg']['tokenizer_kwargs'] = dict(bpe_path='merges.txt.gz')
    with gzip.open(tmp_path / 'merges.txt.gz', 'wt') as stream:
        stream.write('#version\nc a\nca t</w>')
    (tmp_path / 'model.json').write_text(json.dumps(config))
    source = ClipTextSource(str(tmp_path / 'model.json'))
    with pytest.raises(
        ValueError, match=r'ids up to 515, but its text tower knows 515'
    ):
        source.rows(['cat'], True, None)


def test_provenance_holds_no_folder(weights: Path, tiny_config, tmp_path: Path) -> None:
    (tmp_path / 'model.json').write_text(json.dumps(tiny_config()))
    source = ClipTextSource(str(tmp_path / 'model.json'), weights)
    source.rows(['cat'], True, None)
    provenance = source.provenance()
    assert provenance['arch'] == 'model.json'
    assert provenance['pretrained'] == 'weights.pt'
    assert json.loads(provenance['templates']) == ['a photo of a {}']
    assert str(tmp_path) not in str(provenance)
    assert all(type(value) is str for value in provenance.values())


def test_nothing_is_opened_before_rows_are_asked_for() -> None:
    source = ClipTextSource('no/such.json', 'no/such.pt')
    with pytest.raises(FileNotFoundError, match=r'no/such\.json'):
        source.rows(['cat'], True, None)


def test_batch_size_is_checked(tiny_config) -> None:
    with pytest.raises(ValueError, match='batch_size'):
        ClipTextSource(tiny_config(), batch_size=0)


@pytest.mark.parametrize('batch_size', [1, 256])
def test_many_sentences_are_announced_and_counted(
    batch_size: int,
    weights: Path,
    tiny_config,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv('FORCE_COLOR', '1')  # for rich a terminal
    many = batch_size < len(NAMES)
    ClipTextSource(tiny_config(), weights, batch_size=batch_size).rows(
        NAMES, True, None
    )
    assert said == (['encoding 3 names in 3 sentences'] if many else [])
    shown = capsys.readouterr()
    assert ('encoding names' in shown.err) == many
    assert shown.out == ''
