"""Features of pixels: teaching the generator, and writing generated ones into maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mmengine.dist import all_reduce

from .draws import KeyedDraws
from .generator_trainer import GeneratorTrainer
from .roles import ClassRoles

# Pixels in one forward pass of the generator.
_CHUNK = 16384


class PixelSynthesis:
    """Generates features class by class (arXiv 1906.00817, 3.2 and 3.3).

    Args:
        trainer: the generator, ``(N, E), (N, Z) -> (N, F)``.
        criterion: compares ``(M, F)`` generated with ``(M, F)`` real features.
        vectors: ``(K, E)`` class vectors.
        roles: who is unseen.
        samples_per_class: pixels of a class of an image that a loss compares, drawn
            with replacement; memory is bounded by it.
        merge: ``'image'``: an image with unseen classes is generated as a whole, as in
            the official code, with zeros at ignored pixels; ``'pixel'``: only its
            unseen pixels are.
    """

    def __init__(
        self,
        trainer: GeneratorTrainer,
        criterion: nn.Module,
        vectors: Tensor,
        roles: ClassRoles,
        *,
        samples_per_class: int = 128,
        merge: Literal['image', 'pixel'] = 'image',
    ) -> None:
        self.trainer = trainer
        self.criterion = criterion
        self.vectors = vectors
        self.roles = roles
        self.samples_per_class = samples_per_class
        self.merge = merge
        #: How many pixels of each class were learned from, or generated if unseen.
        self.pixels = torch.zeros(len(roles.names), dtype=torch.long)
        self._counted = torch.zeros_like(self.pixels)

    def learn(
        self, features: Tensor, labels: Tensor, image: int, draws: KeyedDraws
    ) -> None:
        """Teach the generator every class of an image without unseen classes.

        Args:
            features: ``(F, h, w)`` real features, float32.
            labels: ``(h, w)``.
            image: number of the image in the batch.
            draws: where to draw from.
        """
        rows, flat = features.flatten(1).T, labels.flatten()  # (h * w, F), (h * w,)
        for label in self.roles.present(labels):
            real = rows[flat == label]
            self._counted[label] += len(real)
            chosen = draws.rows(image, label, len(real), self.samples_per_class)
            noise = self._noise(image, label, len(real), draws)[chosen]
            vectors = self.vectors[label].expand(len(chosen), -1)
            with torch.enable_grad(), draws.dropout(image, label):
                generated = self.trainer.generator(vectors, noise)
                loss = self.criterion(generated, real[chosen])
                self.trainer.add(loss)

    @torch.no_grad()
    def generate(
        self, features: Tensor, labels: Tensor, image: int, draws: KeyedDraws
    ) -> Tensor:
        """Return the feature map of an image with unseen classes.

        Args:
            features: ``(F, h, w)`` real features, float32.
            labels: ``(h, w)``, with unseen classes.
            image: number of the image in the batch.
            draws: where to draw from.

        Returns:
            ``(F, h, w)``, a new tensor.
        """
        whole = self.merge == 'image'
        merged = torch.zeros_like(features) if whole else features.clone()
        for label in self.roles.present(labels):
            if not whole and label not in self.roles.unseen:
                continue
            mask = labels == label
            count = int(mask.sum())
            if label in self.roles.unseen:
                self._counted[label] += count
            noise = self._noise(image, label, count, draws)
            with draws.dropout(image, label):
                generated = [
                    self.trainer.generator(
                        self.vectors[label].expand(len(part), -1), part
                    )
                    for part in noise.split(_CHUNK)
                ]
            merged[:, mask] = torch.cat(generated).T
        return merged

    def count(self) -> None:
        """Add up the pixels of an iteration over all processes; each one calls this."""
        counted = self._counted.to(self.vectors.device)
        all_reduce(counted)
        self.pixels += counted.cpu()
        self._counted.zero_()

    def unmet(self, labels: Sequence[int]) -> list[str]:
        """Return those classes of which there was no pixel."""
        return [self.roles.names[label] for label in labels if not self.pixels[label]]

    def _noise(self, image: int, label: int, count: int, draws: KeyedDraws) -> Tensor:
        return draws.noise(image, label, count, self.trainer.generator.noise_dim)
