"""Synthesisers: what makes the features that a classifier has never seen."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmengine.dist import all_reduce, broadcast, get_world_size
from mmengine.logging import MMLogger
from mmseg.registry import MODELS, OPTIMIZERS

from zs3_mmseg.datasets.splits import ZeroShotSplit
from zs3_mmseg.models.generators import LabelGraph, label_graph
from zs3_mmseg.utils.checkpoint import CheckpointError, load_into, safe_load
from zs3_mmseg.utils.names import choose

from .classifier import ClassWeights, share_of_processes
from .compatibility import KEY, states_by_type
from .plan import (
    WHOLE_IMAGE,
    KeyedDraws,
    present_classes,
    reset_generator,
)


@dataclass(frozen=True)
class SynthesisFacts:
    """What a synthesiser may know of the run that it is part of.

    Attributes:
        split: all ``K`` classes in label order, and who of them is unseen.
        vectors: ``(K, E)`` float32 class vectors, on the device of the features.
        feature_dim: channels ``F`` of a feature.
        seed: seed of the run; :class:`KeyedDraws` follow from it.
    """

    split: ZeroShotSplit
    vectors: Tensor
    feature_dim: int
    seed: int


class Synthesiser(ABC):
    """Learns from real features how features look, and makes those of unseen classes.

    A component of ``GenerativeRetrainingHook(synthesisers=[dict(type=...), ...])``,
    registered in mmseg's ``MODELS``. Its constructor takes the options of its config
    and refuses wrong ones; it neither builds networks nor draws numbers. It is no part
    of the segmentor, whose parameters no synthesiser may change.

    **What is called when.** :meth:`prepare` once, before the first iteration, then
    either :meth:`start` (a new run) or :meth:`load_state_dict` (a resumed one). In each
    iteration after the segmentor's own, for image 0, 1, ... of the batch and in each
    for all synthesisers in their order:

    ===============  =====================  =========================================
    phase            image without unseen   image with unseen classes
                     classes
    ===============  =====================  =========================================
    ``GENERATOR``    ``learn``              nothing
    ``INTERLEAVED``  ``learn``, ``real``    ``generate``
    ``CLASSIFIER``   ``real``               ``generate``
    ===============  =====================  =========================================

    and after the last image :meth:`finish`; in the last two phases :meth:`loss` after
    the head has computed its own. Whether an image has unseen classes is the hook's
    decision (``setting``, ``layout``, ``decide_on``): the label maps have them already.

    **Shapes.** Features are frozen: ``(F, h, w)`` float32 as they enter the classifier,
    without gradients, outside of autocast. They must not be written to. Labels are
    ``(h, w)`` long, indices into ``split.classes``, or larger for ignored pixels. Calls
    come under ``torch.no_grad``; turn gradients on for a step of your own.

    **Processes.** Each one meets the images of its own rank, so the number of calls
    of ``learn``, ``real`` and ``generate`` differs between ranks: collective operations
    are legal in ``prepare``, ``finish`` and ``loss`` alone, which all ranks call. Under
    several processes all must hold the same weights after ``finish``: average gradients
    and take one step there (:class:`GeneratorTrainer` does).

    **Random numbers.** Draw from ``draws``, keyed by seed, iteration, sample of the
    global batch (``image``) and class, or wrap what draws by itself, such as dropout,
    in ``draws.dropout``. ``prepare`` draws weights from
    :func:`~zs3_mmseg.engine.generative.plan.reset_generator`. Then a resumed run equals
    an uninterrupted one, several processes draw what one would, and the segmentor's
    random numbers stay where they are. The global generators must not be used.

    **Checkpoints.** :meth:`state_dict` holds all that later calls depend on but for the
    options: weights, optimisers, statistics; tensors, numbers, strings, lists and dicts
    of these only, which ``weights_only=True`` reads. Classes, class vectors, seed and
    phase are saved and compared by the hook.
    """

    @abstractmethod
    def prepare(self, facts: SynthesisFacts) -> None:
        """Build what the options describe, on the device of ``facts.vectors``.

        Args:
            facts: classes, class vectors and sizes of the run.

        Raises:
            ValueError: if the options do not fit them.
        """

    def start(self) -> None:  # noqa: B027
        """Begin a run that is not resumed, e.g. load the files that options name."""

    def learn(  # noqa: B027
        self, features: Tensor, labels: Tensor, image: int, draws: KeyedDraws
    ) -> None:
        """Learn from an image without unseen classes.

        Args:
            features: ``(F, h, w)`` real features.
            labels: ``(h, w)``.
            image: number of the image in the batch of this process.
            draws: where to draw from.
        """

    def real(self, features: Tensor, labels: Tensor, image: int) -> None:  # noqa: B027
        """Meet an image that goes to the classifier as it is.

        Args:
            features: ``(F, h, w)`` real features.
            labels: ``(h, w)``, without unseen classes.
            image: number of the image in the batch of this process.
        """

    def generate(
        self, features: Tensor, labels: Tensor, image: int, draws: KeyedDraws
    ) -> Tensor:
        """Return the features that the classifier gets for an image.

        Args:
            features: ``(F, h, w)``: the real ones, or what the synthesiser before this
                one in the list made of them.
            labels: ``(h, w)``, with unseen classes.
            image: number of the image in the batch of this process.
            draws: where to draw from.

        Returns:
            ``(F, h, w)``: a new tensor, or ``features`` if they are to stay.
        """
        return features

    def finish(self, learning: bool) -> dict[str, Tensor]:
        """End an iteration, e.g. with a step; all processes call this once.

        Args:
            learning: whether this iteration's phase had ``learn`` in it.

        Returns:
            scalars to log by name, equal in all processes. Names without ``loss``:
            those are added up to what the segmentor learns from.
        """
        return {}

    def loss(self, conv: nn.Conv2d, weights: ClassWeights) -> dict[str, Tensor]:
        """Return what the classifier learns from beside the features of the batch.

        All processes call this once an iteration; gradients are on. Under several
        processes the hook's wrapper averages gradients.

        Args:
            conv: the classifier, ``(N, F, h, w)`` to ``(N, K, h, w)``.
            weights: weights of the classes in the cross entropy, and what is ignored.

        Returns:
            scalars by name; each name has ``loss`` in it and is no other's.
        """
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs; tensors are those in use or copies."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` returned; :meth:`prepare` was called.

        Args:
            state: of a checkpoint, on any device.

        Raises:
            ValueError: or a RuntimeError, if the state does not fit the options.
        """

    def missed(self) -> list[str]:
        """Return what never happened in the whole run and should have, to be logged."""
        return []


