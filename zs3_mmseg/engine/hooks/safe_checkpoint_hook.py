"""Checkpoints of which the old ones go last."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from zs3_mmseg.utils.cache import atomic_write


class _KeepsFiles:
    """A file backend of mmengine that notes what it should remove, and keeps it."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.unwanted: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        """Note a file."""
        self.unwanted.append(path)

    rmtree = remove


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's hook with the same options, which never removes before it has saved.

    mmengine deletes the oldest checkpoint, and the former best one, before the new
    file is written: a run that is killed in between, with ``max_keep_ckpts=1``, has
    none. Here the new file is whole and on disk first, then ``last_checkpoint`` names
    it, then the old one goes; a kill may leave one file too many, never one too few.

    ``SafeRunner``, and so the tools, make each plain ``CheckpointHook`` one of these. A
    best checkpoint that is gone when a run is resumed is told, and the next validation
    saves a new one.

    The options are those of ``CheckpointHook``.
    """

    keep_ckpt_ids: deque[int]
    file_backend: Any

    def before_train(self, runner: Runner) -> None:
        """Prepare as usual; forget best checkpoints that are not there any more."""
        self._find_best(runner)
        super().before_train(runner)

    def _find_best(self, runner: Runner) -> None:
        """Look for the files of best scores, also where the folder is a copy."""
        hub = runner.message_hub
        for key in [key for key in hub.runtime_info if key.startswith('best_ckpt')]:
            best = str(hub.get_info(key))
            beside = Path(runner.work_dir) / Path(best).name
            if '://' in best or Path(best).exists():
                continue
            if beside.exists():
                hub.update_info(key, str(beside))
                continue
            runner.logger.warning(
                f'The best checkpoint {best} of this run is gone: the next validation '
                'saves one, whatever its score.'
            )
            hub.pop_info(key)
            hub.pop_info(key.replace('ckpt', 'score', 1))

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: Mapping[str, Any]
    ) -> None:
        old: list[int] = []
        if self.max_keep_ckpts > 0 and step not in [*self.keep_ckpt_ids][-1:]:
            surplus = max(len(self.keep_ckpt_ids) + 1 - self.max_keep_ckpts, 0)
            old = [*self.keep_ckpt_ids][:surplus]
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', [*self.keep_ckpt_ids])
        name = self.filename_tmpl.format(step)
        self.last_ckpt = last = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', last)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=dict(meta),
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not is_main_process():
            return
        pointer = Path(runner.work_dir) / 'last_checkpoint'
        atomic_write(pointer, lambda stream: stream.write(last.encode()))
        for number in old:
            gone = self.filename_tmpl.format(number)
            self._remove(self.file_backend.join_path(self.out_dir, gone))

    def _save_best_checkpoint(
        self, runner: Runner, metrics: Mapping[str, float]
    ) -> None:
        # Validation by itself begins no training, in which there would be a backend.
        if self.save_best and hasattr(self, 'file_backend'):
            with self._removing_last():
                super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _removing_last(self) -> Iterator[None]:
        """Remove what is removed in this block at its end, unless it is in use again.

        A run that goes on from an older checkpoint may find its best one once more.
        """
        backend = self.file_backend
        self.file_backend = keeping = _KeepsFiles(backend)
        try:
            yield
        finally:
            self.file_backend = backend
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        used = {self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best}
        for path in keeping.unwanted:
            if path not in used:
                self._remove(path)

    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):
            self.file_backend.rmtree(path)
