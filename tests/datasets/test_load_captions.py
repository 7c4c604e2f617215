"""Captions that a file has of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zs3_mmseg.datasets import LoadCaptions

COCO = dict(
    images=[dict(id=7, file_name='train/a.jpg'), dict(id=8, file_name='b.jpg')],
    annotations=[
        dict(image_id=7, caption='a cat'),
        dict(image_id=7, caption='a light'),
    ],
)


@pytest.mark.parametrize(
    'content', [dict(a=['a cat', 'a light']), COCO], ids=['names', 'coco']
)
def test_captions_of_an_image_are_one_text(content: Any, tmp_path: Path) -> None:
    path = tmp_path / 'captions.json'
    path.write_text(json.dumps(content))
    load = LoadCaptions(path)
    assert load(dict(img_path='/data/a.png'))['caption'] == 'a cat . a light'
    assert load(dict(img_path='/data/b.png'))['caption'] == ''


@pytest.mark.parametrize('content', [[], dict(a=1), dict(annotations=[])])
def test_other_files_are_refused(content: Any, tmp_path: Path) -> None:
    path = tmp_path / 'captions.json'
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r'captions\.json: expected a JSON object'):
        LoadCaptions(path)(dict(img_path='a.png'))


def test_a_missing_file_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'LoadCaptions\.path: .*x\.json'):
        LoadCaptions(tmp_path / 'x.json')
