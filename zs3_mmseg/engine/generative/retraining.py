"""Building the parts of a retraining from the options of its hook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import MODELS

from zs3_mmseg.models.generators import GMMNGenerator, GraphContextGenerator

from .classifier import RESETS, ClassWeights, freeze_all_but, reset_classifier
from .layouts import SyntheticLayout
from .plan import (
    ClassRoles,
    KeyedDraws,
    Phase,
    PhaseSchedule,
    reset_generator,
    vectors_hash,
)
from .synthesis import GeneratorTrainer, GraphSynthesis, PixelSynthesis

_HOOK = 'GenerativeRetrainingHook'
_CHOICES = {
    'setting': ('strict', 'layout_oracle'),
    'generator_step': ('iteration', 'class'),
    'merge': ('image', 'pixel'),
    'decide_on': ('labels', 'downsampled'),
    'segmentor_mode': ('eval', 'train'),
    'reset_classifier': RESETS,
}


@dataclass(frozen=True, kw_only=True)
class RetrainingOptions:
    """Options of ``GenerativeRetrainingHook``, which says what they mean."""

    setting: Literal['strict', 'layout_oracle']
    generator: Mapping[str, Any]
    generator_from: str | None
    loss: Mapping[str, Any]
    generator_optimizer: Mapping[str, Any]
    graph: Mapping[str, Any] | None
    generator_step: Literal['iteration', 'class']
    samples_per_class: int
    unseen_weight: float
    merge: Literal['image', 'pixel']
    decide_on: Literal['labels', 'downsampled']
    layout: Mapping[str, Any] | None
    reset_classifier: Literal['unseen', 'all', 'official', 'keep']
    segmentor_mode: Literal['eval', 'train']

    def __post_init__(self) -> None:
        for field in fields(self):
            choices = _CHOICES.get(field.name)
            value = getattr(self, field.name)
            if choices and value not in choices:
                raise ValueError(
                    f'{_HOOK}.{field.name} must be one of {", ".join(choices)}, got '
                    f'{value!r}'
                )
        if self.samples_per_class < 1 or self.unseen_weight <= 0:
            raise ValueError(
                f'{_HOOK} needs samples_per_class >= 1 and unseen_weight > 0, got '
                f'{self.samples_per_class} and {self.unseen_weight}'
            )
        if self.setting == 'layout_oracle' and self.layout is not None:
            raise ValueError(
                f"{_HOOK}.layout makes label maps up, which setting='layout_oracle' "
                'takes from the data set: set one of them'
            )
        self.build_layout()

    @property
    def graph_from(self) -> str | None:
        """The file that the generator of the graph starts from."""
        return (self.graph or {}).get('generator_from')

    @property
    def needs_rows(self) -> bool:
        """Whether the seen classes' rows are those that the segmentor learned."""
        return self.reset_classifier in ('unseen', 'keep')

    def build_layout(self) -> SyntheticLayout | None:
        """Return what makes label maps with unseen classes up, if anything does."""
        if self.setting == 'layout_oracle':
            return None
        return SyntheticLayout(**(self.layout or {}))


