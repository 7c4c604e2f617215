"""CaGNet through the tools: killed in each kind of step and resumed exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zs3_mmseg.utils.checkpoint import safe_load

CLASSES = ['ground', 'square', 'stripe']
SPLIT = dict(name='toy', classes=CLASSES, unseen=['stripe'])
WRAPPER = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=0.01))
#: Iterations 0 to 2 are joint, then 3 of real and 3 of generated features alternate.
CHANGES: dict[str, Any] = dict(
    custom_imports=dict(imports=['zs3_mmseg', 'tiny_run_parts']),
    model=dict(
        type='CaGNet',
        decode_head=dict(
            _delete_=True,
            type='CaGNetHead',
            in_index=1,
            in_channels=8,
            channels=6,
            num_classes=3,
            dilations=(1, 2),
            context=dict(mid_channels=4),
            hidden_channels=7,
        ),
        generator=dict(hidden_channels=(8,), dropout=(0.2,)),
        cycle=dict(joint_iters=3, real_iters=3, generated_iters=3),
        class_embeddings=dict(
            type='ClassEmbeddingBank',
            source=dict(type='tensor', path='vectors.npy', names=CLASSES),
        ),
        split=SPLIT,
        setting='inductive',
    ),
    optim_wrapper=dict(
        _delete_=True,
        constructor='PartsOptimWrapperConstructor',
        segmentor=WRAPPER,
        classifier=WRAPPER,
        generator=WRAPPER,
    ),
    default_hooks=dict(checkpoint=dict(interval=1, max_keep_ckpts=-1)),
)
#: The base's data set, without the labels of the unseen class.
DATA = f"""
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        type='ZeroShotDataset',
        phase='train',
        setting='inductive',
        split={SPLIT!r},
        dataset=_base_.train_dataloader.dataset,
    ),
)
"""


def train(
    run_tool: Any, base: Path, folder: Path, *arguments: str, hooks: list[dict] = ()
) -> Any:
    folder.mkdir(exist_ok=True)
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.save(folder / 'vectors.npy', vectors)
    content = {'_base_': str(base), **CHANGES, 'custom_hooks': [*hooks]}
    text = ''.join(f'{key} = {value!r}\n' for key, value in content.items())
    (folder / 'cagnet.py').write_text(text + DATA)
    return run_tool('train.py', folder / 'cagnet.py', *arguments, folder=folder)


def checkpoint(folder: Path, iteration: int = 12) -> dict[str, Any]:
    return safe_load(folder / f'work_dirs/cagnet/iter_{iteration}.pth')


def assert_same(one: Any, other: Any, place: str) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key, value in one.items():
            assert_same(value, other[key], f'{place}.{key}')
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), place
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f'{place}.{number}')
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    else:
        assert one == other, place


@pytest.mark.slow
def test_killed_in_each_kind_of_step(
    run_tool: Any, tiny_config: Path, tmp_path: Path
) -> None:
    whole = tmp_path / 'whole'
    finished = train(run_tool, tiny_config, whole)
    assert finished.status == 0, finished.output
    end = checkpoint(whole)
    assert {*end['optimizer']} == {'segmentor', 'classifier', 'generator'}
    for iteration in (2, 5, 8):
        folder = tmp_path / f'killed{iteration}'
        lost = [dict(type='KillAfter', iteration=iteration)]
        assert train(run_tool, tiny_config, folder, hooks=lost).status == -9
        resumed = train(run_tool, tiny_config, folder, '--resume')
        assert resumed.status == 0, resumed.output
        assert f'iter: {iteration}' in resumed.output
        found = checkpoint(folder)
        for part in ('state_dict', 'optimizer', 'param_schedulers'):
            assert_same(found[part], end[part], part)
