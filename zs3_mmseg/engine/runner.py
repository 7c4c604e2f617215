"""A runner that trusts no checkpoint and loses none."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from mmengine.device import get_device
from mmengine.dist import barrier, get_dist_info, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import MMLogger
from mmengine.model.wrappers import MMFullyShardedDataParallel
from mmengine.optim import OptimWrapper, OptimWrapperDict, _ParamScheduler
from mmengine.registry import OPTIMIZERS as ROOT_OPTIMIZERS
from mmengine.runner import (
    BaseLoop,
    CheckpointLoader,
    EpochBasedTrainLoop,
    Priority,
    Runner,
)
from mmengine.runner.checkpoint import (
    _get_mmengine_home,
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_state_dict,
    get_torchvision_models,
)
from mmseg.registry import OPTIMIZERS, RUNNERS

from zs3_mmseg.engine.hooks.finite_guard_hook import FiniteGuardHook
from zs3_mmseg.engine.hooks.interruption_hook import InterruptionHook
from zs3_mmseg.engine.hooks.random_state_hook import RandomStateHook
from zs3_mmseg.engine.hooks.safe_checkpoint_hook import SafeCheckpointHook
from zs3_mmseg.engine.loaders import WORKER_OPTIONS, require_suitable
from zs3_mmseg.engine.resuming import require_same_kind, told_differences
from zs3_mmseg.engine.scores import require_different_scores
from zs3_mmseg.engine.sharding import (
    ShardedDataParallel,
    init_on_all_ranks,
    make_state_whole,
    require_shardable,
)
from zs3_mmseg.utils.cache import sync_to_disk
from zs3_mmseg.utils.checkpoint import (
    CheckpointError,
    DamagedCheckpointError,
    MapLocation,
    load_into,
    rename_keys,
    safe_load,
    state_dict_of,
    unwrap,
)
from zs3_mmseg.utils.config_check import ConfigError, building
from zs3_mmseg.utils.config_keys import naming_keys
from zs3_mmseg.utils.names import did_you_mean

_MMCLS = 'mmcls://'


def read_checkpoint(source: str, map_location: MapLocation = 'cpu') -> dict:
    """Read a checkpoint safely.

    ``source`` is a path, URL, ``open-mmlab://``, ``torchvision://`` or ``mmcls://``
    name, as in ``load_from`` and ``init_cfg`` of any config.
    """
    checkpoint = safe_load(_local_file(source), map_location)
    if source.startswith(_MMCLS):
        # Classifiers of mmcls: their backbone only, as in mmengine.
        prefix = 'backbone.'
        weights = {
            key.removeprefix(prefix): value
            for key, value in state_dict_of(checkpoint, source).items()
            if key.startswith(prefix)
        }
        return {'state_dict': weights}
    return checkpoint


def route_mmengine_loading() -> None:
    """Send every checkpoint that mmengine loads in this process through our reader.

    mmengine's own loader unpickles a file with code as soon as the safe way fails, and
    it serves more than the runner: ``init_cfg=dict(type='Pretrained', ...)``, the
    ``init_weights`` of backbones, publishing hooks. A library must not change that for
    the process it is imported into; our tools own theirs and call this at their start.
    """
    # The keys are patterns of sources; plug-ins may have added some, so none is named.
    for prefix in list(CheckpointLoader._schemes):
        CheckpointLoader.register_scheme(prefix, load_from_safely, force=True)


# mmengine logs a loader by its name without the first ten letters.
def load_from_safely(filename: str, map_location: MapLocation | None = None) -> dict:
    """Read for mmengine's ``CheckpointLoader``; see :func:`read_checkpoint`."""
    return read_checkpoint(filename, 'cpu' if map_location is None else map_location)


def _local_file(source: str) -> str:
    scheme, found, name = source.partition('://')
    if not found:
        return source
    if scheme in ('http', 'https'):
        return _download(source)
    if scheme in ('torchvision', 'modelzoo'):
        return _download(_look_up(name, get_torchvision_models(), source))
    if scheme in ('open-mmlab', 'openmmlab'):
        name = get_deprecated_model_names().get(name, name)
        place = _look_up(name, get_external_models(), source)
        if place.startswith(('http://', 'https://')):
            return _download(place)
        return os.path.join(_get_mmengine_home(), place)
    if f'{scheme}://' == _MMCLS:
        return _download(_look_up(name, get_mmcls_models(), source))
    raise CheckpointError(
        f'{source}: cannot read from {scheme}://. Download the file and give its path'
    )