class Retraining:
    """Generators, and what they do to a batch (the user of a ``ClassifierTap``)."""

    def __init__(
        self,
        head: BaseDecodeHead,
        roles: ClassRoles,
        pixels: PixelSynthesis,
        weights: ClassWeights,
        *,
        graph: GraphSynthesis | None = None,
        layout: SyntheticLayout | None = None,
        decide_on: Literal['labels', 'downsampled'] = 'labels',
    ) -> None:
        self.head = head
        self.roles = roles
        self.pixels = pixels
        self.weights = weights
        self.graph = graph
        self.layout = layout
        self.decide_on = decide_on
        self.phase = Phase.SEGMENTOR
        #: Whether a training iteration is going on.
        self.training = False
        #: Where this iteration draws from.
        self.draws = KeyedDraws(0, 0)
        self._nodes: list[tuple[Tensor, Tensor]] = []
        self._logs: dict[str, Tensor] = {}

    def active(self) -> bool:
        """Whether this is training, after the segmentor's own."""
        return self.training and self.phase is not Phase.SEGMENTOR

    def relabel(self, labels: Tensor) -> Tensor:
        """Put unseen classes into label maps ``(N, H, W)`` for the classifier."""
        if self.layout is None or not self.phase.trains_classifier:
            return labels
        return torch.stack(
            [
                self.layout(label_map, self.roles, self.draws.layout(image))
                for image, label_map in enumerate(labels)
            ]
        )

    @torch.no_grad()
    def replace(self, features: Tensor, labels: Tensor) -> Tensor:
        """Let generators learn from, and write into, features ``(N, F, h, w)``."""
        finite = features.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            images = (~finite).nonzero().flatten().tolist()
            raise FloatingPointError(
                f'the features at the input of conv_seg are NaN or infinite in images '
                f'{images} of this batch: the segmentor diverged. Lower its learning '
                'rate, or start from an earlier checkpoint'
            )
        with torch.autocast(features.device.type, enabled=False):
            real = features.float()
            small = _downsample(labels, real.shape[2:])
            looked_at = small if self.decide_on == 'downsampled' else labels
            has_unseen = self.roles.is_unseen(looked_at).flatten(1).any(dim=1).tolist()
            merged = torch.stack(
                [
                    self._image(*pair, image, has_unseen[image])
                    for image, pair in enumerate(zip(real, small, strict=True))
                ]
            )
            self._finish_generators()
            self.pixels.count()
        return merged.to(features.dtype)

    def _image(
        self, features: Tensor, labels: Tensor, image: int, has_unseen: bool
    ) -> Tensor:
        learn = self.phase.trains_generator
        if has_unseen and not self.phase.trains_classifier:
            return features  # nothing to learn from, and nobody to generate for
        if self.graph is not None:
            nodes = self.graph(
                features, labels, image, self.draws, has_unseen=has_unseen, learn=learn
            )
            self._nodes.append(nodes)
        if has_unseen:
            return self.pixels.generate(features, labels, image, self.draws)
        if learn:
            self.pixels.learn(features, labels, image, self.draws)
        return features

    def _finish_generators(self) -> None:
        self._logs = {}
        if not self.phase.trains_generator:
            return
        for name, part in (('mmd', self.pixels), ('mmd_graph', self.graph)):
            mean = None if part is None else part.trainer.finish()
            if mean is not None:
                self._logs[name] = mean

    def complete(self, losses: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Return the losses that the classifier learns from, and figures to log."""
        nodes, self._nodes = self._nodes, []
        if not self.phase.trains_classifier:
            # A loss of zero: with several processes, all must take part in backward.
            kept = {k: v * 0 if 'loss' in k else v for k, v in losses.items()}
            return {**kept, **self._logs}
        key = self.weights.criterion.loss_name
        share = _share(self.weights.total(labels))
        losses = {**losses, key: losses[key] * share}
        if self.graph is not None:
            losses['loss_graph'] = self.graph.loss_weight * self._graph_loss(nodes)
        return {**losses, **self._logs}

    def _graph_loss(self, nodes: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Weighted cross entropy over all nodes of the batch, without upsampling."""
        features, labels = (torch.cat(parts) for parts in zip(*nodes, strict=True))
        dtype = self.head.conv_seg.weight.dtype
        logits = self.head.conv_seg(features.to(dtype)[:, :, None, None]).flatten(1)
        total = F.cross_entropy(
            logits.float(),
            labels,
            self.weights.weights.to(labels.device),
            ignore_index=self.roles.ignore_index,
            reduction='sum',
        )
        weight = self.weights.total(labels)
        return total / weight.clamp_min(torch.finfo(weight.dtype).tiny) * _share(weight)


def _downsample(labels: Tensor, size: torch.Size) -> Tensor:
    """Take the nearest label: ``(N, H, W)`` to ``(N, h, w)``."""
    return F.interpolate(labels[:, None].float(), size, mode='nearest')[:, 0].long()


def _share(weight: Tensor) -> Tensor | float:
    """Turn a mean over this process into its part of the mean over all processes.

    Each process divides by the weights of its own pixels, and DistributedDataParallel
    averages gradients, whatever those weights are.
    """
    if get_world_size() == 1:
        return 1.0
    total = weight.clone()
    all_reduce(total)
    return weight * get_world_size() / total.clamp_min(torch.finfo(total.dtype).tiny)


#: The entry of a checkpoint.
KEY = 'generative_retraining'


@dataclass
class RunFacts:
    """What must be the same when a run is resumed.

    Attributes:
        seed: seed of all draws.
        roles: class names and who is unseen.
        vectors: ``(K, E)`` class vectors on the CPU.
        schedule: the phases.
    """

    seed: int
    roles: ClassRoles
    vectors: Tensor
    schedule: PhaseSchedule


def state_of(retraining: Retraining, facts: RunFacts) -> dict[str, Any]:
    """Return plain values and tensors, readable with ``weights_only=True``."""
    graph = retraining.graph
    return {
        'phase': retraining.phase.value,
        'seed': facts.seed,
        'classes': list(facts.roles.names),
        'unseen': list(facts.roles.unseen),
        'vectors': vectors_hash(facts.vectors),
        'pixels': retraining.pixels.pixels.clone(),
        'generator': retraining.pixels.trainer.state_dict(),
        'graph': None if graph is None else graph.trainer.state_dict(),
    }


def restore(
    retraining: Retraining, facts: RunFacts, state: dict[str, Any], iteration: int
) -> None:
    """Put a state back."""
    where = 'the checkpoint that is resumed from'
    for key, ours in (
        ('classes', list(facts.roles.names)),
        ('unseen', list(facts.roles.unseen)),
        ('vectors', vectors_hash(facts.vectors)),
    ):
        if state[key] != ours:
            raise ValueError(
                f'GenerativeRetrainingHook: {where} was trained with other {key} than '
                f'this config has: {_short(state[key])} and {_short(ours)}'
            )
    last = facts.schedule.at(iteration - 1)
    if Phase(state['phase']) is not last:
        raise ValueError(
            f'GenerativeRetrainingHook: {where} was in phase {state["phase"]!r} after '
            f'iteration {iteration}, where segmentor_iters and generator_iters of this '
            f'config have {last.value!r}; phases that are over cannot be moved'
        )
    graph = retraining.graph
    if (graph is None) != (state['graph'] is None):
        raise ValueError(
            f'GenerativeRetrainingHook: {where} was trained '
            + ('with' if graph is None else 'without')
            + ' graph context, unlike this config'
        )
    try:
        retraining.pixels.trainer.load_state_dict(state['generator'])
        if graph is not None:
            graph.trainer.load_state_dict(state['graph'])
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f'GenerativeRetrainingHook: the generator of {where} does not fit this '
            f"config's: {error}"
        ) from error
    retraining.pixels.pixels.copy_(torch.as_tensor(state['pixels']))
    retraining.phase = last


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else f'{text[:200]}...'


