"""ZegFormer through the command-line tools: Shapes, and an official file in small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_lseg_runs import ARCH, SHORT

from zs3_mmseg.models.towers import load_clip, release_towers
from zs3_mmseg.utils.checkpoint import safe_load

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/zegformer'
RECORDED = Path(__file__).parents[1] / 'data/golden'


@pytest.mark.slow
def test_one_training_serves_both_forms(run_tool, tmp_path: Path) -> None:
    options = ['--cfg-options', *SHORT]
    config = CONFIGS / 'shapes_tiny.py'
    trained = run_tool('train.py', config, *options, folder=tmp_path)
    assert trained.status == 0, trained.output
    checkpoint = tmp_path / 'work_dirs/zegformer/shapes_tiny/iter_2.pth'
    assert not [key for key in safe_load(checkpoint)['state_dict'] if 'visual' in key]
    for name in ('shapes_tiny', 'shapes_tiny_seg'):
        config = CONFIGS / f'{name}.py'
        tested = run_tool('test.py', config, checkpoint, *options, folder=tmp_path)
        assert tested.status == 0, tested.output
        metrics = tmp_path / f'work_dirs/zegformer/{name}/metrics.json'
        assert 'hIoU' in json.loads(metrics.read_text())


@pytest.fixture
def official(tmp_path: Path) -> dict[str, torch.Tensor]:
    """Small weights under the keys of a full-size file, and a CLIP beside them."""
    keys = json.loads((RECORDED / 'zegformer_r50_keys.json').read_text())['keys']
    state = {
        key: torch.tensor(1e-4 * number).expand(shape)
        for number, (key, shape) in enumerate(keys.items())
    }
    state['sem_seg_head.predictor.logit_scale'] = torch.tensor([4.6052])
    torch.save(dict(model=state, iteration=9), tmp_path / 'official.pth')
    (tmp_path / 'arch.json').write_text(json.dumps(ARCH))
    torch.save(load_clip(ARCH).model.state_dict(), tmp_path / 'clip.pt')
    yield state
    release_towers()


def convert(run_tool, folder: Path, *flags: str) -> Any:
    arguments = ['zegformer', 'official.pth', 'ours.pth', *flags]
    return run_tool('convert_checkpoint.py', *arguments, folder=folder)


def test_a_converted_file_has_rows_of_its_names(run_tool, tmp_path, official) -> None:
    flags = ['--split', 'voc12_15_5', '--clip', 'clip.pt', '--arch', 'arch.json']
    finished = convert(run_tool, tmp_path, *flags)
    assert finished.status == 0, finished.output
    assert '0 UNKNOWN' in finished.output
    state = safe_load(tmp_path / 'ours.pth')['state_dict']
    assert state['_extra_state']['embeddings'].shape == (20, 512)
    for ours, theirs in (
        ('backbone.layer3.5.bn2.bias', 'backbone.res4.5.conv2.norm.bias'),
        ('backbone.layer1.0.downsample.0.weight', 'backbone.res2.0.shortcut.weight'),
        (
            'decode_head.pixel_decoder.outputs.3.conv.weight',
            'sem_seg_head.pixel_decoder.layer_4.weight',
        ),
        ('decode_head.no_object', 'sem_seg_head.predictor.bg_feature'),
        (
            'decode_head.mask_embed.4.bias',
            'sem_seg_head.predictor.mask_embed.layers.2.bias',
        ),
    ):
        assert torch.equal(state[ours], official[theirs]), ours


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--split', 'voc12_15_5'], 'belong together'),
        (
            ['--split', 'voc12_15_5', '--clip', 'shapes', '--arch', 'zs3-shapes-tiny'],
            'rows of 128 values, and the queries',
        ),
    ],
)
@pytest.mark.usefixtures('official')
def test_flags_that_do_not_fit_end_in_one_line(
    run_tool, tmp_path, flags: list[str], message: str
) -> None:
    finished = convert(run_tool, tmp_path, *flags)
    assert finished.status != 0
    assert message in finished.output
    assert 'Traceback' not in finished.output
