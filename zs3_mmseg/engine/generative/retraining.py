"""One iteration of retraining, between the features and the loss of a decode head."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmengine.dist import all_reduce, get_world_size
from mmseg.models.decode_heads.decode_head import BaseDecodeHead

from .classifier import ClassWeights
from .draws import KeyedDraws
from .graph_synthesis import GraphSynthesis
from .layouts import SyntheticLayout
from .pixel_synthesis import PixelSynthesis
from .roles import ClassRoles
from .schedule import Phase


class Retraining:
    """Generators, and what they do to a batch (the user of a ``ClassifierTap``).

    Args:
        head: the decode head.
        roles: who is unseen.
        pixels: generates features of pixels.
        weights: class weights of the head's loss.
        graph: generates features of regions, if wanted.
        layout: makes label maps with unseen classes; None: those of the data set hold
            unseen classes themselves.
        decide_on: where to look for unseen classes in an image: in ``'labels'``, or in
            labels ``'downsampled'`` to the features, as the official code does. There
            an object that vanishes on the way stays in the loss with its real
            features.
    """

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
        """Let generators learn from, and write into, features ``(N, F, h, w)``.

        Raises:
            FloatingPointError: if a feature is NaN or infinite.
        """
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