class PhaseChanges:
    """Brings model, optimiser and averages of a run to its phases."""

    def __init__(
        self,
        segmentor: nn.Module,
        optimizer: torch.optim.Optimizer,
        hooks: Iterable[Hook],
        retraining: Retraining,
        facts: RunFacts,
        reset: str,
    ) -> None:
        self.segmentor = segmentor
        self.optimizer = optimizer
        self.averages = [hook for hook in hooks if isinstance(hook, EMAHook)]
        self.retraining = retraining
        self.facts = facts
        self.reset = reset
        self._frozen = False
        handle = optimizer.register_step_pre_hook(self._drop_gradients)
        self._undo: list[Callable[[], None]] = [handle.remove]

    def begin(self, phase: Phase) -> None:
        """Begin a phase; not called where a run is resumed within one."""
        self.enter(phase)
        if phase.trains_classifier:
            conv = self.retraining.head.conv_seg
            reset_classifier(conv, self.reset, self.facts.roles, self.facts.seed)
            for parameter in conv.parameters():
                # Momentum of what the parameter was before.
                self.optimizer.state.pop(parameter, None)
        for hook in self.averages:
            hook.ema_model.module.load_state_dict(hook.src_model.state_dict())

    def enter(self, phase: Phase) -> None:
        """Freeze what does not learn in a phase, and weigh the classes."""
        self.retraining.phase = phase
        if phase is Phase.SEGMENTOR or self._frozen:
            return
        self._frozen = True
        weights = self.retraining.weights
        weights.apply()
        thaw = freeze_all_but(self.segmentor, self.retraining.head.conv_seg)
        self._undo += [weights.remove, thaw]

    def undo(self) -> None:
        """Leave model and optimiser as they were."""
        while self._undo:
            self._undo.pop()()

    def _drop_gradients(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Keep decay and momentum from moving a classifier that does not learn."""
        if self.retraining.training and self.retraining.phase is Phase.GENERATOR:
            for group in optimizer.param_groups:
                for parameter in group['params']:
                    parameter.grad = None


def build_retraining(
    head: BaseDecodeHead,
    criterion: CrossEntropyLoss,
    facts: RunFacts,
    options: RetrainingOptions,
) -> Retraining:
    """Build generators, losses and optimisers where the head is."""
    device = head.conv_seg.weight.device
    vectors = facts.vectors.to(device)
    sizes = dict(embed_dim=vectors.shape[1], feature_dim=head.conv_seg.in_channels)

    def trainer(config: Mapping[str, Any]) -> GeneratorTrainer:
        generator = _build_generator(config, sizes, facts.seed).to(device)
        return GeneratorTrainer(
            generator,
            dict(options.generator_optimizer),
            each_loss=options.generator_step == 'class',
        )

    loss = MODELS.build(dict(options.loss))
    graph = None
    if options.graph is not None:
        rest = {'generator': dict(type='GraphContextGenerator'), **options.graph}
        rest.pop('generator_from', None)
        graph = GraphSynthesis(trainer(rest.pop('generator')), loss, vectors, **rest)
    pixels = PixelSynthesis(
        trainer(options.generator),
        loss,
        vectors,
        facts.roles,
        samples_per_class=options.samples_per_class,
        merge=options.merge,
    )
    return Retraining(
        head,
        facts.roles,
        pixels,
        ClassWeights(criterion, facts.roles, options.unseen_weight),
        graph=graph,
        layout=options.build_layout(),
        decide_on=options.decide_on,
    )


def _build_generator(
    config: Mapping[str, Any], sizes: Mapping[str, int], seed: int
) -> GMMNGenerator | GraphContextGenerator:
    """Build a generator on the CPU, the sizes filled in."""
    for key, size in sizes.items():
        if config.get(key, size) != size:
            raise ValueError(
                f'GenerativeRetrainingHook: {config["type"]}.{key} is {config[key]}, '
                f'but the class vectors have {sizes["embed_dim"]} numbers and conv_seg '
                f'reads {sizes["feature_dim"]} channels: leave {key} out'
            )
    # Their weights must not shift the random numbers of the segmentor.
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(reset_generator(seed).get_state())
        return MODELS.build({**config, **sizes})
