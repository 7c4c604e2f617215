"""tools/convert_checkpoint.py on a checkpoint laid out as ESDA's official ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmengine.config import Config
from mmseg.registry import MODELS

from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.models.segmentors import ClassPromptedSegmentor
from zs3_mmseg.models.towers import load_clip, release_towers, text_features
from zs3_mmseg.utils.checkpoint import load_into, safe_load

RECORDED = Path(__file__).parents[1] / 'data/golden/esda_main.json'
#: A text tower with room for CLIP's words, and else the recorded sizes.
ARCH = {
    'embed_dim': 16,
    'quick_gelu': True,
    'vision_cfg': {
        'image_size': 32,
        'patch_size': 16,
        'width': 24,
        'head_width': 6,
        'layers': 6,
    },
    'text_cfg': {
        'context_length': 12,
        'vocab_size': 49408,
        'width': 16,
        'heads': 2,
        'layers': 2,
    },
}
TEXT_SHAPES = {
    'text_encoder.token_embedding.weight': [49408, 16],
    'text_encoder.positional_embedding': [12, 16],
}


@pytest.fixture(scope='module')
def official() -> dict[str, Tensor]:
    """Random weights under all keys that the official code was recorded with."""
    tensors = json.loads(RECORDED.read_text())['tensors']
    shapes = {
        key.removeprefix('state.'): value['shape']
        for key, value in tensors.items()
        if key.startswith('state.')
    }
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.randn(shape, generator=generator) / math.sqrt(shape[-1])
        for key, shape in (shapes | TEXT_SHAPES).items()
    }


@pytest.fixture
def folder(tmp_path: Path, official: dict[str, Tensor]) -> Path:
    (tmp_path / 'arch.json').write_text(json.dumps(ARCH))
    save(tmp_path, official)
    return tmp_path


@pytest.fixture(autouse=True)
def _no_kept_towers():
    yield
    release_towers()


def save(folder: Path, state: dict[str, Tensor]) -> None:
    parallel = {f'module.{key}': value for key, value in state.items()}
    content = dict(epoch=3, state_dict=parallel, optimizer={})
    torch.save(content, folder / 'official.pth')


def convert(run_tool, folder: Path, *flags: str, split: str = 'pascal5i_1') -> Any:
    arguments = ['esda', 'official.pth', 'ours.pth', '--split', split, *flags]
    return run_tool('convert_checkpoint.py', *arguments, folder=folder)


def described_model(output: str, folder: Path) -> ClassPromptedSegmentor:
    """Build the model that the report describes."""
    text = output[output.index('model = dict(') : output.index('\nFor text.safe')]
    (folder / 'model.py').write_text(text)
    model = Config.fromfile(folder / 'model.py').model
    model.backbone.arch = model.class_embeddings.source.arch = ARCH
    model.decode_head.num_heads = 4
    source = model.class_embeddings.source
    source.pretrained = str(folder / source.pretrained)
    return MODELS.build(model)


def test_it_fits_the_model_of_its_report(run_tool, folder, official) -> None:
    flags = ['--arch', 'arch.json', '--text-tower-out', 'text.safetensors']
    finished = convert(run_tool, folder, *flags)
    assert finished.status == 0, finished.output
    assert '0 UNKNOWN' in finished.output
    model = described_model(finished.output, folder)
    content = safe_load(folder / 'ours.pth')
    assert load_into(model, content).clean

    split = get_split('pascal5i_1')
    assert model.split == split
    named = content['meta']['dataset_meta']  # for mmseg's own inferencer
    assert tuple(named['classes']) == split.classes
    assert len(named['palette']) == len(split.classes)
    clip = load_clip(ARCH, folder / 'text.safetensors', need='text')
    with torch.no_grad():
        rows, tokens = text_features(clip.model, clip.tokenizer([*split.classes]))
    queries = model.current_queries()
    torch.testing.assert_close(queries.embeddings, rows)
    torch.testing.assert_close(queries.token_features, tokens)

    backbone, head = model.backbone, model.decode_head
    for ours, theirs in (
        (backbone.low_rank[5].up, 'image_encoder.prompt.11'),
        (backbone.class_prompt.proj.bias, 'image_encoder.text_cls_proj.bias'),
        (head.convs[4].weight, 'decoder.cls.0.weight'),
    ):
        assert torch.equal(ours, official[theirs])


def test_new_names_are_read_by_the_tower_that_came_with_it(
    run_tool, folder, official
) -> None:
    flags = ['--arch', 'arch.json', '--text-tower-out', 'text.safetensors']
    finished = convert(run_tool, folder, *flags)
    written = load_file(folder / 'text.safetensors')
    for key, value in written.items():
        assert torch.equal(value, official[f'text_encoder.{key}'])
    model = described_model(finished.output, folder).eval()
    load_into(model, safe_load(folder / 'ours.pth'))
    model.set_classes(['zebra', 'cat'])
    with torch.no_grad():
        scores = model.encode_decode(torch.randn(1, 3, 96, 96), [{}])
    assert scores.shape == (1, 2, 96, 96)


@pytest.mark.parametrize('damage', ['lost', 'added', 'lost text'])
def test_nothing_is_guessed(damage: str, run_tool, folder, official) -> None:
    lost = {
        'lost': 'decoder.cls.3.bias',
        'lost text': 'text_encoder.ln_final.weight',
    }
    state = {key: v for key, v in official.items() if key != lost.get(damage)}
    if damage == 'added':
        state['decoder.novel'] = torch.ones(1)
    save(folder, state)
    finished = convert(run_tool, folder, '--arch', 'arch.json')
    assert finished.status == 1, finished.output
    assert not (folder / 'ours.pth').exists()
    expected = {
        'lost': '1 MISSING in the source\n  decode_head.conv_seg.bias\n',
        'added': '1 UNKNOWN in the source\n  decoder.novel\n',
        'lost text': '1 MISSING in the source\n  ln_final.weight\n',
    }
    assert expected[damage] in finished.output


def test_a_model_without_the_low_rank_path(run_tool, folder, official) -> None:
    save(folder, {k: v for k, v in official.items() if '.prompt.' not in k})
    finished = convert(run_tool, folder, '--arch', 'arch.json')
    assert finished.status == 0, finished.output
    assert 'low_rank=None' in finished.output
    state = safe_load(folder / 'ours.pth')['state_dict']
    assert not [key for key in state if 'low_rank' in key]


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ([], 'ViT-B-16-quickgelu is not what the checkpoint was made from'),
        (['--arch', 'gelu.json'], 'ESDA computes QuickGELU'),
    ],
)
def test_another_clip_is_refused(flags: list, message: str, run_tool, folder) -> None:
    gelu = json.dumps(ARCH | {'quick_gelu': False})
    (folder / 'gelu.json').write_text(gelu)
    finished = convert(run_tool, folder, *flags)
    assert finished.status == 2
    assert message in finished.output


def test_other_checkpoints_are_refused(run_tool, folder) -> None:
    save(folder, {'backbone.conv1.weight': torch.ones(2)})
    finished = convert(run_tool, folder, '--arch', 'arch.json')
    assert finished.status == 2
    assert 'no official ESDA checkpoint: expected image_encoder.' in finished.output
