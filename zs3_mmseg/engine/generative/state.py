"""What a checkpoint holds of a retraining, and whether it fits this run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .class_vectors import vectors_hash
from .retraining import Retraining
from .roles import ClassRoles
from .schedule import Phase, PhaseSchedule

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
    """Put a state back.

    Args:
        retraining: built as in the run that is resumed.
        facts: of this run.
        state: of the checkpoint.
        iteration: the iteration that comes next.

    Raises:
        ValueError: if classes, class vectors, generators or phases have changed.
    """
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
