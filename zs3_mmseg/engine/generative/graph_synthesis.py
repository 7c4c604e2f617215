"""Features of whole regions: the graph context of ZS3Net."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zs3_mmseg.models.generators import label_graph

from .draws import WHOLE_IMAGE, KeyedDraws
from .generator_trainer import GeneratorTrainer


class GraphSynthesis:
    """Generates one feature for each region of a label map (arXiv 1906.00817, 3.4).

    As in the official code, a region's real feature is that of its first pixel in
    raster order, regions of ignored pixels are nodes with the vector of class 0, and
    one loss compares all nodes of an image. Images of a single region are left out.

    Args:
        trainer: the generator, ``(N, E), (N, Z), (N, N) -> (N, F)``.
        criterion: compares ``(N, F)`` generated with ``(N, F)`` real features.
        vectors: ``(K, E)`` class vectors.
        loss_weight: weight of the cross entropy over nodes.
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
            labels: ``(h, w)``.
            image: number of the image in the batch.
            draws: where to draw from.
            has_unseen: whether the image has unseen classes; its nodes are generated.
            learn: whether the generator learns from images without.

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
