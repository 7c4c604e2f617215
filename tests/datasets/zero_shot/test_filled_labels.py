import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_folder import MASK, SPLIT, Folder, labels, wrap


@pytest.fixture
def pseudo(tmp_path: Path) -> Callable[..., str]:
    def write(pixels: Any, **sidecar: Any) -> str:
        where = tmp_path / 'pseudo'
        where.mkdir()
        Image.fromarray(np.array(pixels, np.uint8)).save(where / '0.png')
        content = dict(model='m', settings=dict(p=25), classes=SPLIT['classes'])
        content = {k: v for k, v in {**content, **sidecar}.items() if v is not None}
        (where / 'pseudo_labels.json').write_text(json.dumps(content))
        return str(where)

    return write


@pytest.mark.parametrize(
    ('setting', 'hidden'), [('inductive', 255), ('transductive', 254)]
)
def test_pseudo_labels_fill_hidden_pixels_only(
    folder: Folder, pseudo: Callable[..., str], log: list, setting: str, hidden: int
) -> None:
    # MASK hides the first and the last pixel; the model ignored the last.
    where = pseudo([[2, 2, 2], [2, 2, 255]])
    dataset = wrap(folder(), setting=setting, pseudo_label_dir=where)
    assert labels(dataset[0]) == [[2, 1, 255], [0, 255, hidden]]
    assert dataset.metainfo['pseudo_labels'] == 'm'
    assert any(r.levelno >= logging.WARNING and 'made by m' in r.msg for r in log)


@pytest.mark.parametrize(
    ('pixels', 'message'),
    [
        ([[2, 2], [2, 2]], r'0\.png: the map is \(2, 2\)'),
        ([[3] * 3] * 2, r'0\.png: 3 is'),
    ],
)
def test_wrong_pseudo_label_map(
    folder: Folder, pseudo: Callable[..., str], pixels: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        wrap(folder(), pseudo_label_dir=pseudo(pixels))[0]


@pytest.mark.parametrize(
    ('sidecar', 'message'),
    [
        (dict(model=None), 'does not name model'),
        (dict(classes=['dog', 'tvmonitor', 'cat']), 'not those of split'),
    ],
)
def test_wrong_pseudo_label_sidecar(
    folder: Folder, pseudo: Callable[..., str], sidecar: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        wrap(folder(), pseudo_label_dir=pseudo(MASK, **sidecar))


@pytest.mark.parametrize(
    ('content', 'complaint'),
    [(b'[1]', 'is no .*JSON'), (b'{', 'no readable JSON'), (b'\xff', 'no UTF-8 text')],
)
def test_a_sidecar_that_is_none(
    folder: Folder, tmp_path: Path, content: bytes, complaint: str
) -> None:
    (tmp_path / 'pseudo_labels.json').write_bytes(content)
    with pytest.raises(ValueError, match=rf'pseudo_labels\.json.* {complaint}'):
        wrap(folder(), pseudo_label_dir=str(tmp_path))


def test_a_cut_pseudo_label_map_is_named(
    folder: Folder, pseudo: Callable[..., str]
) -> None:
    path = Path(pseudo(MASK)) / '0.png'
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r'0\.png is no whole picture'):
        wrap(folder(), pseudo_label_dir=str(path.parent))[0]


def test_pseudo_labels_need_their_sidecar(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'pseudo_labels\.json is missing'):
        wrap(folder(), pseudo_label_dir=str(tmp_path))
