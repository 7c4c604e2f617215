"""Building the parts of a retraining from the options of its hook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import MODELS

from zs3_mmseg.models.generators import GMMNGenerator, GraphContextGenerator

from .classifier import ClassWeights
from .draws import reset_generator
from .generator_trainer import GeneratorTrainer
from .graph_synthesis import GraphSynthesis
from .options import RetrainingOptions
from .pixel_synthesis import PixelSynthesis
from .retraining import Retraining
from .state import RunFacts


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

    Raises:
        ValueError: if a generator's config gives sizes that class vectors and head do
            not have.
    """
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
