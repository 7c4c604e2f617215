"""Stop before the first iteration if parts of an experiment disagree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import BaseLoop, Runner
from mmseg.registry import HOOKS

from zs3_mmseg.engine.label_protocol import (
    LabelCounts,
    allowed_in_testing,
    allowed_in_training,
    require_legal_labels,
    require_some_labels,
)
from zs3_mmseg.engine.prompt_protocol import (
    require_matching_prompts,
    require_prompt_metrics,
    require_stated_selection,
)
from zs3_mmseg.engine.protocol import (
    ProtocolError,
    require_fitting_heads,
    require_fitting_metrics,
    require_hidden_labels,
    require_ignored_padding,
    require_oracle_consent,
    require_phase,
    require_same_classes,
    require_same_setting,
    require_same_split,
    require_scores_for_metrics,
    require_seen_rows,
)
from zs3_mmseg.utils.random_state import get_random_state, set_random_state


@HOOKS.register_module()
class ProtocolCheckHook(Hook):
    """Check that data set, split, segmentor and metric mean the same thing.

    Before training (and before a validation or test of its own) it compares names and
    order of the classes, seen and unseen, the setting, special labels and the rows of
    inductive training, and looks at the labels of a few samples. Anything that
    disagrees raises a :class:`~zs3_mmseg.engine.protocol.ProtocolError` that names
    the config key. Random states and samplers are left as they were.

    Data sets without a split are only mentioned in the log, unless a zero-shot
    segmentor would see the labels of unseen classes through them.

    Args:
        num_samples: how many samples of each data set to look at, spread evenly; 0
            for none.
    """

    priority = 'VERY_HIGH'

    def __init__(self, num_samples: int = 8) -> None:
        if num_samples < 0:
            raise ValueError(f'num_samples must be 0 or more, got {num_samples}')
        self.num_samples = num_samples
        self._checked: set[str] = set()

    def before_run(self, runner: Runner) -> None:
        """Refuse a runner that cannot give all ranks the same model."""
        _require_broadcast(runner)

    def before_train(self, runner: Runner) -> None:
        """Check training, and the validation that will follow."""
        self._check_training(runner)
        if runner.val_loop is not None:
            self._check_evaluation(runner, 'val')
            validated = runner.val_loop.dataloader.dataset
            require_stated_selection(
                getattr(validated, 'metainfo', {}), 'val_dataloader'
            )

    def before_val(self, runner: Runner) -> None:
        """Check validation unless training has done it."""
        self._check_evaluation(runner, 'val')

    def before_test(self, runner: Runner) -> None:
        """Check testing."""
        self._check_evaluation(runner, 'test')

    def _check_training(self, runner: Runner) -> None:
        key = 'train_dataloader'
        dataset = runner.train_loop.dataloader.dataset
        segmentor = unwrap(runner.model)
        meta = getattr(dataset, 'metainfo', {})
        if 'seen' not in meta:
            self._check_foreign(segmentor, meta, key)
            if hasattr(segmentor, 'split'):
                require_hidden_labels(segmentor, key)
            return
        require_phase(meta, 'train', key)
        require_matching_prompts(segmentor, meta, key, training=True)
        require_oracle_consent(runner.hooks, meta, key)
        self._check_model(segmentor, meta, key, tested=False)
        require_same_setting(segmentor, meta, key)
        require_seen_rows(segmentor)
        require_ignored_padding(segmentor, meta)
        counts = self._look(dataset, key)
        require_legal_labels(counts, allowed_in_training(meta), meta, key)
        require_some_labels(counts, meta, key)
        self._tell(counts, meta, key)

    def _check_evaluation(self, runner: Runner, name: str) -> None:
        if name in self._checked:
            return
        self._checked.add(name)
        key = f'{name}_dataloader'
        loop = getattr(runner, f'{name}_loop')
        dataset = loop.dataloader.dataset
        segmentor = unwrap(runner.model)
        meta = getattr(dataset, 'metainfo', {})
        if 'seen' not in meta:
            self._check_foreign(segmentor, meta, key)
            if meta.get('classes'):
                require_fitting_metrics(_metrics(loop), meta, key)
            return
        require_phase(meta, 'test', key)
        require_matching_prompts(segmentor, meta, key, training=False)
        require_prompt_metrics(_metrics(loop), meta, key)
        self._check_model(segmentor, meta, key, tested=True)
        require_fitting_metrics(_metrics(loop), meta, key)
        require_scores_for_metrics(segmentor, _metrics(loop), key)
        counts = self._look(dataset, key)
        require_legal_labels(
            counts, allowed_in_testing(meta), {**meta, 'unseen': ()}, key
        )
        if _metrics(loop):
            require_some_labels(counts, meta, key)
        self._tell(counts, meta, key)

    @staticmethod
    def _check_model(
        segmentor: Any, meta: Mapping[str, Any], key: str, *, tested: bool
    ) -> None:
        if hasattr(segmentor, 'split'):
            split, names = segmentor.split, segmentor.split.classes
            if tested:
                split = getattr(segmentor, 'test_split', split)
                names = segmentor.class_names
            require_same_classes(names, meta, key)
            require_same_split(split, meta, key)
        else:
            require_fitting_heads(segmentor, meta, key)

    @staticmethod
    def _check_foreign(segmentor: Any, meta: Mapping[str, Any], key: str) -> None:
        if hasattr(segmentor, 'split') and meta.get('classes'):
            require_same_classes(segmentor.class_names, meta, key)
        MMLogger.get_current_instance().info(
            f'ProtocolCheckHook: {key}.dataset has no zero-shot split; its labels are '
            'not checked.'
        )

    def _look(self, dataset: Any, key: str) -> LabelCounts:
        """Count the labels of some samples without touching anyone's randomness.

        Raises:
            ProtocolError: if a sample cannot be loaded; the message names the file.
        """
        counts = LabelCounts()
        if not hasattr(dataset, '__len__'):
            return counts  # a stream cannot be looked into without taking from it
        wanted = min(self.num_samples, len(dataset))
        state = get_random_state()
        try:
            for index in np.linspace(0, len(dataset) - 1, wanted).round().astype(int):
                counts.add(dataset[int(index)])
        except (OSError, ValueError) as error:
            raise ProtocolError(f'{key}.dataset: {error}') from error
        finally:
            set_random_state(state)
        return counts

    @staticmethod
    def _tell(counts: LabelCounts, meta: Mapping[str, Any], key: str) -> None:
        if not counts.maps:
            return
        if 'prompted' in meta:
            MMLogger.get_current_instance().info(
                f'ProtocolCheckHook: {key} agrees with the model; one of '
                f'{len(meta["prompted"])} classes is named in each sample and covers '
                f'{counts.share(1):.0%} of the pixels.'
            )
            return
        seen, unseen = (
            sum(label in counts.pixels for label in meta[kind])
            for kind in ('seen', 'unseen')
        )
        shares = f'{counts.share(meta["ignore_index"]):.0%} ignored'
        hidden = counts.share(meta['unlabelled_index'])
        if hidden:
            shares += f', {hidden:.0%} unlabelled'
        MMLogger.get_current_instance().info(
            f'ProtocolCheckHook: {key} agrees with the model; {counts.samples} samples '
            f'hold {seen} of {len(meta["seen"])} seen and {unseen} of '
            f'{len(meta["unseen"])} unseen classes, {shares}.'
        )


def _require_broadcast(runner: Runner) -> None:
    """Class names in the state of a model need a runner that knows of them.

    A stock runner sends the whole state dict from rank 0 to the others before training
    and stops, with a word about tensors only, at the names our segmentors keep there.
    """
    trains = isinstance(runner._train_loop, BaseLoop)  # the property would build it
    stock = type(runner)._init_model_weights is Runner._init_model_weights
    if not (trains and stock and runner.distributed):
        return
    state = unwrap(runner.model).state_dict()
    named = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if named:
        raise ProtocolError(
            f'{type(runner).__name__} cannot train a '
            f'{type(unwrap(runner.model)).__name__} in several processes: it sends '
            f'{", ".join(named)} of the model, which holds class names, to the others '
            "as if it were a tensor. Set runner_type='SafeRunner' in the config, or "
            'use tools/dist_train.sh of this package'
        )


def unwrap(model: Any) -> Any:
    """Return the segmentor inside DistributedDataParallel or a TTA model."""
    while isinstance(getattr(model, 'module', None), nn.Module):
        model = model.module
    return model


def _metrics(loop: Any) -> Iterable[Any]:
    return getattr(getattr(loop, 'evaluator', None), 'metrics', [])
