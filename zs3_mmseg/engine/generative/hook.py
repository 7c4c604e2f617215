"""Classifiers for classes that were never labelled, on any segmentor of mmseg."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from mmseg.registry import HOOKS, MODELS

from zs3_mmseg.datasets.splits import ZeroShotSplit, resolve_split
from zs3_mmseg.engine.protocol import unwrap
from zs3_mmseg.models.class_embeddings import class_vectors
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.names import choose, duplicates

from .classifier import (
    RESETS,
    ClassifierTap,
    ClassWeights,
    UnsupportedError,
    find_criterion,
    find_head,
    require_classes,
)
from .compatibility import KEY, require_defaults, synthesisers_of
from .layouts import SyntheticLayout
from .plan import (
    KeyedDraws,
    Phase,
    PhaseSchedule,
    is_unseen,
)
from .retraining import PhaseChanges, Retraining
from .starting_points import expand_checkpoint, require_classifier
from .synthesis import Synthesiser, SynthesisFacts

_FITTING = {'strict': 'inductive', 'layout_oracle': 'layout_oracle'}


def require_fitting_data(setting: str, meta: Mapping[str, Any]) -> None:
    """Compare the hook's setting with the metainfo of the training data set."""
    found, wanted = meta.get('setting'), _FITTING[setting]
    if found not in (None, wanted):
        raise ValueError(
            f'GenerativeRetrainingHook.setting is {setting!r}, which goes with '
            f'train_dataloader.dataset.setting={wanted!r}, not with {found!r}'
        )
    if meta.get('pseudo_labels'):
        raise ValueError(
            'train_dataloader.dataset.pseudo_label_dir labels pixels of unseen '
            'classes, whose features GenerativeRetrainingHook generates: train on '
            'pseudo-labels in a run without the hook'
        )
    logger = MMLogger.get_current_instance()
    if setting == 'layout_oracle':
        logger.log(
            logging.WARNING,
            "GenerativeRetrainingHook: setting='layout_oracle': the classifier learns "
            'from the TRUE layout of unseen classes. This is no zero-shot result in '
            'the strict sense.',
        )
    elif found is None:
        logger.info(
            'GenerativeRetrainingHook: the training data set hides nothing, so labels '
            'of unseen classes are ignored here, before the model sees them.'
        )


def hide_unseen(
    data_batch: Mapping[str, Any], split: ZeroShotSplit, ignore_index: int
) -> None:
    """Make unseen classes ignored pixels in a batch of a data loader, in place."""
    for sample in data_batch['data_samples']:
        labels = sample.gt_sem_seg.data
        hidden = is_unseen(labels, split)
        if hidden.any():
            sample.gt_sem_seg.data = labels.masked_fill(hidden, ignore_index)


def require_plain_run(config: Any, model: nn.Module) -> None:
    """Training must neither compile the model nor checkpoint the head's activations."""
    if config.get('compile'):
        raise UnsupportedError(
            'compile is set: a compiled training step would leave out the tap at the '
            'classifier, or recompile in each iteration; remove it from the config'
        )
    modules = config.get('activation_checkpointing') or []
    modules = [modules] if isinstance(modules, str) else modules
    heads = [name for name in modules if name.split('.')[0] == 'decode_head']
    if heads:
        raise UnsupportedError(
            f'activation_checkpointing names {heads[0]!r}: the head would generate '
            'features twice, once more in the backward pass; leave the decode head out'
        )
    if not is_model_wrapper(model):
        return
    if not isinstance(model, nn.parallel.DistributedDataParallel):
        raise UnsupportedError(
            f'model_wrapper_cfg {type(model).__name__} is not supported; use '
            'MMDistributedDataParallel'
        )
    if not model.find_unused_parameters or getattr(model, 'static_graph', False):
        raise UnsupportedError(
            'while the classifier alone learns, all other parameters are unused, and '
            'DistributedDataParallel would wait for them: set '
            'find_unused_parameters=True at the top of the config (or in '
            'model_wrapper_cfg), without static_graph'
        )


