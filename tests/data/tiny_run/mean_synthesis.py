"""A synthesiser in one file: class means and noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmengine.dist import all_reduce
from mmseg.registry import MODELS

from zs3_mmseg.engine.generative import KeyedDraws, Synthesiser, SynthesisFacts


@MODELS.register_module()
class MeanSynthesis(Synthesiser):
    """Unseen classes look like a mixture of the mean seen ones, by their vectors."""

    def __init__(self, noise: float = 0.1) -> None:
        self.noise = noise

    def prepare(self, facts: SynthesisFacts) -> None:
        self.facts = facts
        size = len(facts.split.classes), facts.feature_dim + 1
        # Sums of the features of each class, and how many they were.
        self.sums, self.new = facts.vectors.new_zeros(2, *size)

    def learn(
        self, features: Tensor, labels: Tensor, image: int, draws: KeyedDraws
    ) -> None:
        for label in self.facts.split.seen_indices:
            rows = features[:, labels == label].T
            self.new[label, :-1] += rows.sum(dim=0)
            self.new[label, -1] += len(rows)

    def generate(
        self, features: Tensor, labels: Tensor, image: int, draws: KeyedDraws
    ) -> Tensor:
        seen = list(self.facts.split.seen_indices)
        means = self.sums[seen, :-1] / self.sums[seen, -1:].clamp_min(1)
        merged = features.clone()
        for label in self.facts.split.unseen_indices:
            mask = labels == label
            alike = self.facts.vectors[seen] @ self.facts.vectors[label]
            noise = draws.noise(image, label, int(mask.sum()), len(features)) - 0.5
            merged[:, mask] = (alike.softmax(dim=0) @ means + self.noise * noise).T
        return merged

    def finish(self, learning: bool) -> dict[str, Tensor]:
        all_reduce(self.new)
        self.sums += self.new
        self.new.zero_()
        return dict(pixels=self.sums[:, -1].sum())

    def state_dict(self) -> dict[str, Any]:
        return dict(sums=self.sums)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sums.copy_(state['sums'])
