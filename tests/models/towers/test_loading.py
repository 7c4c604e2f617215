from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from zs3_mmseg.models.towers import clip, load_clip, release_towers, tower_hash


@pytest.fixture
def weights(tmp_path: Path, tiny_clip) -> Path:
    path = tmp_path / 'weights.pt'
    torch.save(tiny_clip().state_dict(), path)
    return path


def test_a_file_is_read_once_for_both_towers(
    weights: Path, tiny_config, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    read = clip.load_weights
    monkeypatch.setattr(
        clip, 'load_weights', lambda *a, **k: reads.append(a) or read(*a, **k)
    )
    image = load_clip(tiny_config(), weights, need='image')
    text = load_clip(tiny_config(), weights, need='text')
    assert image is text
    assert len(reads) == 1
    release_towers()
    load_clip(tiny_config(), weights)
    assert len(reads) == 2


def test_a_file_written_anew_is_read_anew(
    weights: Path, tiny_config, tiny_clip
) -> None:
    before = load_clip(tiny_config(), weights)
    state = {key: value + 1 for key, value in tiny_clip().state_dict().items()}
    torch.save(state, weights)
    os.utime(weights, ns=(1, 1))
    after = load_clip(tiny_config(), weights)
    assert after.content_hash != before.content_hash
    assert torch.equal(after.model.visual.proj, before.model.visual.proj + 1)


def test_the_hash_is_that_of_the_content(
    weights: Path, tmp_path: Path, tiny_config
) -> None:
    moved = tmp_path / 'elsewhere' / 'other_name.pt'
    moved.parent.mkdir()
    moved.write_bytes(weights.read_bytes())
    config = tmp_path / 'model.json'
    config.write_text(json.dumps(tiny_config()))
    expected = load_clip(tiny_config(), weights).content_hash
    assert load_clip(str(config), moved).content_hash == expected
    assert tower_hash(tiny_config(), moved) == expected
    other = tower_hash(tiny_config(quick_gelu=True), weights)
    assert other != expected


def test_random_weights_are_announced(
    tiny_config, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    monkeypatch.setattr(clip, 'print_log', lambda message, **_: said.append(message))
    first, second = load_clip(tiny_config()), load_clip(tiny_config())
    assert len(said) == 2
    assert 'random until a checkpoint is loaded' in said[0]
    assert first.content_hash != second.content_hash


def test_statistics_are_openais_unless_the_config_has_its_own(tiny_config) -> None:
    assert load_clip(tiny_config()).mean == (0.48145466, 0.4578275, 0.40821073)
    own = dict(mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])
    loaded = load_clip(dict(model_cfg=tiny_config(), preprocess_cfg=own))
    assert (loaded.mean, loaded.std) == ((0.5,) * 3, (0.25,) * 3)


def test_the_shipped_tower_is_found_from_anywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir('/')
    clip = load_clip('zs3-shapes-tiny', 'shapes')
    tokens = clip.tokenizer(['a photo of a star', 'zeppelin'])
    # Pooling takes the token of the highest id, so the end must have it.
    assert tokens.max() == clip.model.vocab_size - 1
    assert 'star' in clip.known_words
    with pytest.raises(ValueError, match="Its tags: 'shapes'"):
        load_clip('zs3-shapes-tiny', 'openai')
