"""Runs of a step or two on images of uneven labels, cut into batches and processes."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import Dataset

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, HOOKS
from mmseg.structures import SegDataSample

from zs3_mmseg.datasets.splits import resolve_split
from zs3_mmseg.engine import SafeRunner
from zs3_mmseg.utils.checkpoint import unwrap

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SPLIT = resolve_split('shapes_a')
SIZE, VOID = 48, 255
#: Rows without a label, and classes, of each image: nothing is even.
ROWS, CLASSES = (0, 44, 12, 36), (5, 1, 3, 2)
_NUMBERS = itertools.count()


@DATASETS.register_module()
class UnevenImages(Dataset):
    """Four images with stripes of some seen classes, and pixels without a label.

    With ``prompts``, each comes with one of its classes, and labels say where that is.
    """

    def __init__(self, prompts: bool = False, number: int = len(ROWS)) -> None:
        self.metainfo = dict(classes=SPLIT.classes)
        self.prompts = prompts
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng(int(index))
        chosen = rng.choice(SPLIT.seen_indices, CLASSES[index], replace=False)
        labels = np.resize(np.repeat(chosen, 5), SIZE)[None].repeat(SIZE, 0)
        size = (SIZE, SIZE)
        sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size))
        if self.prompts:
            sample.set_metainfo(dict(prompt_name=SPLIT.classes[chosen[0]]))
            labels = (labels == chosen[0]).astype(np.int64)
        labels[SIZE - ROWS[index] :] = VOID
        image = labels[None] * 40 % 251 + rng.integers(0, 40, (3, SIZE, SIZE))
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(labels)[None].long())
        return dict(
            inputs=torch.from_numpy(image.astype(np.uint8)), data_samples=sample
        )


@HOOKS.register_module()
class KeepGradients(Hook):
    """Keep the gradients of each step, as the optimiser meets them."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def before_train(self, runner: Runner) -> None:
        model, generators = unwrap(runner.model), {}
        for part in _synthesisers(runner):
            found = gradients_of(part.trainer.generator, 'generator.')
            part.trainer.optimizer.register_step_pre_hook(
                lambda *_, found=found: generators.update(found())
            )
        found = gradients_of(model)
        runner.optim_wrapper.optimizer.register_step_pre_hook(
            lambda *_: self.steps.append(found() | generators)
        )


def _synthesisers(runner: Runner) -> list[Any]:
    return [part for hook in runner.hooks for part in getattr(hook, 'synthesisers', ())]


def gradients_of(model: nn.Module, prefix: str = '') -> Callable[[], dict[str, Tensor]]:
    """Return a function that copies the gradients there are."""
    return lambda: {
        prefix + name: whole(parameter.grad).clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor that may be cut over processes."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


class DoubleRunner(SafeRunner):
    """Computes with 64 bits."""

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        return super().wrap_model(model_wrapper_cfg, model.double())


def model_of(config: str, **head: Any) -> dict[str, Any]:
    """Return the model of a config without what is outside of the promise: dropout."""
    model = Config.fromfile(CONFIGS / config).model
    model.decode_head.update(head)
    if model.backbone.get('prompts'):
        model.backbone.prompts.dropout = 0.0
    return model


def build_runner(
    folder: Path,
    model: dict[str, Any],
    *,
    batch_size: int = 4,
    accumulate: int = 1,
    prompts: bool = False,
    double: bool = False,
    hooks: Sequence[dict[str, Any]] = (),
    **changes: Any,
) -> SafeRunner:
    config = dict(
        default_scope='mmseg',
        work_dir=str(folder),
        experiment_name=f'steps_{next(_NUMBERS)}',
        randomness=dict(seed=3),
        log_level='WARNING',
        log_processor=dict(by_epoch=False),
        model=model,
        train_dataloader=dict(
            batch_size=batch_size,
            sampler=dict(type='InfiniteSampler', shuffle=False),
            dataset=dict(type='UnevenImages', prompts=prompts),
        ),
        train_cfg=dict(type='StepTrainLoop', max_iters=1),
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='SGD', lr=0.01),
            accumulative_counts=accumulate,
        ),
        default_hooks=dict(
            checkpoint=None,
            random_state=dict(type='RandomStateHook'),
            logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
        ),
        custom_hooks=[*hooks, dict(type='KeepGradients')],
    )
    kind = DoubleRunner if double else SafeRunner
    return kind.from_cfg(Config(copy.deepcopy(config | changes)))


def step_of(folder: Path, model: dict[str, Any], **options: Any) -> dict[str, Tensor]:
    """Return the gradients of the first step, and ``log.*``: what is logged of it."""
    runner = build_runner(folder, model, **options)
    runner.train()
    keeper = next(hook for hook in runner.hooks if isinstance(hook, KeepGradients))
    logged = {
        f'log.{name}': torch.tensor(history.current(), dtype=torch.float32)
        for name, history in runner.message_hub.log_scalars.items()
        if 'loss' in name or 'acc' in name
    }
    return keeper.steps[0] | logged


DDP = dict(
    type='MMDistributedDataParallel',
    device_ids=None,
    broadcast_buffers=False,
    find_unused_parameters=True,
)


def _on_rank(rank: int, ranks: int, folder: Path, work: Callable[[], Any]) -> None:
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE=str(ranks))
    dist.init_process_group(
        'gloo', init_method=f'file://{folder / "store"}', rank=rank, world_size=ranks
    )
    try:
        torch.save(work(), folder / f'step{rank}.pth')
    except Exception as error:
        (folder / f'error{rank}').write_text(str(error))
        raise
    finally:
        dist.destroy_process_group()


def step_on(
    ranks: int, folder: Path, model: dict[str, Any], **options: Any
) -> list[dict[str, Tensor]]:
    """Return what :func:`step_of` returns, of each of several processes."""
    options = dict(model_wrapper_cfg=DDP, launcher='pytorch') | options
    return in_processes(ranks, folder, partial(step_of, folder, model, **options))


def in_processes(ranks: int, folder: Path, work: Callable[[], Any]) -> list[Any]:
    """Return what each of several processes that know each other returns."""
    fork = multiprocessing.get_context('fork')
    folder = Path(tempfile.mkdtemp(dir=folder))  # a store serves one group
    children = [
        fork.Process(target=_on_rank, args=(rank, ranks, folder, work))
        for rank in range(ranks)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(240)
        child.kill()
    errors = [path.read_text() for path in folder.glob('error*')]
    assert not errors, errors
    return [torch.load(folder / f'step{rank}.pth') for rank in range(ranks)]


def largest_differences(
    found: dict[str, Tensor], wanted: dict[str, Tensor]
) -> dict[torch.dtype, float]:
    """Return the largest difference as a share of the largest value of its tensor.

    By types: some values are 32 bits wide in a model of 64, such as those of logs.
    """
    assert found.keys() == wanted.keys()
    # Where the gradient is 0 but for rounding there is nothing to compare.
    floor = max(float(value.abs().max()) for value in wanted.values()) * 1e-6
    largest: dict[torch.dtype, float] = {}
    for name, value in wanted.items():
        difference = (found[name] - value).abs().max() / value.abs().max().clamp(floor)
        known = largest.get(value.dtype, 0.0)
        largest[value.dtype] = max(known, float(difference))
    return largest
