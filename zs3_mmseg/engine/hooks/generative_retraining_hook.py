"""Classifiers for classes that were never labelled, on any segmentor of mmseg."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from mmseg.registry import HOOKS

from zs3_mmseg.datasets.splits import resolve_split
from zs3_mmseg.engine.generative import support
from zs3_mmseg.engine.generative.assembly import build_retraining
from zs3_mmseg.engine.generative.class_vectors import class_vectors
from zs3_mmseg.engine.generative.draws import KeyedDraws
from zs3_mmseg.engine.generative.options import RetrainingOptions
from zs3_mmseg.engine.generative.phase_changes import PhaseChanges
from zs3_mmseg.engine.generative.retraining import Retraining
from zs3_mmseg.engine.generative.roles import ClassRoles, resolve_roles
from zs3_mmseg.engine.generative.schedule import Phase, PhaseSchedule
from zs3_mmseg.engine.generative.starting_points import (
    expand_checkpoint,
    load_generators,
    require_classifier,
)
from zs3_mmseg.engine.generative.state import KEY, RunFacts, restore, state_of
from zs3_mmseg.engine.generative.tap import ClassifierTap
from zs3_mmseg.engine.generative.training_data import (
    hide_unseen,
    require_fitting_data,
)
from zs3_mmseg.engine.hooks.protocol_check_hook import unwrap


@HOOKS.register_module()
class GenerativeRetrainingHook(Hook):
    """Retrain the classifier of a decode head on generated features of unseen classes.

    ZS3Net (arXiv 1906.00817) as a hook: (1) the segmentor learns the seen classes as
    the config says; (2) a generator learns to make features, as they enter
    ``decode_head.conv_seg``, from class vectors and noise; (3) ``conv_seg`` alone
    learns all classes, from real features of seen and generated ones of unseen classes.
    The generator is no part of the model, so testing costs nothing and needs no class
    vectors.

    The head is built with all classes from the beginning. A checkpoint of a segmentor
    with the seen classes alone is expanded by class name when it is loaded. Generators,
    their optimisers and the phase travel in checkpoints, and all random draws follow
    from seed and iteration, so a resumed run equals an uninterrupted one.

    Gradients of the segmentor may be accumulated over iterations: the generator then
    takes a step in each iteration, the classifier in every k-th.

    Args:
        class_embeddings: config of a ``ClassEmbeddingBank``.
        split: who is unseen: a split's name or dict, or ``dict(unseen=[...])`` among
            the classes of the training data set; None: what that data set says.
            Classes are found by name, in the data set's own order.
        setting: ``'strict'``: no label of an unseen class is read; where unseen classes
            lie is made up by ``layout``. ``'layout_oracle'``, as in the official code:
            images with unseen classes are trained on with the true layout of these,
            which gives away their shapes, sizes and neighbours, and how often they
            occur.
        generator: config of the generator; sizes are filled in.
        generator_from: a file that the generator starts from, in place of random
            weights: its weights alone, as ``convert_checkpoint.py zs3net`` writes them,
            or a checkpoint of a run with this hook. Its optimiser starts anew.
        loss: config of the loss between generated and real features.
        generator_optimizer: config of the generator's optimiser.
        graph: None, or ``dict(generator=..., loss_weight=0.1, generator_from=None)``
            for graph context.
        segmentor_iters: iterations of ordinary training first; 0 to start from a
            trained segmentor (``load_from``).
        generator_iters: iterations for the generator alone; None: generator and
            classifier learn in the same iterations, as in the official code.
        generator_step: ``'iteration'``: one step for the mean of all losses of an
            iteration; ``'class'``: one for each class of each image, as in the official
            code, in a single process only.
        samples_per_class: pixels of a class of an image that a loss compares.
        unseen_weight: weight of unseen classes in the cross entropy.
        merge: ``'image'`` generates images with unseen classes as a whole, ``'pixel'``
            only their unseen pixels.
        decide_on: see :class:`~zs3_mmseg.engine.generative.retraining.Retraining`.
        layout: options of
            :class:`~zs3_mmseg.engine.generative.layouts.SyntheticLayout`, for strict
            setting only; None: its defaults.
        reset_classifier: how the classifier starts, see
            :func:`~zs3_mmseg.engine.generative.classifier.reset_classifier`.
        segmentor_mode: mode of the frozen layers in retraining: ``'eval'``, features
            are those of testing; ``'train'``, as in the official code: dropout is on
            and statistics of batch norm move.
        vector_names: what to look up in place of a class name, e.g.
            ``dict(tvmonitor='tv')``.
        checkpoint_classes: class names of the checkpoint that is loaded, in the order
            of its classifier's rows, if it does not tell them itself.

    Raises:
        ValueError: if an option is none of its choices, or options contradict.
    """

    # Before EMAHook, which copies what it finds in a loaded checkpoint.
    priority = 'ABOVE_NORMAL'

    def __init__(
        self,
        class_embeddings: Mapping[str, Any],
        *,
        split: str | Mapping[str, Any] | None = None,
        setting: Literal['strict', 'layout_oracle'] = 'strict',
        generator: Mapping[str, Any] | None = None,
        generator_from: str | None = None,
        loss: Mapping[str, Any] | None = None,
        generator_optimizer: Mapping[str, Any] | None = None,
        graph: Mapping[str, Any] | None = None,
        segmentor_iters: int = 0,
        generator_iters: int | None = None,
        generator_step: Literal['iteration', 'class'] = 'iteration',
        samples_per_class: int = 128,
        unseen_weight: float = 100.0,
        merge: Literal['image', 'pixel'] = 'image',
        decide_on: Literal['labels', 'downsampled'] = 'labels',
        layout: Mapping[str, Any] | None = None,
        reset_classifier: Literal['unseen', 'all', 'official', 'keep'] = 'unseen',
        segmentor_mode: Literal['eval', 'train'] = 'eval',
        vector_names: Mapping[str, str] | None = None,
        checkpoint_classes: Sequence[str] | None = None,
    ) -> None:
        self._options = RetrainingOptions(
            setting=setting,
            generator=generator or dict(type='GMMNGenerator'),
            generator_from=generator_from,
            loss=loss or dict(type='MMDLoss'),
            generator_optimizer=generator_optimizer or dict(type='Adam', lr=2e-4),
            graph=graph,
            generator_step=generator_step,
            samples_per_class=samples_per_class,
            unseen_weight=unseen_weight,
            merge=merge,
            decide_on=decide_on,
            layout=layout,
            reset_classifier=reset_classifier,
            segmentor_mode=segmentor_mode,
        )
        self.setting = setting
        self.schedule = PhaseSchedule(segmentor_iters, generator_iters)
        self._class_embeddings = class_embeddings
        self._split = split
        self._vector_names = vector_names
        self._checkpoint_classes = checkpoint_classes
        self._loaded: dict[str, Any] | None = None
        self._retraining: Retraining | None = None
        self._began = False

    @property
    def allows_layout_oracle(self) -> bool:
        """Whether true labels of unseen classes may reach training."""
        return self.setting == 'layout_oracle'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Expand classifiers by name, and keep the state of a run to be resumed."""
        self._loaded = checkpoint.get(KEY)
        if not isinstance(runner._train_loop, BaseLoop):
            return  # a test: nothing is trained, so nothing may be missing
        segmentor = unwrap(runner.model)
        if self.schedule.segmentor_iters == 0 and self._options.needs_rows:
            conv = support.find_head(segmentor).conv_seg
            require_classifier(checkpoint, segmentor, conv)
        changed = expand_checkpoint(
            checkpoint,
            segmentor.state_dict(),
            self._find_roles(runner),
            self._checkpoint_classes,
        )
        if changed:
            self._log(
                runner,
                f'rows of {", ".join(changed)} went to their classes by name; classes '
                'that the checkpoint does not know start anew',
            )

    def before_train(self, runner: Runner) -> None:
        """Check that model and data can be retrained, and put the tap in."""
        segmentor = unwrap(runner.model)
        support.require_plain_run(runner.cfg, runner.model)
        head = support.find_head(segmentor)
        criterion = support.find_criterion(head)
        roles = self._find_roles(runner)
        support.require_classes(head, roles.names)
        optimizer = support.require_optimizer(runner.optim_wrapper, head.conv_seg)
        require_fitting_data(self.setting, _metainfo(runner))
        self.schedule.check(
            runner.max_iters, getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        )
        resumed = self._loaded if runner.iter > 0 else None
        if self._loaded and not resumed:
            self._log(
                runner,
                'load_from takes no generator over: it starts anew, or as '
                'generator_from says',
            )
        self._loaded = None
        seed = int(resumed['seed'] if resumed else runner.seed)
        vectors = class_vectors(self._class_embeddings, roles.names, self._vector_names)
        self._facts = RunFacts(seed, roles, vectors, self.schedule)
        self._retraining = build_retraining(head, criterion, self._facts, self._options)
        self._tap = ClassifierTap(head, self._retraining)
        self._tap.install()
        self._changes = PhaseChanges(
            segmentor,
            optimizer,
            runner.hooks,
            self._retraining,
            self._facts,
            self._options.reset_classifier,
        )
        self._began = runner.iter > 0
        if resumed:
            restore(self._retraining, self._facts, resumed, runner.iter)
            self._changes.enter(self._retraining.phase)
        elif self._began and self.schedule.at(runner.iter - 1) is not Phase.SEGMENTOR:
            raise ValueError(
                'GenerativeRetrainingHook: the checkpoint that is resumed from holds '
                f'no generator, but retraining began before iteration {runner.iter}. '
                'Start a new run from it with load_from'
            )
        else:
            load_generators(self._retraining, self._options)

    def _find_roles(self, runner: Runner) -> ClassRoles:
        meta = _metainfo(runner)
        split = self._split or meta.get('split')
        if split is None:
            raise ValueError(
                'GenerativeRetrainingHook.split must name who is unseen: the training '
                'data set has no split of its own'
            )
        if isinstance(split, Mapping) and 'classes' not in split:
            split = dict(split, classes=meta.get('classes') or ())
        head = support.find_head(unwrap(runner.model))
        return resolve_roles(resolve_split(split), meta, head.ignore_index)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Change the phase if it is time, and hide what must not be seen."""
        retraining = self._require_retraining()
        phase = self.schedule.at(runner.iter)
        if phase is not retraining.phase or not self._began:
            message = f'iteration {runner.iter}: phase {phase.value!r} begins'
            self._log(runner, message)
            self._changes.begin(phase)
        self._began = True
        if phase is Phase.SEGMENTOR or self.setting == 'strict':
            hide_unseen(data_batch, self._facts.roles)
        if phase is not Phase.SEGMENTOR and self._options.segmentor_mode == 'eval':
            for part in unwrap(runner.model).children():
                part.eval()
        rank, world_size = get_dist_info()
        retraining.draws = KeyedDraws(
            self._facts.seed,
            runner.iter,
            rank=rank,
            world_size=world_size,
            device=retraining.head.conv_seg.weight.device,
        )
        retraining.training = True

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Leave everything outside of training iterations alone."""
        self._require_retraining().training = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add generators and phase."""
        if self._retraining is not None:
            checkpoint[KEY] = state_of(self._retraining, self._facts)

    def after_train(self, runner: Runner) -> None:
        """Take the tap out and say what was missing."""
        if self._retraining is None:
            return
        pixels, roles = self._retraining.pixels, self._facts.roles
        for labels, what in (
            (roles.seen, 'the generator met no pixel of the seen classes'),
            (roles.unseen, 'no pixel was generated of the unseen classes'),
        ):
            names = pixels.unmet(labels)
            if names:
                self._log(runner, f'{what} {", ".join(names)}', logging.WARNING)
        self._changes.undo()
        self._tap.remove()

    def _require_retraining(self) -> Retraining:
        if self._retraining is None:
            raise RuntimeError('GenerativeRetrainingHook: training has not begun')
        return self._retraining

    @staticmethod
    def _log(runner: Runner, message: str, level: int = logging.INFO) -> None:
        runner.logger.log(level, f'GenerativeRetrainingHook: {message}.')


def _metainfo(runner: Runner) -> Mapping[str, Any]:
    return getattr(runner.train_dataloader.dataset, 'metainfo', {})
