"""A synthesiser of one's own, named in a config, trains and is resumed exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zs3_mmseg.utils.checkpoint import safe_load

HOOK = dict(
    type='GenerativeRetrainingHook',
    split=dict(unseen=['stripe']),
    class_embeddings=dict(
        source=dict(
            type='tensor', path='vectors.npy', names=['ground', 'square', 'stripe']
        )
    ),
    synthesisers=[dict(type='MeanSynthesis', noise=0.3)],
    segmentor_iters=2,
    generator_iters=4,
)
CHANGES = dict(
    custom_imports=dict(imports=['zs3_mmseg', 'tiny_run_parts', 'mean_synthesis']),
    model=dict(decode_head=dict(loss_decode=dict(avg_non_ignore=False))),
    train_dataloader=dict(num_workers=0, persistent_workers=False),
    default_hooks=dict(checkpoint=dict(max_keep_ckpts=-1)),
)


def train(
    run_tool: Any, base: Path, folder: Path, *arguments: str, hooks: list[dict] = ()
) -> Any:
    folder.mkdir(exist_ok=True)
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.save(folder / 'vectors.npy', vectors)
    content = {'_base_': str(base), **CHANGES, 'custom_hooks': [HOOK, *hooks]}
    text = ''.join(f'{key} = {value!r}\n' for key, value in content.items())
    (folder / 'toy.py').write_text(text)
    return run_tool('train.py', folder / 'toy.py', *arguments, folder=folder)


def checkpoint(folder: Path, iteration: int = 12) -> dict[str, Any]:
    return safe_load(folder / f'work_dirs/toy/iter_{iteration}.pth')


def test_toy_synthesiser(run_tool: Any, tiny_config: Path, tmp_path: Path) -> None:
    whole = tmp_path / 'whole'
    finished = train(run_tool, tiny_config, whole)
    assert finished.status == 0, finished.output

    # Of 4 iterations of the generator's phase, checkpoints show 2 and all of them.
    half, end = checkpoint(whole, 4), checkpoint(whole)
    counts = [
        saved['generative_retraining']['synthesisers']['MeanSynthesis']['sums'][:, -1]
        for saved in (half, end)
    ]
    assert (counts[0][:2] > 0).all()
    assert (counts[1][:2] > counts[0][:2]).all()
    assert counts[1][2] == 0
    before, after = half['state_dict'], end['state_dict']
    learnt = {key for key in after if not torch.equal(before[key], after[key])}
    assert learnt == {f'decode_head.conv_seg.{key}' for key in ('weight', 'bias')}
    (log,) = (whole / 'work_dirs/toy').glob('*/vis_data/scalars.json')
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert max(entry.get('decode.pixels', 0) for entry in entries) == counts[1].sum()

    for iteration in (5, 10):
        folder = tmp_path / f'killed{iteration}'
        lost = [dict(type='KillAfter', iteration=iteration)]
        assert train(run_tool, tiny_config, folder, hooks=lost).status == -9
        assert train(run_tool, tiny_config, folder, '--resume').status == 0
        resumed = checkpoint(folder)
        for part in ('state_dict', 'optimizer', 'generative_retraining'):
            assert_same(resumed[part], end[part], part)


def assert_same(one: Any, other: Any, place: str) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key, value in one.items():
            assert_same(value, other[key], f'{place}.{key}')
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    else:
        assert one == other, place
