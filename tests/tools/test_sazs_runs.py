"""SAZS through the command-line tools: Shapes, and official files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_esda_runs import SHORT, TOWER, write_coco, write_voc

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
    checkpoint = tmp_path / 'work_dirs/sazs/shapes_tiny/iter_2.pth'
    assert {*safe_load(checkpoint)['state_dict']['_extra_state']['beside']} == {
        'others'
    }

    scores = {}
    for name in ('shapes_tiny', 'shapes_tiny_oracle'):
        config = CONFIGS / f'{name}.py'
        tested = run_tool('test.py', config, checkpoint, *options, folder=tmp_path)
        assert tested.status == 0, tested.output
        assert ('ORACLE' in tested.output) == ('oracle' in name)
        folder = tmp_path / 'work_dirs/sazs' / name
        scores |= json.loads((folder / 'metrics.json').read_text())
    assert {'mIoU', 'FB_IoU', 'oracle_mIoU', 'oracle_FB_IoU'} <= {*scores}


def test_training_without_edges(run_tool, tmp_path: Path) -> None:
    (tmp_path / 'bare.py').write_text(
        f"_base_ = ['{CONFIGS / 'shapes_tiny.py'}']\n"
        'train_pipeline = [*_base_.train_pipeline[:-2], _base_.train_pipeline[-1]]\n'
        'train_dataloader = dict(dataset=dict(pipeline=train_pipeline))\n'
    )
    options = ['--cfg-options', *SHORT]
    trained = run_tool('train.py', 'bare.py', *options, folder=tmp_path)
    assert trained.status == 2
    line = trained.output.splitlines()[-2]
    assert line.startswith(
        'error: train_dataloader.dataset: SAZSHead needs gt_edge_map'
    )


TINY = """
_base_ = ['{config}']

one_process = dict(num_workers=0, persistent_workers=False)
segments = dict(type='EigenSegmenter', long_side=64, patch_size=8)
model = dict(
    backbone=dict({backbone}),
    class_embeddings=dict(source=dict(arch='{tower}', pretrained=None)),
    post_processors=[dict(_base_.model.post_processors[0], proposer=segments)],
)
train_cfg = dict(max_epochs=1, val_interval=1)
train_dataloader = dict(**one_process, batch_size=2, dataset=dict({train}))
val_dataloader = dict(**one_process, dataset=dict({val}))
test_dataloader = dict(**one_process, dataset=dict({test}))
"""
SMALL_VIT = (
    "model='vit_tiny_patch16_224', pretrained=False, img_size=32, embed_dim=16, "
    'depth=2, num_heads=2, last_block=1, out_channels=16'
)
SMALL_DRN = 'layers=(1,) * 8, channels=(2, 2, 2, 2, 2, 2, 4, 16), dropout_ratio=0.1'
PAIRS = dict(train='min_pixels=99', val='min_pixels=99')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'backbone', 'options', 'metric'),
    [
        ('pascal5i_vitl16_fold0', SMALL_VIT, PAIRS, 'mIoU'),
        ('pascal5i_drn105_fold0', SMALL_DRN, PAIRS, 'mIoU'),
        ('coco20i_vitl16_fold0', SMALL_VIT, PAIRS, 'mIoU'),
        ('coco20i_drn105_fold0', SMALL_DRN, PAIRS, 'mIoU'),
        ('voc_vitl16_gzs3', SMALL_VIT, {}, 'hIoU'),
    ],
)
def test_recipes_on_miniatures(
    run_tool,
    tmp_path: Path,
    name: str,
    backbone: str,
    options: dict[str, str],
    metric: str,
) -> None:
    if name.startswith('coco'):
        write_coco(tmp_path / 'data/coco2014')
    else:
        write_voc(tmp_path / 'data/VOCdevkit/VOC2012')
    (tmp_path / 'tower.json').write_text(json.dumps(TOWER))
    given = dict.fromkeys(('train', 'val', 'test'), '') | options
    if options:
        given['test'] = 'min_pixels=99, num_episodes=3'
    (tmp_path / 'tiny.py').write_text(
        TINY.format(
            config=CONFIGS / f'{name}.py',
            tower=tmp_path / 'tower.json',
            backbone=backbone,
            **given,
        )
    )
    trained = run_tool('train.py', 'tiny.py', folder=tmp_path)
    assert trained.status == 0, trained.output
    checkpoint = next((tmp_path / 'work_dirs/tiny').glob('epoch_1.pth'))
    tested = run_tool('test.py', 'tiny.py', checkpoint, folder=tmp_path)
    assert tested.status == 0, tested.output
    scores = json.loads((tmp_path / 'work_dirs/tiny/metrics.json').read_text())
    assert metric in scores


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
