"""Building the parts of a retraining from the options of its hook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import MODELS

from .classifier import ClassWeights
from .draws import reset_generator
from .generator_trainer import GeneratorTrainer
from .graph_synthesis import GraphSynthesis
from .layouts import SyntheticLayout
from .pixel_synthesis import PixelSynthesis
from .retraining import Retraining
from .state import RunFacts


@dataclass(frozen=True)
class RetrainingOptions:
    """Options of ``GenerativeRetrainingHook`` that its parts are built from."""

    generator: Mapping[str, Any]
    loss: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    graph: Mapping[str, Any] | None
    each_loss: bool
    samples_per_class: int
    unseen_weight: float
    merge: Literal['image', 'pixel']
    decide_on: Literal['labels', 'downsampled']
    layout: SyntheticLayout | None


def build_retraining(
    head: BaseDecodeHead,
    criterion: CrossEntropyLoss,
    facts: RunFacts,
    options: RetrainingOptions,
) -> Retraining:
    """Build generators, losses and optimisers where the head is.

    Args:
        head: the decode head to retrain.
        criterion: its cross entropy.
        facts: seed, classes and class vectors of the run.
        options: of the hook.
    """
    device = head.conv_seg.weight.device
    vectors = facts.vectors.to(device)
    sizes = dict(embed_dim=vectors.shape[1], feature_dim=head.conv_seg.in_channels)

    def trainer(config: Mapping[str, Any]) -> GeneratorTrainer:
        # Their weights must not shift the random numbers of the segmentor.
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(reset_generator(facts.seed).get_state())
            generator = MODELS.build({**sizes, **config}).to(device)
        return GeneratorTrainer(
            generator, dict(options.optimizer), each_loss=options.each_loss
        )

    loss = MODELS.build(dict(options.loss))
    graph = None
    if options.graph is not None:
        rest = {'generator': dict(type='GraphContextGenerator'), **options.graph}
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
        layout=options.layout,
        decide_on=options.decide_on,
    )
