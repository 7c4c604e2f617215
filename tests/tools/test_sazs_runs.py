"""SAZS through the command-line tools: Shapes, and official files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_esda_runs import SHORT

from mmengine.config import Config
from mmseg.registry import MODELS

from zs3_mmseg.utils.checkpoint import load_into, safe_load

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/sazs'
RECORDED = Path(__file__).parents[1] / 'data/golden'


@pytest.mark.slow
def test_shapes_honest_and_oracle(run_tool, tmp_path: Path) -> None:
    config = CONFIGS / 'shapes_tiny.py'
    options = ['--cfg-options', *SHORT, 'default_hooks.logger.interval=1']
    trained = run_tool('train.py', config, *options, folder=tmp_path)
    assert trained.status == 0, trained.output
    assert 'decode.loss_attention' in trained.output
    checkpoint = tmp_path / 'work_dirs/shapes_tiny/iter_2.pth'
    assert {*safe_load(checkpoint)['state_dict']['_extra_state']['beside']} == {
        'others'
    }

    scores = {}
    for name in ('shapes_tiny', 'shapes_tiny_oracle'):
        config = CONFIGS / f'{name}.py'
        tested = run_tool('test.py', config, checkpoint, *options, folder=tmp_path)
        assert tested.status == 0, tested.output
        assert ('ORACLE' in tested.output) == ('oracle' in name)
        folder = tmp_path / 'work_dirs' / name
        scores |= json.loads((folder / 'metrics.json').read_text())
    assert {'mIoU', 'FB_IoU', 'oracle_mIoU', 'oracle_FB_IoU'} <= {*scores}


def official(name: str, **widths: int) -> dict[str, Any]:
    """Random weights in the layout of the official trainer, with other widths."""
    tensors = json.loads((RECORDED / f'{name}.json').read_text())['tensors']
    state = {}
    for key, value in tensors.items():
        if key.startswith('state.'):
            shape = [widths.get(f'_{size}', size) for size in value['shape']]
            state[f'module.{key.removeprefix("state.")}'] = torch.randn(shape)
    return dict(epoch=1, arch='', state_dict=state, val_miou=0.0)


def convert(run_tool, folder: Path, content: dict[str, Any], *flags: str) -> Any:
    torch.save(content, folder / 'official.pth')
    arguments = ['sazs', 'official.pth', 'ours.pth', '--force', *flags]
    return run_tool('convert_checkpoint.py', *arguments, folder=folder)


def test_official_drn(run_tool, tmp_path: Path) -> None:
    content = official('sazs_whole_drn')
    state = content['state_dict']
    done = convert(run_tool, tmp_path, content)
    assert done.status == 0, done.output
    assert '0 UNKNOWN' in done.output
    assert 'a fixed bilinear kernel' in done.output
    ours = safe_load(tmp_path / 'ours.pth')['state_dict']
    edge = state['module.edgeocr_cls_head.weight']
    assert torch.equal(ours['decode_head.edge.weight'], edge)

    del state['module.fc1.weight']
    done = convert(run_tool, tmp_path, content)
    assert done.status == 1
    assert 'backbone.fuse.conv.weight' in done.output


VIT = ('--last-block', '3', '--heads', '2')
ROWS = ('--split', 'shapes_a', '--arch', 'zs3-shapes-tiny', '--clip', 'shapes')


def test_official_vit_with_rows(run_tool, tmp_path: Path) -> None:
    # Pixels as wide as the rows of the tiny CLIP.
    content = official('sazs_whole_vit', _12=128)
    done = convert(run_tool, tmp_path, content, *VIT, *ROWS)
    assert done.status == 0, done.output
    text = done.output[done.output.index('model = dict(') :].split('\nWritten')[0]
    config = Config.fromstring(text, '.py').model
    base = Config.fromfile(CONFIGS / 'shapes_tiny.py').model
    config.update(
        split='shapes_a', setting='inductive', class_embeddings=base.class_embeddings
    )
    config.class_embeddings.templates = 'bare'
    model = MODELS.build(config)
    assert load_into(model, safe_load(tmp_path / 'ours.pth')).clean
    kept = {*safe_load(tmp_path / 'ours.pth')['state_dict']['_extra_state']['beside']}
    assert kept == {'others'}


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (VIT[:2], None),
        ((*VIT, '--split', 'shapes_a'), '--split and --clip belong together'),
        (('--last-block', '6'), 'none of the 6 blocks'),
        ((*VIT, *ROWS), 'makes rows of 128 values, and the pixels'),
    ],
)
def test_flags(run_tool, tmp_path: Path, flags: Any, message: str | None) -> None:
    done = convert(run_tool, tmp_path, official('sazs_whole_vit'), *flags)
    if message is None:
        assert done.status == 0, done.output
    else:
        assert done.status == 2
        line, hint = done.output.splitlines()[-2:]
        assert line.startswith('error: ')
        assert message in line
        assert 'TRACEBACK' in hint
