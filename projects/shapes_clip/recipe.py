"""The pre-training schedule in numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one kind of batch.

    Attributes:
        name: shown in the log.
        steps: optimiser steps.
        batch: pairs in a batch.
        mix: share of each pool (``Recipe.pools``) in a batch; they sum to 1.
        plain: captions name the classes of things and tell nothing else.
        patch_dropout: share of image patches left out in training
            (Li et al. 2023, "Scaling Language-Image Pre-training via Masking").
        grounds: share of the captions that tell only the grounds.
        things: share of the captions that tell only one of the things.
    """

    name: str
    steps: int
    batch: int
    mix: tuple[float, ...]
    plain: bool
    patch_dropout: float
    grounds: float = 0.0
    things: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """Everything the weights depend on, apart from code and library versions.

    Attributes:
        phases: trained one after another.
        peak_lr: largest learning rate of AdamW. It rises to it over ``warmup`` steps,
            falls as a cosine to ``anneal_lr`` at step ``fall_end``, and in the last
            phase straight to zero.
        anneal_lr: see ``peak_lr``.
        fall_end: see ``peak_lr``.
        warmup: steps of the rise.
        seed: of scenes, weights and batches.
        pools: subset and number of the scenes to draw from.
        mimetic: start self-attention of the image tower by
            :func:`~.attention_init.mimetic_attention`.
        word_loss: weight of :class:`~.word_loss.CaptionWordLoss` beside InfoNCE;
            0 is plain InfoNCE.
    """

    phases: tuple[Phase, ...] = (
        Phase('drawings', 150, 64, (1.0, 0.0, 0.0), True, 0.5),
        Phase('icons', 850, 64, (0.2, 0.8, 0.0), True, 0.5),
        Phase('scenes', 1300, 128, (0.0, 0.25, 0.75), False, 0.5, 0.15),
        Phase('details', 700, 128, (0.0, 0.15, 0.85), False, 0.3, 0.15),
        Phase('names', 2000, 128, (0.0, 0.1, 0.9), False, 0.4, 0.15, 0.25),
        Phase('anneal', 200, 96, (0.0, 0.1, 0.9), False, 0.0, 0.15, 0.25),
    )
    peak_lr: float = 1e-3
    anneal_lr: float = 3e-4
    fall_end: int = 2300
    warmup: int = 100
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip_grad: float = 1.0
    seed: int = 0
    pools: tuple[tuple[str, int], ...] = (
        ('clip_drawings', 12000),
        ('clip_icons', 12000),
        ('clip_scenes', 32000),
    )
    mimetic: bool = True
    word_loss: float = 1.0

    @property
    def steps(self) -> int:
        """Steps of all phases together."""
        return sum(phase.steps for phase in self.phases)

    @property
    def samples(self) -> int:
        """Pairs shown in all phases together."""
        return sum(phase.steps * phase.batch for phase in self.phases)

    def phase_at(self, step: int) -> Phase:
        """The phase that step number ``step`` (from 0) belongs to."""
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        raise ValueError(f'expected a step below {self.steps}')

    def learning_rate(self, step: int) -> float:
        """Learning rate of step number ``step`` (from 0)."""
        if step < self.warmup:
            return self.peak_lr * (step + 1) / self.warmup
        last = self.phases[-1].steps
        end = self.steps - last
        if step >= end:
            return self.anneal_lr * (1 - (step - end) / last)
        progress = min((step - self.warmup) / (self.fall_end - self.warmup), 1.0)
        fall = 0.5 * (1 + math.cos(math.pi * progress))
        return self.anneal_lr + (self.peak_lr - self.anneal_lr) * fall

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the log, the checkpoint and the model card."""
        return asdict(self)
