"""FC-CLIP through the command-line tools: Shapes, and an official file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_lseg_runs import SHORT

from zs3_mmseg.utils.checkpoint import safe_load

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/fcclip'
RECORDED = Path(__file__).parents[1] / 'data/golden'


@pytest.mark.slow
def test_one_training_serves_both_forms(run_tool, tmp_path: Path) -> None:
    options = ['--cfg-options', *SHORT]
    config = CONFIGS / 'shapes_tiny.py'
    trained = run_tool('train.py', config, *options, folder=tmp_path)
    assert trained.status == 0, trained.output
    checkpoint = tmp_path / 'work_dirs/fcclip/shapes_tiny/iter_2.pth'
    for name, more in (
        ('shapes_tiny', ['model.test_cfg.mask_sums=original']),
        ('shapes_tiny_in', []),
    ):
        config = CONFIGS / f'{name}.py'
        given = [config, checkpoint, *options, *more]
        tested = run_tool('test.py', *given, folder=tmp_path)
        assert tested.status == 0, tested.output
        metrics = tmp_path / f'work_dirs/fcclip/{name}/metrics.json'
        assert 'hIoU' in json.loads(metrics.read_text())


def test_an_official_file_is_converted(run_tool, tmp_path: Path) -> None:
    keys = json.loads((RECORDED / 'fcclip_r50_keys.json').read_text())['keys']
    official = {
        key: torch.tensor(1e-4 * number).expand(shape)
        for number, (key, shape) in enumerate(keys.items())
    }
    torch.save(dict(model=official, iteration=9), tmp_path / 'official.pth')
    arguments = ['fcclip', 'official.pth', 'ours.pth', '--arch', 'RN50-quickgelu']
    finished = run_tool('convert_checkpoint.py', *arguments, folder=tmp_path)
    assert finished.status == 0, finished.output
    assert '0 UNKNOWN' in finished.output
    assert "type='OpenCLIPResNet'" in finished.output
    state = safe_load(tmp_path / 'ours.pth')['state_dict']
    for ours, theirs in (
        ('backbone.visual.layer3.5.bn2.bias', 'layer3.5.bn2.bias'),
        ('decode_head.region_classifier.head.pool.q_proj.bias', 'attnpool.q_proj.bias'),
    ):
        theirs = f'backbone.clip_model.visual.{theirs}'
        assert torch.equal(state[ours], official[theirs]), ours
    name = 'sem_seg_head.predictor.class_embed.layers.2.bias'
    assert torch.equal(state['decode_head.class_embed.4.bias'], official[name])