def _look_up(name: str, table: dict[str, str], source: str) -> str:
    if name not in table:
        raise KeyError(f'{source}: no model of that name.{did_you_mean(name, table)}')
    return table[name]


def _download(url: str) -> str:
    """Return the cached file of a URL; one rank of a machine fetches it."""
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    file = folder / os.path.basename(urlparse(url).path)
    rank, _ = get_dist_info()
    # Machines of one run need not share their disks.
    if int(os.environ.get('LOCAL_RANK', rank)) == 0 and not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        prefix = torch.hub.HASH_REGEX.search(file.name)
        try:
            torch.hub.download_url_to_file(
                url, str(file), prefix.group(1) if prefix else None, progress=True
            )
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f'{url} could not be downloaded ({error}). Put the file at {file} by '
                'hand, or give its path'
            ) from error
    barrier()
    return str(file)


# Scores are of all images, each once.
_EVALUATION = {'endless': False, 'complete': True}
# Beginnings of what mmengine logs before each run.
_FOR_THE_FILE = (
    f'\n{"-" * 60}\nSystem environment',
    'Config:\n',
    'Hooks will be executed',
    'Distributed training is not used',
    # A line for each parameter with a rate or decay of its own.
    'paramwise_options -- ',
    # Its own use of its own old names.
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)


def _is_for_people(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_FOR_THE_FILE)


# What mmengine puts behind the name of an experiment.
_TIMESTAMP = re.compile(r'_?\d{8}_\d{6}$')
_PARTIAL = '.checkpoint.partial'
# What torch says when an optimiser's state is loaded by one with other parameters.
_OTHER_GROUPS = 'parameter group'


