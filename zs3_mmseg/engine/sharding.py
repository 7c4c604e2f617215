"""Training with weights, gradients and the optimiser's state cut over processes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from mmengine.device import get_device
from mmengine.dist import broadcast, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import MODEL_WRAPPERS

from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.names import as_list

__all__ = ['ShardedDataParallel']

_SHOWN = 3


def init_on_all_ranks(model: nn.Module) -> None:
    """Initialise a model and give every rank the weights of rank 0.

    mmengine broadcasts whatever is in the state dict, and stops at class names and the
    like, which a zero-shot segmentor keeps there beside its tensors.
    """
    if not hasattr(model, 'init_weights'):
        return
    model.init_weights()  # type: ignore[operator]
    for tensor in chain(model.parameters(), model.buffers()):
        broadcast(tensor.data)


@MODEL_WRAPPERS.register_module()
class ShardedDataParallel(nn.Module):
    r"""Keeps a share of every weight, gradient and optimiser state in each process.

    ``model_wrapper_cfg=dict(type='ShardedDataParallel')`` of any config takes the place
    of ``MMDistributedDataParallel``, for models that leave an accelerator no room: the
    ``fully_shard`` of torch (FSDP, arXiv 2304.11277), on accelerators and on CPUs with
    gloo. mmengine's ``MMFullyShardedDataParallel`` cuts weights flat, and
    ``SafeRunner`` refuses it.

    Weights are gathered for forward and backward passes and the gradients of all
    processes averaged, so that a step is that of ``MMDistributedDataParallel``.
    Checkpoints are whole: they hold what those of one process hold, and are tested,
    and resumed from, with any number of processes. While the model is in evaluation
    mode each process has all weights, since processes may have different numbers of
    images then.

    Args:
        module: the model. Its weights are initialised here, before they are cut.
        units: regular expressions for names of parts that are gathered when they run,
            and given back after it, instead of with everything else for the whole step;
            such as ``r'\.mlp$'``, the larger half of a transformer. They must run by
            being called: the attention of our towers does not.

    Raises:
        ConfigError: for an expression that fits no part, and in a single process.
    """

    def __init__(self, module: nn.Module, units: Sequence[str] = ()) -> None:
        super().__init__()
        if not torch.distributed.is_initialized():
            raise ConfigError(
                'model_wrapper_cfg: ShardedDataParallel needs several processes: start '
                'the tool with torchrun and --launcher pytorch'
            )
        self.module = module
        init_on_all_ranks(module)
        mesh = init_device_mesh(torch.device(get_device()).type, (get_world_size(),))
        for part in _units_of(module, units):
            fully_shard(part, mesh=mesh)
        fully_shard(module, mesh=mesh)
        module.register_state_dict_post_hook(_gather_state)
        module.register_load_state_dict_pre_hook(self._cut_state)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model."""
        return self.module(*args, **kwargs)

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Take a step; see mmengine's ``BaseModel``."""
        return self.module.train_step(data, optim_wrapper)  # type: ignore[operator]

    def val_step(self, data: Any) -> list[Any]:
        """Predict; see mmengine's ``BaseModel``."""
        return self.module.val_step(data)  # type: ignore[operator]

    def test_step(self, data: Any) -> list[Any]:
        """Predict; see mmengine's ``BaseModel``."""
        return self.module.test_step(data)  # type: ignore[operator]

    def train(self, mode: bool = True) -> ShardedDataParallel:
        """Switch to training mode, or gather all weights for evaluation mode."""
        for part in self._sharded():
            # What runs last is needed first in the backward pass.
            part.set_reshard_after_forward(
                mode and part is not self.module, recurse=False
            )
            if mode:
                part.reshard()
            else:
                part.unshard()
        return super().train(mode)

    def _sharded(self) -> Iterator[FSDPModule]:
        return (part for part in self.modules() if isinstance(part, FSDPModule))

    def _cut_state(self, module: nn.Module, state: dict, *_: Any) -> None:
        for part in self._sharded():
            part.reshard()
        for name, parameter in module.named_parameters():
            if name in state:
                state[name] = _cut(state[name], parameter)


def _units_of(module: nn.Module, units: Sequence[str]) -> list[nn.Module]:
    """Return the parts that are gathered alone, inner ones first."""
    names = [name for name, _ in module.named_modules() if name]
    for unit in units:
        if not any(re.search(unit, name) for name in names):
            raise ConfigError(
                f'model_wrapper_cfg.units: {unit!r} fits the name of no part; there '
                f'are {as_list(names, _SHOWN, str)}'
            )
    chosen = [n for n in names if any(re.search(unit, n) for unit in units)]
    return [module.get_submodule(name) for name in reversed(chosen)]


def _gather_state(_: nn.Module, state: dict, *__: Any) -> None:
    for name, value in state.items():
        state[name] = _gathered(value)


def _gathered(value: Any) -> Any:
    """Return a value with all tensors in it whole, on the CPU if they were cut."""
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    if isinstance(value, Mapping):
        return {key: _gathered(inner) for key, inner in value.items()}
    return value


def _cut(value: Any, like: Tensor) -> Any:
    """Return this process's share of a tensor that belongs to a parameter."""
    fits = isinstance(value, Tensor) and value.shape == like.shape
    if not fits or isinstance(value, DTensor) or not isinstance(like, DTensor):
        return value
    whole = value.to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements)


def make_state_whole(optimizer: Optimizer) -> None:
    """Make an optimiser save its whole state, and take a whole one."""

    def gather(_: Optimizer, state: dict) -> dict:
        return _gathered(state)

    def cut(_: Optimizer, state: dict) -> dict:
        own = [p for group in optimizer.param_groups for p in group['params']]
        numbers = [n for group in state['param_groups'] for n in group['params']]
        if len(own) != len(numbers):
            return state  # which torch refuses by name
        shares = {
            number: {
                key: _cut(value, parameter)
                for key, value in state['state'].get(number, {}).items()
            }
            for number, parameter in zip(numbers, own, strict=True)
            if number in state['state']
        }
        return {**state, 'state': shares}

    optimizer.register_state_dict_post_hook(gather)
    optimizer.register_load_state_dict_pre_hook(cut)


def require_shardable(hooks: Sequence[Hook]) -> None:
    """Refuse hooks that copy the model or replace parts of it.

    Raises:
        ConfigError: if there is one.
    """
    for hook in hooks:
        if isinstance(hook, EMAHook) or getattr(hook, 'needs_whole_model', False):
            raise ConfigError(
                f'model_wrapper_cfg: {type(hook).__name__} needs the whole model in '
                'each process, and ShardedDataParallel cuts it: leave one of them out'
            )