class GeneratorTrainer:
    """Steps of a generator, which is no part of the segmentor.

    Under several processes the gradients are summed over all of them, which then take
    the same step. How many losses a process has depends on its images, so there is one
    step in each iteration then; with ``each_loss`` there is one after each loss, as in
    the official code, in a single process only.
    """

    def __init__(
        self, generator: nn.Module, optimizer: dict, *, each_loss: bool = False
    ) -> None:
        if each_loss and get_world_size() > 1:
            raise ValueError(
                "generator_step='class' takes a number of steps that depends on the "
                "images of a process; use generator_step='iteration' with several"
            )
        self.generator = generator.train()
        self.parameters = list(generator.parameters())
        self.optimizer = OPTIMIZERS.build({**optimizer, 'params': self.parameters})
        self.each_loss = each_loss
        self._losses: list[Tensor] = []
        for parameter in self.parameters:
            broadcast(parameter.data)

    def add(self, loss: Tensor) -> None:
        """Take the gradients of a loss, and a step if each loss has one."""
        loss.backward()
        self._losses.append(loss.detach())
        if self.each_loss:
            self._step()

    def finish(self) -> Tensor | None:
        """End an iteration; every process calls this once."""
        losses = torch.stack(self._losses) if self._losses else torch.zeros(0)
        device = self.parameters[0].device
        sums = torch.tensor([float(len(losses)), float(losses.sum())], device=device)
        all_reduce(sums)
        self._losses = []
        count, total = sums
        if not count:
            return None
        if not self.each_loss:
            self._average(count)
            self._step()
        return total / count

    def _average(self, count: Tensor) -> None:
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            all_reduce(parameter.grad)
            parameter.grad /= count

    def _step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the weights and the optimiser's state."""
        return {
            'weights': self.generator.state_dict(),
            'optimizer': self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` returned."""
        self.generator.load_state_dict(state['weights'])
        self.optimizer.load_state_dict(state['optimizer'])


class TrainedSynthesiser(Synthesiser):
    """A synthesiser with one generator, which learns by one loss.

    Args:
        loss: config of the loss between ``(M, F)`` generated and real features.
    """

    #: What the mean of the losses is called in logs.
    log_name: str

    def __init__(
        self,
        generator: Mapping[str, Any],
        *,
        generator_from: str | None = None,
        loss: Mapping[str, Any] | None = None,
        generator_optimizer: Mapping[str, Any] | None = None,
        generator_step: Literal['iteration', 'class'] = 'iteration',
    ) -> None:
        choose('generator_step', generator_step, ('iteration', 'class'))
        self.generator_config = generator
        self.generator_from = generator_from
        self.criterion = MODELS.build(dict(loss or dict(type='MMDLoss')))
        self.optimizer = generator_optimizer or dict(type='Adam', lr=2e-4)
        self.generator_step = generator_step

    def prepare(self, facts: SynthesisFacts) -> None:
        """Build generator and optimiser; see the base class."""
        self.facts = facts
        self.trainer = GeneratorTrainer(
            _build_generator(self.generator_config, facts).to(facts.vectors.device),
            dict(self.optimizer),
            each_loss=self.generator_step == 'class',
        )

    def start(self) -> None:
        """Read the generator's weights from ``generator_from``, if it is set."""
        if self.generator_from is None:
            return
        name, path = type(self).__name__, self.generator_from
        content = safe_load(path)
        if KEY in content:
            states = states_by_type(content[KEY])
            if name not in states:
                raise CheckpointError(
                    f'{name}.generator_from: {path} is of a run without {name}'
                )
            content = states[name]['weights']
        generator = self.trainer.generator
        report = load_into(generator, content, allow_missing=True, what=path)
        if not report.clean:
            raise CheckpointError(
                f'{name}.generator_from: {path} does not hold a '
                f'{type(generator).__name__} of this config, whose sizes follow from '
                f'class vectors, conv_seg and the options of {name}: {report}'
            )
        MMLogger.get_current_instance().log(
            logging.INFO, f'{name}: generator_from: {path}.'
        )

    def finish(self, learning: bool) -> dict[str, Tensor]:
        """Take the step of an iteration."""
        mean = self.trainer.finish() if learning else None
        return {} if mean is None else {self.log_name: mean}

    def state_dict(self) -> dict[str, Any]:
        """Return ``weights`` and ``optimizer`` of the generator."""
        return self.trainer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` returned."""
        self.trainer.load_state_dict(state)

    def _noise(self, image: int, label: int, count: int, draws: KeyedDraws) -> Tensor:
        dim = self.trainer.generator.noise_dim
        return draws.noise(image, label, count, dim)  # type: ignore[arg-type]


def _build_generator(config: Mapping[str, Any], facts: SynthesisFacts) -> nn.Module:
    """Build a generator on the CPU, the sizes filled in."""
    sizes = dict(embed_dim=facts.vectors.shape[1], feature_dim=facts.feature_dim)
    for key, size in sizes.items():
        if config.get(key, size) != size:
            raise ValueError(
                f'GenerativeRetrainingHook: {config["type"]}.{key} is {config[key]}, '
                f'but the class vectors have {sizes["embed_dim"]} numbers and conv_seg '
                f'reads {sizes["feature_dim"]} channels: leave {key} out'
            )
    # Their weights must not shift the random numbers of the segmentor.
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(reset_generator(facts.seed).get_state())
        return MODELS.build({**config, **sizes})


# Pixels in one forward pass of the generator.
_CHUNK = 16384


@MODELS.register_module()
class PixelSynthesis(TrainedSynthesiser):
    """Generates features pixel by pixel, class by class (arXiv 1906.00817, 3.2, 3.3).

    Learns every class of an image without unseen classes: one loss for each, between
    features generated from the class's vector and the real ones.

    Args:
        generator: config of the generator, ``(N, E), (N, Z) -> (N, F)``; sizes are
            filled in.
        samples_per_class: pixels of a class of an image that a loss compares, drawn
            with replacement; memory is bounded by it.
        merge: ``'image'``: an image with unseen classes is generated as a whole, as in
            the official code, with zeros at ignored pixels; ``'pixel'``: only its
            unseen pixels are.
        generator_from, loss, generator_optimizer, generator_step: see
            ``GenerativeRetrainingHook``.

    Raises:
        ValueError: if an option is none of its choices or ``samples_per_class < 1``.
    """

    log_name = 'mmd'

    def __init__(
        self,
        generator: Mapping[str, Any] | None = None,
        *,
        samples_per_class: int = 128,
        merge: Literal['image', 'pixel'] = 'image',
        **training: Any,
    ) -> None:
        super().__init__(generator or dict(type='GMMNGenerator'), **training)
        choose('merge', merge, ('image', 'pixel'))
        if samples_per_class < 1:
            raise ValueError(
                'GenerativeRetrainingHook needs samples_per_class >= 1, got '
                f'{samples_per_class}'
            )
        self.samples_per_class = samples_per_class
        self.merge = merge

    def prepare(self, facts: SynthesisFacts) -> None:
        """Build the generator; see the base class."""
        super().prepare(facts)
        #: How many pixels of each class were learned from, or generated if unseen.
        self.pixels = torch.zeros(len(facts.split.classes), dtype=torch.long)
        self._counted = torch.zeros_like(self.pixels)

    def learn(
        self, features: Tensor, labels: Tensor, image: int, draws: KeyedDraws
    ) -> None:
        """Teach the generator every class of an image without unseen classes."""
        rows, flat = features.flatten(1).T, labels.flatten()  # (h * w, F), (h * w,)
        for label in present_classes(labels, self.facts.split):
            real = rows[flat == label]
            self._counted[label] += len(real)
            chosen = draws.rows(image, label, len(real), self.samples_per_class)
            noise = self._noise(image, label, len(real), draws)[chosen]
            vectors = self.facts.vectors[label].expand(len(chosen), -1)
            with torch.enable_grad(), draws.dropout(image, label):
                generated = self.trainer.generator(vectors, noise)
                loss = self.criterion(generated, real[chosen])
                self.trainer.add(loss)

    def generate(
        self, features: Tensor, labels: Tensor, image: int, draws: KeyedDraws
    ) -> Tensor:
        """Return a map with generated features, ``(F, h, w)``."""
        whole = self.merge == 'image'
        merged = torch.zeros_like(features) if whole else features.clone()
        for label in present_classes(labels, self.facts.split):
            unseen = label in self.facts.split.unseen_indices
            if not (whole or unseen):
                continue
            mask = labels == label
            count = int(mask.sum())
            if unseen:
                self._counted[label] += count
            noise = self._noise(image, label, count, draws)
            vector = self.facts.vectors[label]
            with draws.dropout(image, label):
                generated = [
                    self.trainer.generator(vector.expand(len(part), -1), part)
                    for part in noise.split(_CHUNK)
                ]
            merged[:, mask] = torch.cat(generated).T
        return merged

    def finish(self, learning: bool) -> dict[str, Tensor]:
        """Take a step, and add the pixels up over all processes."""
        logs = super().finish(learning)
        counted = self._counted.to(self.facts.vectors.device)
        all_reduce(counted)
        self.pixels += counted.cpu()
        self._counted.zero_()
        return logs

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state and ``pixels``."""
        return {**super().state_dict(), 'pixels': self.pixels.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self.pixels.copy_(torch.as_tensor(state['pixels']))

    def missed(self) -> list[str]:
        """Name the classes of which there was no pixel."""
        split = self.facts.split
        return [
            f'{what} {", ".join(names)}'
            for labels, what in (
                (split.seen_indices, 'the generator met no pixel of the seen classes'),
                (split.unseen_indices, 'no pixel was generated of the unseen classes'),
            )
            if (names := [split.classes[i] for i in labels if not self.pixels[i]])
        ]


@MODELS.register_module()
class GraphSynthesis(TrainedSynthesiser):
    """Generates one feature for each region of a label map (arXiv 1906.00817, 3.4).

    The maps of the batch stay as they are; the classifier learns from the nodes beside
    them, by a loss of its own: the weighted cross entropy over all nodes of the batch.
    As in the official code, a region's real feature is that of its first pixel in
    raster order, regions of ignored pixels are nodes with the vector of class 0, and
    one loss compares all nodes of an image. Images of a single region are left out.

    Args:
        generator: config of the generator, ``(N, E), (N, Z), (N, N) -> (N, F)``; sizes
            are filled in.
        loss_weight: weight of the cross entropy over nodes.
        generator_from, loss, generator_optimizer, generator_step: see
            ``GenerativeRetrainingHook``.
    """

    log_name = 'mmd_graph'

    def __init__(
        self,
        generator: Mapping[str, Any] | None = None,
        *,
        loss_weight: float = 0.1,
        **training: Any,
    ) -> None:
        super().__init__(generator or dict(type='GraphContextGenerator'), **training)
        self.loss_weight = loss_weight
        #: Features ``(n, F)`` and labels ``(n,)`` of the nodes of each image.
        self._nodes: list[tuple[Tensor, Tensor]] = []
        self._last: tuple[Tensor, LabelGraph] | None = None

    def learn(
        self, features: Tensor, labels: Tensor, image: int, draws: KeyedDraws
    ) -> None:
        """Teach the generator all nodes of an image without unseen classes."""
        graph = self._graph(labels)
        if len(graph) < 2:
            return
        with torch.enable_grad():
            generated = self._generate_nodes(graph, image, draws)
            real = features.flatten(1)[:, graph.first_pixels].T
            self.trainer.add(self.criterion(generated, real))

    def real(self, features: Tensor, labels: Tensor, image: int) -> None:
        """Keep the nodes of an image with real features."""
        graph = self._graph(labels)
        if len(graph) > 1:
            real = features.flatten(1)[:, graph.first_pixels].T
            self._nodes.append((real, graph.labels))

    def generate(
        self, features: Tensor, labels: Tensor, image: int, draws: KeyedDraws
    ) -> Tensor:
        """Keep generated nodes of an image; its map stays."""
        graph = self._graph(labels)
        if len(graph) > 1:
            generated = self._generate_nodes(graph, image, draws)
            self._nodes.append((generated, graph.labels))
        return features

    def _graph(self, labels: Tensor) -> LabelGraph:
        # An image is often met twice in a row, to learn from it and to keep its nodes.
        if self._last is None or self._last[0] is not labels:
            self._last = labels, label_graph(labels)
        return self._last[1]

    def _generate_nodes(
        self, graph: LabelGraph, image: int, draws: KeyedDraws
    ) -> Tensor:
        is_class = graph.labels < len(self.facts.vectors)
        vectors = self.facts.vectors[graph.labels * is_class]
        noise = self._noise(image, WHOLE_IMAGE, len(graph), draws)
        with draws.dropout(image, WHOLE_IMAGE):
            return self.trainer.generator(vectors, noise, graph.adjacency)

    def loss(self, conv: nn.Conv2d, weights: ClassWeights) -> dict[str, Tensor]:
        """Return the cross entropy over all nodes of the batch, without upsampling."""
        none = conv.weight.new_zeros(0, conv.in_channels)
        no_labels = torch.zeros(0, dtype=torch.long, device=none.device)
        features = torch.cat([none, *(node[0] for node in self._nodes)])
        labels = torch.cat([no_labels, *(node[1] for node in self._nodes)])
        self._nodes = []
        logits = conv(features.to(conv.weight.dtype)[:, :, None, None]).flatten(1)
        total = F.cross_entropy(
            logits.float(),
            labels,
            weights.weights.to(labels.device),
            ignore_index=weights.ignore_index,
            reduction='sum',
        )
        weight = weights.total(labels)
        mean = total / weight.clamp_min(torch.finfo(weight.dtype).tiny)
        share = share_of_processes(weight)
        return {'loss_graph': self.loss_weight * (mean * share)}