@RUNNERS.register_module()
class SafeRunner(Runner):
    """mmengine's runner, with the loading and saving of checkpoints replaced.

    - ``load_from`` and ``resume`` read through ``safe_load``; nothing in a checkpoint
      is executed. Keys that do not fit are an error, unless the config says
      ``allow_missing=True``.
    - Checkpoints appear in one step, and old ones go after that
      (``SafeCheckpointHook``), so a run that is killed while saving leaves the previous
      ones intact; automatic resuming passes over a damaged file.
    - Ctrl-C and SIGTERM save before they end a training (``InterruptionHook``), and a
      training that has come to NaN stops (``FiniteGuardHook``).
    - Data loaders draw the seeds of their workers from a generator of their own, and
      random states of all ranks are gathered for ``RandomStateHook``.
    - Weights that are cut over processes (``ShardedDataParallel``) are saved whole.
    - Models in which nothing learns, and models whose state is more than tensors, run
      under several processes, too.
    """

    _resuming = False
    _train_dataloader: Any
    _val_dataloader: Any
    _val_evaluator: Any
    _test_dataloader: Any
    _test_evaluator: Any

    def build_logger(
        self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs: Any
    ) -> MMLogger:
        """Build the logger; what fills screens goes to the log file alone.

        The file takes any text, whatever the console takes.
        """
        kwargs.setdefault(
            'file_handler_cfg', {'type': 'RotatingFileHandler', 'encoding': 'utf-8'}
        )
        logger = super().build_logger(log_level, log_file, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_is_for_people)
        logger.info(f'Environment, config and hooks are written to {logger.log_file}')
        return logger

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict,
        seed: int | None = None,
        diff_rank_seed: bool = False,
    ) -> DataLoader:
        """Build a data loader that leaves torch's global generator alone.

        Without workers, options of workers say nothing: torch would refuse them.
        """
        if isinstance(dataloader, Mapping) and not dataloader.get('num_workers'):
            dataloader = {
                key: value
                for key, value in dataloader.items()
                if key not in WORKER_OPTIONS
            }
        loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        if loader is not dataloader and loader.generator is None:
            # Each new iterator draws a seed for its workers. From the global
            # generator, that would shift dropout whenever an iterator starts at
            # another time: after resuming, or with another validation interval.
            loader.generator = torch.Generator().manual_seed(seed or 0)
        return loader

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the loop; a ``ConfigError`` names what it can't be built from."""
        self._train_dataloader = self._named_loader('train', self._train_dataloader)
        with naming_keys(self.cfg):
            built = super().build_train_loop(loop)
        by_epoch = isinstance(built, EpochBasedTrainLoop)
        require_suitable(
            'train_dataloader', built.dataloader, endless=not by_epoch, complete=False
        )
        return built

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the loop and its metrics, with such errors."""
        self._val_dataloader = self._named_loader('val', self._val_dataloader)
        self._val_evaluator = self._named_evaluator('val', self._val_evaluator)
        with naming_keys(self.cfg):
            built = super().build_val_loop(loop)
        require_suitable('val_dataloader', built.dataloader, **_EVALUATION)
        return built

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the loop and its metrics, with such errors."""
        self._test_dataloader = self._named_loader('test', self._test_dataloader)
        self._test_evaluator = self._named_evaluator('test', self._test_evaluator)
        with naming_keys(self.cfg):
            built = super().build_test_loop(loop)
        require_suitable('test_dataloader', built.dataloader, **_EVALUATION)
        return built

    def _named_loader(self, name: str, given: DataLoader | dict) -> DataLoader:
        shared = self._randomness_cfg.get('diff_rank_seed', False)
        with building(f'{name}_dataloader'), naming_keys(self.cfg):
            return self.build_dataloader(given, self.seed, shared)

    def _named_evaluator(self, name: str, given: Evaluator | dict | list) -> Evaluator:
        with building(f'{name}_evaluator'), naming_keys(self.cfg):
            evaluator = self.build_evaluator(given)
        require_different_scores(f'{name}_evaluator', evaluator.metrics)
        return evaluator

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap as usual, but not what averages its gradients itself.

        Nor what DDP refuses for having nothing to learn.

        Raises:
            ConfigError: for mmengine's own wrapper for weights that are cut.
        """
        kind = str((model_wrapper_cfg or {}).get('type'))
        if kind == MMFullyShardedDataParallel.__name__:
            raise ConfigError(
                f'model_wrapper_cfg.type={kind!r} saves and loads no whole checkpoints '
                f'here: use {ShardedDataParallel.__name__!r}'
            )
        learns = any(parameter.requires_grad for parameter in model.parameters())
        averages = getattr(model, 'averages_gradients', False)
        if averages and kind == ShardedDataParallel.__name__:
            raise ConfigError(
                f'model_wrapper_cfg.type={kind!r}: {type(model).__name__} steps with '
                'several optimisers and averages its gradients itself: leave it out'
            )
        if self.distributed and (averages or not learns):
            return model.to(get_device())
        return super().wrap_model(model_wrapper_cfg, model)

    def register_hooks(
        self,
        default_hooks: dict[str, Hook | dict] | None = None,
        custom_hooks: list[Hook | dict] | None = None,
    ) -> None:
        """Register as usual; an option that no checkpoint is saved with is refused.

        mmengine would find it out when the first one is saved.
        """
        with warnings.catch_warnings():
            # mmseg's way of saying that nobody asked for --show.
            warnings.filterwarnings('ignore', 'The draw is False')
            super().register_hooks(default_hooks, custom_hooks)
        for hook in self.hooks:
            if isinstance(hook, CheckpointHook) and not isinstance(
                hook, SafeCheckpointHook
            ):
                self.logger.warning(
                    f'{type(hook).__name__} removes checkpoints in its own order: with '
                    'max_keep_ckpts or save_best, a run that is killed while saving '
                    'may leave none. Derive it from SafeCheckpointHook.'
                )
        own = signature(SafeRunner.save_checkpoint).parameters
        known = signature(self.save_checkpoint).parameters.keys() - own
        for hook in self.hooks:
            given = hook.args if isinstance(hook, CheckpointHook) else ()
            surplus = [option for option in given if option not in known]
            if surplus:
                raise TypeError(
                    f'{CheckpointHook.__name__}.__init__() got an unexpected keyword '
                    f'argument {surplus[0]!r}'
                )

    def register_hook(
        self, hook: Hook | dict, priority: str | int | Priority | None = None
    ) -> None:
        """Register as usual; a plain ``CheckpointHook`` becomes a safe one."""
        super().register_hook(hook, priority)
        for known in self.hooks:
            # It has the same options and state, and configs of others name it so.
            if type(known) is CheckpointHook:
                known.__class__ = SafeCheckpointHook

    def train(self) -> nn.Module:
        """Train as usual; Ctrl-C and SIGTERM save, see :class:`InterruptionHook`."""
        if isinstance(self.model, ShardedDataParallel):
            require_shardable(self.hooks)
        hook = InterruptionHook()
        self.register_hook(hook)
        if not any(isinstance(known, FiniteGuardHook) for known in self.hooks):
            self.register_hook(FiniteGuardHook())
        with hook.listening():
            return super().train()

    def build_optim_wrapper(
        self, optim_wrapper: Optimizer | OptimWrapper | dict
    ) -> OptimWrapper | OptimWrapperDict:
        """Build the optimiser; a ``ConfigError`` names what it can't be built from."""
        if isinstance(optim_wrapper, Mapping):
            _require_optimizer(optim_wrapper)
        with building('optim_wrapper'), naming_keys(self.cfg):
            built = super().build_optim_wrapper(optim_wrapper)
        # A wrapper that is built is returned as it is when this is asked again.
        if isinstance(self.model, ShardedDataParallel) and built is not optim_wrapper:
            make_state_whole(built.optimizer)
        return built

    def build_param_scheduler(
        self, scheduler: _ParamScheduler | dict | list
    ) -> list[_ParamScheduler] | dict[str, list[_ParamScheduler]]:
        """Build the schedules of learning rate and momentum, with such errors."""
        with building('param_scheduler'), naming_keys(self.cfg):
            return super().build_param_scheduler(scheduler)

    def _init_model_weights(self) -> None:
        """Initialise the model and give every rank the weights of rank 0."""
        if not isinstance(self.model, ShardedDataParallel):  # which has done so
            init_on_all_ranks(unwrap(self.model))

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = True,
        revise_keys: Sequence[tuple[str, str]] = (),
    ) -> dict:
        """Read a checkpoint safely and load it strictly.

        Args:
            filename: anything ``read_checkpoint`` takes.
            map_location: where the tensors go.
            strict: kept for mmengine's signature; ``allow_missing`` of the config
                decides.
            revise_keys: (pattern, replacement) for keys of the state dict; the prefix
                of parallel wrappers is removed in any case.

        Raises:
            CheckpointError: if the file is damaged, unsafe, or does not fit.
        """
        checkpoint = read_checkpoint(str(filename), map_location)
        if self._resuming:
            _require_training_state(checkpoint, filename)
            self._tell_other_run(checkpoint['meta'], filename)
            for sentence in told_differences(checkpoint['meta'].get('cfg'), self.cfg):
                self.logger.warning(f'{filename}: {sentence}.')
        # Hooks expect a checkpoint, also where the file is a bare state dict.
        around = checkpoint if 'state_dict' in checkpoint else {}
        checkpoint = {**around, 'state_dict': state_dict_of(checkpoint, filename)}
        if isinstance(checkpoint.get('meta'), dict):
            # mmengine runs this text of mmcv 1.x files as Python when resuming.
            checkpoint['meta'].pop('config', None)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        weights = checkpoint['state_dict']
        for pattern, replacement in revise_keys:
            weights = rename_keys(weights, pattern, replacement)
        load_into(
            self.model,
            weights,
            allow_missing=bool(self.cfg.get('allow_missing', False)),
            what=str(filename),
        )
        self._has_loaded = True
        return checkpoint

    def _tell_other_run(self, meta: Mapping[str, Any], filename: str) -> None:
        """Warn if a checkpoint to go on from was written by the run of another config.

        Runs may be renamed; one whose weights do not fit is refused in any case.
        """
        theirs = _TIMESTAMP.sub('', str(meta.get('experiment_name', '')))
        ours = _TIMESTAMP.sub('', self.experiment_name)
        if theirs and not ours.endswith(theirs):
            self.logger.warning(
                f'{filename} was written by the run {theirs}, and this one is {ours}: '
                'it goes on from another config. --work-dir keeps runs apart.'
            )

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: str | Callable = 'default',
    ) -> None:
        """Resume a run from a checkpoint of it; see mmengine's runner."""
        self._resuming = True
        try:
            super().resume(
                filename, resume_optimizer, resume_param_scheduler, map_location
            )
        except ValueError as error:
            if _OTHER_GROUPS not in str(error):
                raise
            raise ConfigError(
                f'optim_wrapper: {filename} was written with other groups of '
                f'parameters ({error}). Was paramwise_cfg or the model another?'
            ) from error
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise CheckpointError(
                f'{filename} cannot be resumed from: what it holds beside weights is '
                f'malformed or of another kind of run ({type(error).__name__}: {error})'
            ) from error
        finally:
            self._resuming = False
        wrapper: Any = self.optim_wrapper
        parts = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        for part in parts:
            require_same_kind(part.optimizer, filename)
        if self.iter >= self.max_iters:
            self.logger.info(
                f'The run is finished: {filename} was written after iteration '
                f'{self.iter} of {self.max_iters}. Nothing is left to train.'
            )

    def load_or_resume(self) -> None:
        """Load or resume; without a named checkpoint, resume from the last intact one.

        If there are checkpoints and all of them are damaged, that is an error.
        """
        automatic = self._resume and self._load_from is None
        if self._has_loaded or not automatic:
            super().load_or_resume()
            return
        candidates = resume_candidates(self.work_dir)
        if not candidates:
            self._tell_fresh_start()
        for number, candidate in enumerate(candidates, 1):
            try:
                self.resume(str(candidate))
            except DamagedCheckpointError as error:
                if number == len(candidates):
                    raise
                self.logger.warning(f'{error}. Trying the one before.')
            else:
                return

    def _tell_fresh_start(self) -> None:
        begun = sorted(
            log.parent.name
            for log in Path(self.work_dir).glob('*/*.log')
            if log.parent.name != self.timestamp
        )
        text = f'No checkpoint to resume from in {self.work_dir}: '
        if begun:
            self.logger.warning(
                f'{text}the run that began there as {begun[-1]} has left none, so '
                'training starts from the beginning.'
            )
        else:
            self.logger.info(f'{text}training starts from the beginning.')

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """Save a checkpoint; all ranks call this, rank 0 writes.

        On local disks it is written beside its place and then moved there.
        """
        for hook in self.hooks:
            if isinstance(hook, RandomStateHook):
                hook.gather()
        if not is_main_process():
            if isinstance(self.model, ShardedDataParallel):
                # The shares of this rank are asked for, in the order of mmengine.
                get_state_dict(self.model)
                if save_optimizer:
                    self.optim_wrapper.state_dict()
            return
        local = not (file_client_args or backend_args or '://' in str(out_dir))
        place, partial = Path(out_dir) / filename, Path(out_dir) / _PARTIAL
        try:
            super().save_checkpoint(
                out_dir,
                _PARTIAL if local else filename,
                file_client_args,
                save_optimizer,
                save_param_scheduler,
                meta,
                by_epoch,
                backend_args,
            )
            if local:
                sync_to_disk(partial)
                partial.replace(place)
                sync_to_disk(place.parent)
        except OSError as error:
            if not local:
                raise
            partial.unlink(missing_ok=True)
            raise OSError(
                f'{place} could not be saved ({error.strerror or error}); what was '
                'saved before is intact'
            ) from error


