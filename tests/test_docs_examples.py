"""The Python on the documentation's pages runs."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmengine.config import Config
from mmseg.registry import MODELS

from zs3_mmseg.models.class_embeddings import ClassQueries

DOCS = Path(__file__).resolve().parents[1] / 'docs'


def python_blocks(page: Path) -> list[str]:
    text = page.read_text(encoding='utf-8')
    return re.findall(r'```python\n(.*?)```', text, flags=re.DOTALL)


CONFIGS = [
    pytest.param(block, id=f'{page.stem}-{number}')
    for page in sorted(DOCS.glob('**/*.md'))
    for number, block in enumerate(python_blocks(page))
    if '_base_ =' in block
]


@pytest.mark.parametrize('block', CONFIGS)
def test_config_example_inherits_a_whole_model(block: str, tmp_path: Path) -> None:
    path = tmp_path / 'example.py'
    path.write_text(block)
    config = Config.fromfile(path)
    known = ('ZeroShotEncoderDecoder', 'ClassPromptedSegmentor', 'EncoderDecoder')
    assert config.model.type in known


def test_stock_entries_run_as_get_started_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = (b for b in python_blocks(DOCS / 'get_started.md') if 'init_model' in b)
    monkeypatch.chdir(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(picture).save('picture.png')
    found: dict[str, Any] = {}
    exec(block, found)
    assert np.array_equal(found['labels'], found['drawn']['predictions'])
    assert (tmp_path / 'out/vis/picture.png').is_file()
    assert type(found['untrained'].decode_head).__name__ == 'ZegCLIPHead'


def run_example(name: str, tmp_path: Path) -> None:
    """Run the block of the page on extending that defines a class."""
    (block,) = (
        block
        for block in python_blocks(DOCS / 'advanced' / 'extending.md')
        if f'class {name}(' in block
    )
    path = tmp_path / 'example.py'
    path.write_text(block)
    spec = importlib.util.spec_from_file_location('example', path)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.fixture
def example_head(tmp_path: Path) -> torch.nn.Module:
    run_example('NearestRowHead', tmp_path)
    return MODELS.build(dict(type='NearestRowHead', in_channels=4))


def test_example_proposer_finds_bands_of_brightness(tmp_path: Path) -> None:
    run_example('BrightnessBands', tmp_path)
    proposer = MODELS.build(dict(type='BrightnessBands', bands=2, cache=False))
    image = torch.tensor([0.0, 127.0, 128.0, 255.0]).expand(3, 1, 4)
    dark, bright = proposer(image)[:, 0].tolist()
    assert (dark, bright) == ([True, True, False, False], [False, False, True, True])


def test_example_head_prefers_the_row_that_a_token_equals(
    example_head: torch.nn.Module,
) -> None:
    rows = torch.eye(4)[:3]
    queries = ClassQueries(
        embeddings=rows,
        query_to_class=torch.arange(3),
        seen_mask=torch.tensor([True, True, False]),
    )
    # one image of 1 x 3 tokens, which are the rows in reverse order
    features = rows.flip(0).T[None, :, None]  # (1, 4, 1, 3)
    logits = example_head([features], queries=queries)
    assert logits.shape == (1, 3, 1, 3)
    assert logits.argmax(dim=1).flatten().tolist() == [2, 1, 0]
