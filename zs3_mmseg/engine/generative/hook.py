"""Classifiers for classes that were never labelled, on any segmentor of mmseg."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from mmengine.structures import PixelData
from mmseg.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample

from zs3_mmseg.datasets.splits import resolve_split
from zs3_mmseg.utils.checkpoint import unwrap

from .plan import (
    ClassRoles,
    KeyedDraws,
    Phase,
    PhaseSchedule,
    class_vectors,
    resolve_roles,
)
from .retraining import (
    KEY,
    PhaseChanges,
    Retraining,
    RetrainingOptions,
    RunFacts,
    build_retraining,
    restore,
    state_of,
)
from .starting_points import expand_checkpoint, load_generators, require_classifier


class TapUser(Protocol):
    """What looks at, and replaces, things on their way through a decode head."""

    def active(self) -> bool:
        """Tell whether the tap does anything in this call of ``head.loss``."""

    def relabel(self, labels: Tensor) -> Tensor:
        """Return the labels to train with, for those of the batch, ``(N, H, W)``."""

    def replace(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the input of the classifier, for the real one, ``(N, F, h, w)``."""

    def complete(self, losses: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Return the losses of the head, for those that it computed itself."""


class ClassifierTap:
    """Wraps ``head.loss`` and the input of ``head.conv_seg`` of a decode head.

    Only calls of ``head.loss`` are touched, so prediction never is. The head keeps its
    own loss, and the runner its own step: mixed precision, clipping, accumulation and
    logging work as ever.
    """

    def __init__(self, head: BaseDecodeHead, user: TapUser) -> None:
        self.head = head
        self.user = user
        self._handle: RemovableHandle | None = None
        self._labels: Tensor | None = None
        self._passes = 0

    def install(self) -> None:
        """Put the tap in."""
        self._loss = self.head.loss
        # On the instance: a class's own method stays what it is.
        self.head.loss = self._tapped_loss
        self._handle = self.head.conv_seg.register_forward_pre_hook(self._before)

    def remove(self) -> None:
        """Take the tap out; the head is then as it was."""
        if self._handle is None:
            return
        self._handle.remove()
        self._handle = None
        del self.head.loss

    def _tapped_loss(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        if not self.user.active():
            return self._loss(*args, **kwargs)
        samples = _find_samples(args, kwargs)
        batch = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
        labels = self.user.relabel(batch)
        if labels is not batch:
            changed = [
                _with_labels(*pair) for pair in zip(samples, labels, strict=True)
            ]
            args = tuple(changed if arg is samples else arg for arg in args)
            kwargs = {k: changed if v is samples else v for k, v in kwargs.items()}
        self._labels, self._passes = labels, 0
        try:
            losses = self._loss(*args, **kwargs)
        finally:
            self._labels = None
        if self._passes != 1:
            raise RuntimeError(
                f'{type(self.head).__name__} used conv_seg {self._passes} times to '
                'compute its loss; GenerativeRetrainingHook needs it to be used once'
            )
        return self.user.complete(losses, labels)

    def _before(self, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        if self._labels is None:
            return None
        self._passes += 1
        return (self.user.replace(inputs[0], self._labels),)


def _find_samples(args: Sequence[Any], kwargs: dict[str, Any]) -> list[SegDataSample]:
    for value in (*args, *kwargs.values()):
        if isinstance(value, list) and value and isinstance(value[0], SegDataSample):
            return value
    raise RuntimeError('the decode head was asked for its loss without data samples')


def _with_labels(sample: SegDataSample, labels: Tensor) -> SegDataSample:
    """Return a sample with other labels ``(H, W)``; the given one stays as it is."""
    changed = sample.new()
    changed.gt_sem_seg = PixelData(data=labels[None])
    return changed


_FITTING = {'strict': 'inductive', 'layout_oracle': 'layout_oracle'}


def require_fitting_data(setting: str, meta: Mapping[str, Any]) -> None:
    """Compare the hook's setting with what the training data set sends."""
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


def hide_unseen(data_batch: Mapping[str, Any], roles: ClassRoles) -> None:
    """Make unseen classes ignored pixels in a batch of a data loader, in place."""
    for sample in data_batch['data_samples']:
        labels = sample.gt_sem_seg.data
        hidden = roles.is_unseen(labels)
        if hidden.any():
            sample.gt_sem_seg.data = labels.masked_fill(hidden, roles.ignore_index)


# Heads of mmseg whose classifier is not the only one, and what they are known as.
_REFUSED_HEADS = {
    'IterativeDecodeHead': 'K-Net turns the classifier into kernels that it updates',
    'DAHead': 'DANet has two classifiers more',
    'EncHead': 'EncNet has a second classifier, of whole images',
    'PIDHead': 'PIDNet has classifiers of its other branches',
    'DDRHead': 'DDRNet has a second classifier',
}
_HINT = (
    'GenerativeRetrainingHook retrains heads that end in one conv_seg with one '
    'CrossEntropyLoss, e.g. FCNHead, ASPPHead, UPerHead or SegformerHead'
)


class UnsupportedError(ValueError):
    """A part of the config that retraining with generated features cannot work with."""


def find_head(segmentor: nn.Module) -> BaseDecodeHead:
    """Return the decode head to retrain: the last one of a cascade."""
    head = getattr(segmentor, 'decode_head', None)
    if isinstance(head, nn.ModuleList):
        head = head[-1]
    name = type(head).__name__
    for kind in type(head).__mro__:
        if kind.__name__ in _REFUSED_HEADS:
            reason = _REFUSED_HEADS[kind.__name__]
            raise UnsupportedError(f'model.decode_head {name}: {reason}. {_HINT}')
    conv = getattr(head, 'conv_seg', None)
    if not isinstance(head, BaseDecodeHead) or not isinstance(conv, nn.Conv2d):
        raise UnsupportedError(f'model.decode_head {name} has no conv_seg. {_HINT}')
    if conv.kernel_size != (1, 1) or conv.groups != 1:
        raise UnsupportedError(
            f'model.decode_head {name}: conv_seg is no 1 x 1 convolution: {conv}'
        )
    own_loss = type(head).loss_by_feat is not BaseDecodeHead.loss_by_feat
    ways = (BaseDecodeHead.loss, BaseCascadeDecodeHead.loss)
    if own_loss or type(head).loss not in ways:
        raise UnsupportedError(
            f'model.decode_head {name} computes a loss of its own. {_HINT}'
        )
    return head


def require_classes(head: BaseDecodeHead, names: tuple[str, ...]) -> None:
    """The head must have one output for each class of the data set."""
    outputs = head.conv_seg.out_channels
    if outputs != len(names):
        raise UnsupportedError(
            f'model.decode_head has {outputs} outputs, but the training data set has '
            f'{len(names)} classes, seen and unseen; set num_classes={len(names)}. '
            'A checkpoint of the seen classes alone is expanded on loading'
        )


def find_criterion(head: BaseDecodeHead) -> CrossEntropyLoss:
    """Return the head's cross entropy."""
    if head.sampler is not None:
        raise UnsupportedError(
            f'model.decode_head.sampler {type(head.sampler).__name__}: OHEM would '
            f'choose among generated pixels. Remove it. {_HINT}'
        )
    losses = head.loss_decode
    several = list(losses) if isinstance(losses, nn.ModuleList) else [losses]
    for criterion in several:
        name = type(criterion).__name__
        if not isinstance(criterion, CrossEntropyLoss):
            raise UnsupportedError(
                f'model.decode_head.loss_decode {name} takes no weights of classes as '
                f'a cross entropy does. {_HINT}'
            )
        if criterion.use_sigmoid or criterion.use_mask:
            raise UnsupportedError(
                f'model.decode_head.loss_decode {name} must be the softmax one, '
                'without use_sigmoid and use_mask'
            )
        if criterion.avg_non_ignore:
            raise UnsupportedError(
                'model.decode_head.loss_decode.avg_non_ignore=True fails with weights '
                'of classes as soon as pixels are ignored (an IndexError in mmseg); '
                'set it to False: with weights, ignored pixels do not count anyway'
            )
        if criterion.reduction != 'mean':
            raise UnsupportedError(
                "model.decode_head.loss_decode.reduction must be 'mean', not "
                f'{criterion.reduction!r}'
            )
    if len(several) > 1:
        raise UnsupportedError('model.decode_head.loss_decode must be one loss')
    return several[0]


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
            conv = find_head(segmentor).conv_seg
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
        require_plain_run(runner.cfg, runner.model)
        head = find_head(segmentor)
        criterion = find_criterion(head)
        roles = self._find_roles(runner)
        require_classes(head, roles.names)
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
        head = find_head(unwrap(runner.model))
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
