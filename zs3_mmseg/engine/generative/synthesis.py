"""Features of whole regions: the graph context of ZS3Net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmengine.dist import all_reduce, broadcast, get_world_size
from mmseg.registry import OPTIMIZERS

from zs3_mmseg.models.generators import (
    GMMNGenerator,
    GraphContextGenerator,
    label_graph,
)

from .plan import WHOLE_IMAGE, ClassRoles, KeyedDraws


class GeneratorTrainer:
    """Steps of a generator, which is no part of the segmentor.

    Under several processes the gradients are summed over all of them, which then take
    the same step. How many losses a process has depends on its images, so there is one
    step in each iteration then.
    """

    def __init__(
        self,
        generator: GMMNGenerator | GraphContextGenerator,
        optimizer: dict,
        *,
        each_loss: bool = False,
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

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` returned."""
        self.generator.load_state_dict(state['weights'])
        self.optimizer.load_state_dict(state['optimizer'])


# Pixels in one forward pass of the generator.
_CHUNK = 16384


class PixelSynthesis:
    """Generates features class by class (arXiv 1906.00817, 3.2 and 3.3).

    Args:
        trainer: the generator, ``(N, E), (N, Z) -> (N, F)``.
        criterion: compares ``(M, F)`` generated with ``(M, F)`` real features.
        vectors: ``(K, E)`` class vectors.
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


class GraphSynthesis:
    """Generates one feature for each region of a label map (arXiv 1906.00817, 3.4).

    As in the official code, a region's real feature is that of its first pixel in
    raster order, regions of ignored pixels are nodes with the vector of class 0, and
    one loss compares all nodes of an image. Images of a single region are left out.

    Args:
        trainer: the generator, ``(N, E), (N, Z), (N, N) -> (N, F)``.
        criterion: compares ``(N, F)`` generated with ``(N, F)`` real features.
        vectors: ``(K, E)`` class vectors.
    """

    def __init__(
        self,
        trainer: GeneratorTrainer,
        criterion: nn.Module,
        vectors: Tensor,
        *,
        loss_weight: float = 0.1,
    ) -> None:
        self.trainer = trainer
        self.criterion = criterion
        self.vectors = vectors
        self.loss_weight = loss_weight

    def __call__(
        self,
        features: Tensor,
        labels: Tensor,
        image: int,
        draws: KeyedDraws,
        *,
        has_unseen: bool,
        learn: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return the nodes of an image, and teach the generator if they are real.

        Args:
            features: ``(F, h, w)`` real features, float32.

        Returns:
            features ``(N, F)`` and labels ``(N,)`` of the nodes.
        """
        graph = label_graph(labels)
        if len(graph) < 2:
            return features.new_zeros(0, len(features)), labels.new_zeros(0)
        real = features.flatten(1)[:, graph.first_pixels].T
        if not (has_unseen or learn):
            return real, graph.labels
        is_class = graph.labels < len(self.vectors)
        vectors = self.vectors[graph.labels * is_class]
        generator = self.trainer.generator
        noise = draws.noise(image, WHOLE_IMAGE, len(graph), generator.noise_dim)
        with torch.set_grad_enabled(not has_unseen), draws.dropout(image, WHOLE_IMAGE):
            generated = generator(vectors, noise, graph.adjacency)
            if has_unseen:
                return generated, graph.labels
            self.trainer.add(self.criterion(generated, real))
        return real, graph.labels
