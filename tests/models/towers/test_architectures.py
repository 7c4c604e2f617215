from __future__ import annotations

import gzip
import json
from pathlib import Path

import open_clip
import pytest

from mmengine.config import Config

from zs3_mmseg.models.towers import resolve_architecture
from zs3_mmseg.models.towers.architectures import build_model, build_tokenizer


def test_name_dict_and_json_build_the_same_modules(tmp_path: Path, tiny_config) -> None:
    path = tmp_path / 'model.json'
    path.write_text(json.dumps(tiny_config()))
    from_json = build_model(resolve_architecture(str(path)))
    from_dict = build_model(resolve_architecture(tiny_config()))
    assert str(from_json) == str(from_dict)
    named = resolve_architecture('ViT-B-16-quickgelu')
    assert named.config == open_clip.get_model_config('ViT-B-16-quickgelu')
    assert named.quick_gelu


def test_open_clips_registry_is_left_alone(tmp_path: Path, tiny_config) -> None:
    before = open_clip.list_models()
    path = tmp_path / 'own_model.json'
    path.write_text(json.dumps(tiny_config()))
    build_model(resolve_architecture(str(path)))
    assert open_clip.list_models() == before


def test_a_config_of_mmengine_is_an_architecture(tiny_config) -> None:
    config = Config(dict(arch=tiny_config()))
    assert resolve_architecture(config.arch).config == tiny_config()


def test_preprocessing_of_a_hub_config_is_kept(tmp_path: Path, tiny_config) -> None:
    path = tmp_path / 'open_clip_config.json'
    preprocess = dict(mean=[0.1, 0.2, 0.3], std=[1, 1, 1])
    path.write_text(
        json.dumps(dict(model_cfg=tiny_config(), preprocess_cfg=preprocess))
    )
    architecture = resolve_architecture(str(path))
    assert architecture.mean == (0.1, 0.2, 0.3)
    assert architecture.config == tiny_config()


def test_merges_are_found_beside_the_json(
    tmp_path: Path, tiny_config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config()
    config['text_cfg']['tokenizer_kwargs'] = dict(bpe_path='merges.txt.gz')
    (tmp_path / 'model.json').write_text(json.dumps(config))
    monkeypatch.chdir('/')
    architecture = resolve_architecture(str(tmp_path / 'model.json'))
    with pytest.raises(FileNotFoundError, match=r'bpe_path.*model\.json'):
        build_tokenizer(architecture)
    with gzip.open(tmp_path / 'merges.txt.gz', 'wt') as stream:
        stream.write('#version\nc a\nca t</w>')
    tokens = build_tokenizer(architecture)(['cat'])
    # 256 bytes, 256 ends of words, two merges, start and end.
    assert tokens[0, :4].tolist() == [514, 513, 515, 0]
    assert tokens.shape == (1, 12)


@pytest.mark.parametrize(
    ('arch', 'error', 'message'),
    [
        ('ViT-B-61', ValueError, r"no open_clip model. Did you mean 'ViT-B-16'"),
        ('no/such.json', FileNotFoundError, r'no/such\.json'),
        (dict(embed_dim=3), ValueError, 'lacks vision_cfg, text_cfg and has embed_dim'),
        (dict(embed_dim=open), ValueError, 'plain values'),
    ],
)
def test_what_is_no_architecture_is_named(arch, error, message: str) -> None:
    with pytest.raises(error, match=message):
        resolve_architecture(arch)


def test_a_json_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / 'model.json'
    path.write_text('{')
    with pytest.raises(ValueError, match=r'model\.json is no JSON'):
        resolve_architecture(str(path))


@pytest.mark.parametrize('change', [dict(nonsense=1), dict(embed_dim='many')])
def test_a_config_that_open_clip_refuses_is_named(change: dict, tiny_config) -> None:
    with pytest.raises(
        ValueError, match="cannot build the model config of arch='dict'"
    ):
        build_model(resolve_architecture(tiny_config() | change))