def require_optimizer(wrapper: Any, conv: nn.Conv2d) -> torch.optim.Optimizer:
    """Return the optimiser of the segmentor, which must have the classifier in it."""
    optimizer = getattr(wrapper, 'optimizer', None)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UnsupportedError(
            f'optim_wrapper {type(wrapper).__name__} is not supported: there must be '
            'one optimiser for the segmentor'
        )
    known = {id(p) for group in optimizer.param_groups for p in group['params']}
    if any(id(parameter) not in known for parameter in conv.parameters()):
        raise UnsupportedError(
            'the optimiser does not have the parameters of decode_head.conv_seg: are '
            'they frozen, or left out by optim_wrapper.paramwise_cfg?'
        )
    return optimizer


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

    Gradients of the segmentor may be accumulated. With ``StepTrainLoop`` generator and
    classifier take a step in each iteration, made of all its batches; with mmengine's
    loop the generator takes one in each iteration, the classifier in every k-th.

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
        synthesisers: configs of what generates features, in their order, each a
            :class:`~zs3_mmseg.engine.generative.synthesis.Synthesiser`; no two of a
            type. None: one ``PixelSynthesis`` of the options ``generator``,
            ``generator_from``, ``loss``, ``generator_optimizer``, ``generator_step``,
            ``samples_per_class`` and ``merge``, and with ``graph`` a
            ``GraphSynthesis`` as well.
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
        decide_on: where to look for unseen classes in an image: in ``'labels'``, or in
            labels ``'downsampled'`` to the features, as the official code does. There
            an object that vanishes on the way stays in the loss with its real features.
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
    #: It runs layers of the model alone and replaces their weights.
    needs_whole_model = True

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
        synthesisers: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        for name, value, choices in (
            ('setting', setting, tuple(_FITTING)),
            ('decide_on', decide_on, ('labels', 'downsampled')),
            ('segmentor_mode', segmentor_mode, ('eval', 'train')),
            ('reset_classifier', reset_classifier, RESETS),
        ):
            choose(f'GenerativeRetrainingHook.{name}', value, choices)
        if unseen_weight <= 0:
            raise ValueError(
                f'GenerativeRetrainingHook needs unseen_weight > 0, got {unseen_weight}'
            )
        if setting == 'layout_oracle' and layout is not None:
            raise ValueError(
                'GenerativeRetrainingHook.layout makes label maps up, which '
                "setting='layout_oracle' takes from the data set: set one of them"
            )
        own = dict(
            generator=generator,
            generator_from=generator_from,
            loss=loss,
            generator_optimizer=generator_optimizer,
            graph=graph,
            generator_step=generator_step,
            samples_per_class=samples_per_class,
            merge=merge,
        )
        #: Whether the hook's own options describe the synthesisers.
        self._former = synthesisers is None
        if synthesisers is None:
            synthesisers = synthesisers_of(own)
        else:
            require_defaults(own)
        self.synthesisers = _build_synthesisers(synthesisers)
        self.setting = setting
        self.schedule = PhaseSchedule(segmentor_iters, generator_iters)
        self._class_embeddings = class_embeddings
        self._split = split
        self._unseen_weight = unseen_weight
        self._decide_on = decide_on
        self._layout = (
            SyntheticLayout(**(layout or {})) if setting == 'strict' else None
        )
        self._reset = reset_classifier
        self._segmentor_mode = segmentor_mode
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
        keeps_rows = self._reset in ('unseen', 'keep')
        if self.schedule.segmentor_iters == 0 and keeps_rows:
            conv = find_head(segmentor).conv_seg
            require_classifier(checkpoint, segmentor, conv)
        changed = expand_checkpoint(
            checkpoint,
            segmentor.state_dict(),
            self._find_split(runner),
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
        require_plain_run(runner.cfg, runner.model)
        head = find_head(segmentor)
        criterion = find_criterion(head)
        split = self._find_split(runner)
        require_classes(head, split.classes)
        optimizer = require_optimizer(runner.optim_wrapper, head.conv_seg)
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
        vectors = class_vectors(
            self._class_embeddings, split.classes, self._vector_names
        )
        conv = head.conv_seg
        facts = SynthesisFacts(
            split, vectors.to(conv.weight.device), conv.in_channels, seed
        )
        weights = ClassWeights(criterion, split, self._unseen_weight, head.ignore_index)
        loop = runner.train_loop
        counts = getattr(loop, 'counts', False)
        if counts:
            _require_no_losses(self.synthesisers)
        self._retraining = Retraining(
            head,
            facts,
            self.synthesisers,
            weights,
            layout=self._layout,
            decide_on=self._decide_on,
            batches=getattr(loop, 'batches', 1),
            shares=not counts,
        )
        self._tap = ClassifierTap(head, self._retraining)
        self._tap.install()
        self._changes = PhaseChanges(
            segmentor, optimizer, runner.hooks, self._retraining, self._reset
        )
        self._began = runner.iter > 0
        if resumed:
            self._retraining.load_state_dict(resumed, self.schedule, runner.iter)
            self._changes.enter(self._retraining.phase)
        elif self._began and self.schedule.at(runner.iter - 1) is not Phase.SEGMENTOR:
            raise ValueError(
                'GenerativeRetrainingHook: the checkpoint that is resumed from holds '
                f'no generator, but retraining began before iteration {runner.iter}. '
                'Start a new run from it with load_from'
            )
        else:
            for synthesiser in self.synthesisers:
                synthesiser.start()

    def _find_split(self, runner: Runner) -> ZeroShotSplit:
        """Return the split in the order of the training data set."""
        meta = _metainfo(runner)
        split = self._split or meta.get('split')
        if split is None:
            raise ValueError(
                'GenerativeRetrainingHook.split must name who is unseen: the training '
                'data set has no split of its own'
            )
        if isinstance(split, Mapping) and 'classes' not in split:
            split = dict(split, classes=meta.get('classes') or ())
        split = resolve_split(split).ordered_as(tuple(meta.get('classes') or ()))
        if not (split.seen and split.unseen):
            raise ConfigError(
                f'GenerativeRetrainingHook: {len(split.unseen)} of '
                f'{len(split.classes)} classes are unseen: there is nothing to learn, '
                'or nothing to learn from'
            )
        return split

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
            split, weights = retraining.facts.split, retraining.weights
            hide_unseen(data_batch, split, weights.ignore_index)
        if phase is not Phase.SEGMENTOR and self._segmentor_mode == 'eval':
            for part in unwrap(runner.model).children():
                part.eval()
        rank, world_size = get_dist_info()
        draws = KeyedDraws(
            retraining.facts.seed,
            runner.iter,
            rank=rank,
            world_size=world_size,
            device=retraining.head.conv_seg.weight.device,
        )
        retraining.begin(draws)
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
        """Add synthesisers and phase."""
        if self._retraining is not None:
            checkpoint[KEY] = self._retraining.state_dict(self._former)

    def after_train(self, runner: Runner) -> None:
        """Take the tap out and say what was missing."""
        if self._retraining is None:
            return
        for synthesiser in self.synthesisers:
            for message in synthesiser.missed():
                self._log(runner, message, logging.WARNING)
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


def _require_no_losses(synthesisers: Sequence[Synthesiser]) -> None:
    """Check that nobody adds a loss over what is only counted when it is there."""
    for part in synthesisers:
        if type(part).loss is not Synthesiser.loss:
            raise UnsupportedError(
                f'{type(part).__name__} has a loss whose divisor depends on features, '
                'so it cannot be that of a whole step: set train_cfg.normalise_by='
                "'batch'"
            )


def _build_synthesisers(configs: Sequence[Mapping[str, Any]]) -> list[Synthesiser]:
    """Build what generates features; states are told apart by type."""
    built = [MODELS.build(dict(config)) for config in configs]
    names = [type(part).__name__ for part in built]
    twice = duplicates(names)
    others = [type(s).__name__ for s in built if not isinstance(s, Synthesiser)]
    if not built or twice or others:
        raise ValueError(
            'GenerativeRetrainingHook.synthesisers must be a list of Synthesisers, '
            f'each of another type, got {", ".join(names) or "none"}'
        )
    return built
