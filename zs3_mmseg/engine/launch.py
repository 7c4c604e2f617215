"""What the command-line tools for training and testing have in common.

Their arguments stand in ``tools/_arguments.py``: this package takes seconds to import.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist
from torch import nn

from mmengine.config import Config
from mmengine.device import get_device
from mmseg.registry import RUNNERS

from zs3_mmseg.datasets.scan import explained
from zs3_mmseg.utils.config_check import expand_home, read_config, run_name
from zs3_mmseg.utils.config_keys import naming_keys
from zs3_mmseg.utils.console import show_any_text
from zs3_mmseg.utils.names import did_you_mean

from .protocol import ProtocolCheckHook, require_fitting_parts
from .runner import SafeRunner, route_mmengine_loading

# What numpy says when a data set of mmengine lists nothing.
_EMPTY_LIST = 'need at least one array to concatenate'
# How torch passes on what a worker of a data loader raised: with its traceback as text.
_IN_WORKER = 'Caught '
TRACEBACK_ENV = 'ZS3_MMSEG_TRACEBACK'
# What a config, a checkpoint or names that are not right end in; a TypeError is a key
# that a constructor does not know.
USER_ERRORS = (OSError, ValueError, KeyError, TypeError, ImportError, SyntaxError)
# The same once a run has begun: what data, weights and parts of a config that are only
# looked at then end in.
RUN_ERRORS = (OSError, ValueError)


def config_of(arguments: argparse.Namespace) -> Config:
    """Read the config named on the command line and apply the shared flags."""
    os.environ.setdefault('LOCAL_RANK', str(arguments.local_rank))
    config = read_config(arguments.config, arguments.cfg_options)
    name = run_name(arguments.config)
    config.launcher = arguments.launcher
    config.allow_missing = arguments.allow_missing or config.get('allow_missing', False)
    if arguments.work_dir is not None:
        config.work_dir = arguments.work_dir
    elif config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs') / name)
    # Checkpoints tell by it whose they are.
    config.setdefault('experiment_name', '_'.join(name.parts))
    return config


def require_keys(config: Config, *keys: str) -> None:
    """Check that a config has the parts a tool works with."""
    absent = [key for key in keys if config.get(key) is None]
    if absent:
        raise ValueError(f'the config {config.filename} has no {", ".join(absent)}')


def build_runner(config: Config) -> SafeRunner:
    """Build the runner of a tool, for one process or several, with or without GPU.

    From here on, everything mmengine loads in this process is read safely.
    """
    route_mmengine_loading()
    expand_home(config._cfg_dict)  # what flags have put there
    if config.launcher != 'none':
        _prepare_processes(config)
    name = config.get('runner_type', 'SafeRunner')
    runner_class = RUNNERS.get(name)
    if runner_class is None or not issubclass(runner_class, SafeRunner):
        raise ValueError(
            f'runner_type = {name!r}, but the tools of this package only use runners '
            'that load checkpoints safely: leave it out, or name a subclass of '
            f'SafeRunner.{did_you_mean(name, ["SafeRunner"])}'
        )
    require_fitting_parts(config.model)
    with naming_keys(config):
        runner = runner_class.from_cfg(config)
    if not any(isinstance(hook, ProtocolCheckHook) for hook in runner.hooks):
        runner.register_hook(ProtocolCheckHook())
    return runner


def _prepare_processes(config: Config) -> None:
    if config.launcher == 'pytorch' and 'RANK' not in os.environ:
        raise ValueError(
            '--launcher pytorch belongs to torchrun: start it with '
            'tools/dist_train.sh CONFIG NUM_PROCESSES (or dist_test.sh)'
        )
    if get_device() != 'cpu':
        return
    if config.launcher != 'pytorch':
        raise ValueError(
            f'--launcher {config.launcher} needs an accelerator and there is none; '
            'several processes on CPUs are started with --launcher pytorch'
        )
    # mmengine's init_dist always calls torch.cuda.set_device; it leaves a process
    # group alone that is there already.
    if not dist.is_initialized():
        dist.init_process_group('gloo')
    wrapper = config.get('model_wrapper_cfg') or {
        'type': 'MMDistributedDataParallel',
        'broadcast_buffers': False,
        'find_unused_parameters': config.get('find_unused_parameters', False),
    }
    # Without the key, the runner puts the local rank there, which means a GPU.
    config.model_wrapper_cfg = {'device_ids': None, **wrapper}


def build_loops(runner: SafeRunner, *names: str) -> None:
    """Build ``'train'``, ``'val'`` or ``'test'`` loops with their data sets now.

    A runner puts them off until it starts. A mistake in the config of a data set is
    then told like any other, and not after the first results of a run.
    """
    for name in names:
        try:
            getattr(runner, f'{name}_loop')
        except ValueError as error:
            if _EMPTY_LIST not in str(error):
                raise
            with explained(runner.cfg[f'{name}_dataloader']['dataset']):
                raise


def require_no_learning(model: nn.Module, advice: str) -> None:
    """Refuse a model without checkpoint of which a part would stay random.

    ``advice`` says where to name a checkpoint.
    """
    learnt = [name for name, value in model.named_parameters() if value.requires_grad]
    if learnt:
        named = ', '.join(learnt[:5]) + (', ...' if len(learnt) > 5 else '')
        raise ValueError(
            f'{len(learnt)} parameters of this model learn ({named}), so it needs a '
            f'checkpoint; without one they would be random. {advice}'
        )


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return how many numbers in a model learn, and how many there are."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, learns in sizes if learns), sum(n for n, _ in sizes)


def close_processes() -> None:
    """End the process group, so that no rank waits for another one's exit."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def one_line_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors that a user can mend into one message and exit status 2.

    By default these are :data:`USER_ERRORS`, for reading and building. Everything else
    keeps its traceback; ``ZS3_MMSEG_TRACEBACK=1`` brings it back for these, too. From
    here on the console takes any text, see :func:`show_any_text`.
    """
    show_any_text()
    caught: tuple[type[Exception], ...] = (*(kinds or USER_ERRORS), AssertionError)
    try:
        yield
    except caught as error:
        # An assert without a message tells a user nothing.
        silent = isinstance(error, AssertionError) and not error.args
        if silent or os.environ.get(TRACEBACK_ENV) == '1':
            raise
        # str() of a KeyError is the repr of its message.
        text = str(error.args[0] if isinstance(error, KeyError) else error)
        if text.startswith(_IN_WORKER):
            text = text.rstrip().rpartition('\n')[2].partition(': ')[2]
        sys.stderr.write(f'error: {text}\n({TRACEBACK_ENV}=1 shows where)\n')
        raise SystemExit(2) from error


@contextmanager
def running(config: Config) -> Iterator[None]:
    """Treat what a user can mend in a run like :func:`one_line_errors` does before."""
    with one_line_errors(*RUN_ERRORS), naming_keys(config):
        yield


def require_accelerator_for_amp(config: Config) -> None:
    """Check that mixed precision can work here, for which mmengine has an assert."""
    if get_device() == 'cpu':
        raise ValueError(
            f'optim_wrapper.type = {config.optim_wrapper.type!r} (--amp): mixed '
            'precision needs an accelerator, and this machine offers none. '
            'Leave --amp out to train in float32 on the CPU.'
        )
