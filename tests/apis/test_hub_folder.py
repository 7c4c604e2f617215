"""Models travel as folders of plain files."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from zs3_mmseg.apis import (
    ZeroShotInferencer,
    from_pretrained,
    init_segmentor,
    load_config,
    save_pretrained,
)
from zs3_mmseg.utils.packed_state import pack_state, unpack_state

PICTURE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
CONFIG = 'zegclip/shapes_tiny'


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    config = load_config(
        CONFIG,
        {
            'model.split': dict(
                classes=['star', 'boat', 'sun'], unseen=['sun'], _delete_=True
            )
        },
    )
    init_default_scope('mmseg')
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'trained.pth'
    torch.save(MODELS.build(config.model).state_dict(), path)
    return init_segmentor(config, path)


@pytest.fixture
def folder(model: Any, tmp_path: Path) -> Path:
    save_pretrained(model, tmp_path / 'a-model', license='mit')
    return tmp_path / 'a-model'


def test_a_model_comes_back_as_it_was(model: Any, folder: Path) -> None:
    back: Any = from_pretrained(folder)
    theirs = back.state_dict()
    for key, value in model.state_dict().items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(theirs[key], value, rtol=0, atol=0)
    assert back.vocabulary.rows.keys() == model.vocabulary.rows.keys()
    assert back.split.unseen == model.split.unseen
    words = ['moon', 'star', 'two words']
    labels = [
        ZeroShotInferencer(one, classes=words)(PICTURE)['predictions'][0]['labels']
        for one in (model, back)
    ]
    np.testing.assert_array_equal(*labels)


def test_the_card_says_what_the_hub_reads(folder: Path) -> None:
    _, front, text = (folder / 'README.md').read_text().split('---\n')
    assert yaml.safe_load(front)['license'] == 'mit'
    assert "from_pretrained('a-model')" in text
    assert "Never with masks of 'sun'" in text
    content = json.loads((folder / 'config.json').read_text())
    assert content['classes'] == ['star', 'boat', 'sun']


@pytest.mark.parametrize('kind', ['os.system', 'mmengine.utils.path.os', 7])
def test_types_that_would_run_code_are_refused(folder: Path, kind: object) -> None:
    path = folder / 'config.json'
    content = json.loads(path.read_text())
    content['test_pipeline'].insert(0, dict(type=kind, command='touch /tmp/x'))
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r'test_pipeline\.0\.type .* no registered'):
        from_pretrained(folder)


def test_what_is_no_model_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'has no config\.json'):
        from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match='neither a folder nor'):
        from_pretrained('no/such/folder')
    (folder / 'config.json').write_text('{"library_name": "timm"}')
    with pytest.raises(ValueError, match='no config of zs3_mmseg'):
        from_pretrained(folder)


def test_a_repository_is_downloaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def download(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(folder)

    monkeypatch.setattr('huggingface_hub.snapshot_download', download)
    from_pretrained('owner/name', revision='v1')
    assert (asked['repository'], asked['revision']) == ('owner/name', 'v1')
    assert 'model.safetensors' in asked['allow_patterns']


def test_extra_states_are_packed_with_their_tensors() -> None:
    state = {
        'a.weight': torch.arange(6.0).view(2, 3).T,
        '_extra_state': {
            'names': ['tensor:x', 'é'],
            'rows': {'x/y': torch.ones(2)},
            'n': 3,
        },
    }
    tensors, metadata = pack_state(state)
    back = unpack_state(tensors, metadata)
    torch.testing.assert_close(back['a.weight'], state['a.weight'])
    extra = back['_extra_state']
    torch.testing.assert_close(extra['rows'].pop('x/y'), torch.ones(2))
    assert extra == {'names': ['tensor:x', 'é'], 'rows': {}, 'n': 3}
    tensors.pop('_extra_state.1.0')
    with pytest.raises(ValueError, match='is missing'):
        unpack_state(tensors, metadata)
    with pytest.raises(ValueError, match='no plain value'):
        pack_state({'x': logging})
