"""Random states that travel in checkpoints."""

from __future__ import annotations

import logging
from typing import Any

from mmengine.dist import all_gather_object, get_dist_info
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from zs3_mmseg.utils.random_state import get_random_state, set_random_state

#: The entry of a checkpoint that belongs to this hook.
KEY = 'random_state'


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Make a resumed run continue with the random numbers of an uninterrupted one.

    mmengine saves no random state: after ``--resume``, dropout and everything else
    that is drawn in the training process starts over. This hook

    - puts the states of Python, NumPy, torch and CUDA of every rank into each
      checkpoint, with the facts on which the order of the data depends,
    - restores them right before the first resumed iteration, after data loaders and
      models have been built and have drawn numbers of their own,
    - keeps validation from shifting the randomness of training, so that it does not
      matter whether a checkpoint was written before or after it.

    Order and augmentation of the data come from ``DrawSampler`` and ``ZeroShotDataset``
    (see ``zs3_mmseg.utils.random_state``). With several ranks, use the ``SafeRunner``
    of our tools: a stock runner calls only rank 0 when it saves, so the others' states
    are not known then.
    """

    # Restoring comes before any other hook of the iteration may draw.
    priority = 'HIGHEST'

    def __init__(self) -> None:
        self._gathered: list[dict[str, Any] | None] | None = None
        self._loaded: dict[str, Any] | None = None
        self._pending: dict[str, Any] | None = None
        self._before_val: dict[str, Any] | None = None

    def gather(self) -> None:
        """Collect the states of all ranks for the next save; every rank calls it."""
        self._gathered = all_gather_object(get_random_state())

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the states, on rank 0."""
        rank, world_size = get_dist_info()
        states = self._gathered
        if states is None:
            states = [None] * world_size
            states[rank] = get_random_state()
        self._gathered = None
        checkpoint[KEY] = {'ranks': states, 'data': _data_facts(runner)}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what the checkpoint holds, in case the run is being resumed."""
        self._loaded = checkpoint.get(KEY)

    def before_train(self, runner: Runner) -> None:
        """Compare a resumed run with the one that wrote the checkpoint."""
        loaded, self._loaded = self._loaded, None
        if runner.iter == 0:  # load_from takes weights only
            return
        if loaded is None:
            _warn(
                runner,
                'the checkpoint holds no random states (written without '
                'RandomStateHook?)',
            )
            return
        self._restore_seed(runner, loaded['data'].get('seed'))
        changed = _changes(loaded['data'], _data_facts(runner))
        if changed:
            _warn(runner, f'since the checkpoint these have changed: {changed}')
        rank, world_size = get_dist_info()
        states = loaded['ranks']
        if len(states) != world_size or states[rank] is None:
            known = sum(state is not None for state in states)
            _warn(
                runner,
                f'it holds the random states of {known} of {len(states)} processes, '
                f'this run has {world_size}',
            )
            return
        self._pending = states[rank]

    @staticmethod
    def _restore_seed(runner: Runner, seed: int | None) -> None:
        """Take over the seed, which mmengine may have drawn anew for this process."""
        sampler = runner.train_dataloader.sampler
        if seed is not None and hasattr(sampler, 'seed'):
            sampler.seed = seed

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Restore the states before the first resumed iteration."""
        if self._pending is None:
            return
        if not set_random_state(self._pending):
            _warn(runner, 'CUDA was there when it was saved and is not now, or v.v.')
        self._pending = None

    def before_val_epoch(self, runner: Runner) -> None:
        """Remember where training stands."""
        self._before_val = get_random_state()

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Go on from there, before any other hook saves a best checkpoint."""
        if self._before_val is not None:
            set_random_state(self._before_val)
            self._before_val = None


def _data_facts(runner: Runner) -> dict[str, Any]:
    """Return what the order of the training data depends on."""
    loader = runner.train_dataloader
    return {
        'seed': getattr(loader.sampler, 'seed', None),
        'world_size': runner.world_size,
        'batch_size': loader.batch_size,
        'dataset_size': getattr(loader.sampler, 'size', None),
        'sampler': type(loader.sampler).__name__,
        'shuffle': getattr(loader.sampler, 'shuffle', None),
    }


def _changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    return ', '.join(
        f'{name} ({before[name]} -> {now[name]})'
        for name in now
        if name in before and before[name] != now[name]
    )


def _warn(runner: Runner, reason: str) -> None:
    runner.logger.log(
        logging.WARNING,
        f'This run is resumed, but it will not repeat what an uninterrupted one would '
        f'have done: {reason}.',
    )
