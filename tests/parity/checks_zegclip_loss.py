"""The non-exclusive loss against the official one, alone and on two ranks."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from registry import GoldenFile, assert_close, check
from safetensors.torch import load_file
from torch import Tensor

from zs3_mmseg.models.losses import NonExclusiveLoss


def build_loss(case: dict) -> NonExclusiveLoss:
    return NonExclusiveLoss(
        mask_weight=case.get('mw', 100.0),
        dice_weight=case.get('dw', 1.0),
        loss_weight=case.get('lw', 1.0),
    )


def compare(case: dict, prefix: str, tensors: dict[str, Tensor]) -> None:
    logits = tensors[f'{prefix}.logits'].clone().requires_grad_()
    losses = build_loss(case)(logits, tensors[f'{prefix}.label'].long())
    for name, value in losses.items():
        assert_close(value, tensors[f'{prefix}.{name}'][0], what=f'{prefix}.{name}')
    sum(losses.values()).backward()
    assert_close(logits.grad, tensors[f'{prefix}.grad_logits'], 'gradient', what=prefix)


@check('zegclip_loss')
def loss(golden: GoldenFile) -> None:
    tensors = golden.tensors()
    for name, case in golden.json['cases'].items():
        compare(case, name, tensors)


def on_rank(rank: int, world_size: int, store: str, path: str, cases: dict) -> None:
    dist.init_process_group(
        'gloo', init_method=f'file://{store}', rank=rank, world_size=world_size
    )
    torch.set_num_threads(1)
    tensors = load_file(path)
    for name, case in cases.items():
        compare(case, f'{name}.rank{rank}', tensors)
    dist.destroy_process_group()


@check('zegclip_loss_dist')
def loss_on_ranks(golden: GoldenFile) -> None:
    world_size = golden.json['world_size']
    with TemporaryDirectory() as folder:
        mp.spawn(
            on_rank,
            args=(
                world_size,
                str(Path(folder) / 'store'),
                str(golden.tensor_path),
                golden.json['cases'],
            ),
            nprocs=world_size,
        )