def _require_optimizer(optim_wrapper: Mapping[str, Any]) -> None:
    """Check the name, for which mmengine reports that None cannot be called."""
    name = (optim_wrapper.get('optimizer') or {}).get('type')
    if isinstance(name, str) and OPTIMIZERS.get(name) is None:
        known = [*OPTIMIZERS.module_dict, *ROOT_OPTIMIZERS.module_dict]
        raise ConfigError(
            f'optim_wrapper.optimizer.type = {name!r}: no optimiser is called so.'
            f'{did_you_mean(name, known)}'
        )


def resume_candidates(work_dir: str | os.PathLike) -> list[Path]:
    """Return the training checkpoints of a run, the one to resume from first.

    That is the one named in ``last_checkpoint``, looked for in this folder first,
    which may be a copy; then ``iter_*.pth`` and ``epoch_*.pth``, the newest first.
    """
    folder = Path(work_dir)
    first: list[Path] = []
    pointer = folder / 'last_checkpoint'
    if pointer.is_file():
        named = Path(pointer.read_text().strip())
        # An empty name is what a run leaves that was killed while writing it.
        places = (folder / named.name, named) if named.name else ()
        first = [place for place in places if place.is_file()][:1]
    numbered = {
        path: int(match[1])
        for place in {folder, *(path.parent for path in first)}
        for path in place.glob('*.pth')
        if (match := re.fullmatch(r'(?:iter|epoch)_(\d+)\.pth', path.name))
    }
    rest = sorted(numbered, key=lambda path: numbered[path], reverse=True)
    return [*first, *(path for path in rest if path not in first)]


def _require_training_state(checkpoint: dict, filename: str) -> None:
    missing = [key for key in ('meta', 'message_hub') if key not in checkpoint]
    if missing:
        raise CheckpointError(
            f'{filename} cannot be resumed from: it lacks {missing}, so it holds '
            'weights only. --cfg-options load_from=FILE starts a new run from them.'
        )
    meta = checkpoint['meta']
    counts = [meta.get(k) for k in ('epoch', 'iter')] if isinstance(meta, dict) else []
    if not counts or not all(type(n) is int and n >= 0 for n in counts):
        raise CheckpointError(
            f'{filename} cannot be resumed from: its meta does not count epochs and '
            'iterations'
        )
