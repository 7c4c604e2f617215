"""Regions of images against words of captions."""

from __future__ import annotations

import torch
import torch.distributed.nn.functional
import torch.nn.functional as F
from torch import Tensor, nn

from mmengine.dist import all_reduce, get_world_size
from mmseg.registry import MODELS

__all__ = ['GroundingLoss']


@MODELS.register_module()
class GroundingLoss(nn.Module):
    r"""Contrast of images and captions by regions and words (OpenSeg, section 3.2).

    With the cosine :math:`c_{rw}` of the embedding of region :math:`r` and word
    :math:`w`, an image :math:`I` with regions :math:`R` and a caption :math:`C`, a set
    of words, are as alike as

    .. math:: \langle I, C \rangle = \frac{1}{|C|} \sum_{w \in C} \sum_{r \in R}
        \mathrm{softmax}_{r \in R}(c_{rw} / \tau_r)\, c_{rw},

    so that each word looks for the few regions that it may mean. Over the :math:`B`
    pairs of a batch, all others of which are negatives (arXiv 2112.12143),

    .. math:: L = -\frac{1}{B} \sum_{i} \log \frac{\exp(\langle I_i, C_i\rangle / \tau)}
        {\sum_j \exp(\langle I_i, C_j\rangle / \tau)}
        + \log \frac{\exp(\langle I_i, C_i\rangle / \tau)}
        {\sum_j \exp(\langle I_j, C_i\rangle / \tau)}.

    Images whose caption holds no known word take no part. With several processes the
    batch is that of all of them, and gradients are those of one process with all
    images, once ``DistributedDataParallel`` has averaged them.

    Args:
        region_temperature: :math:`\tau_r`, > 0.
        temperature: :math:`\tau`, > 0.

    Raises:
        ValueError: if a temperature is not positive.
    """

    def __init__(
        self, *, region_temperature: float = 0.1, temperature: float = 0.1
    ) -> None:
        super().__init__()
        if not min(region_temperature, temperature) > 0:
            raise ValueError(
                'GroundingLoss needs temperatures > 0, got '
                f'{region_temperature=} and {temperature=}'
            )
        self.region_temperature = region_temperature
        self.temperature = temperature

    def forward(self, regions: Tensor, words: Tensor, said: Tensor) -> Tensor:
        """Return the loss of a batch.

        Args:
            regions: embeddings ``(N, M, D)`` of regions, of any length; rows of zeros
                stand for no region.
            words: embeddings ``(W, D)`` of words, of any length; the same in all
                processes.
            said: ``(N, W)`` bool, which words a caption holds.
        """
        regions, said = _of_all(_filled(regions)), _of_all(said)
        told = said.any(dim=1)
        if not told.any():
            return regions.sum() * 0
        used = said.any(dim=0)
        with torch.autocast(regions.device.type, enabled=False):
            return self._loss(
                regions[told].float(), words[used].float(), said[told][:, used].float()
            )

    def _loss(self, regions: Tensor, words: Tensor, said: Tensor) -> Tensor:
        cosines = F.normalize(regions, dim=-1) @ F.normalize(words, dim=-1).T
        there = regions.any(dim=2, keepdim=True)
        # Finite, as an image may have no region at all.
        sought = (cosines / self.region_temperature).masked_fill(~there, -1e4)
        meant = sought.softmax(dim=1)
        alike = (meant * cosines).sum(dim=1)  # (B, W)
        pairs = alike @ (said / said.sum(dim=1, keepdim=True)).T  # image by caption
        own = torch.arange(len(pairs), device=pairs.device)
        logits = pairs / self.temperature
        return F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)


def _filled(regions: Tensor) -> Tensor:
    """Fill up regions ``(N, M, D)`` to the most that a process has."""
    most = torch.tensor(regions.shape[1], device=regions.device)
    all_reduce(most, 'max')
    return F.pad(regions, (0, 0, 0, int(most) - regions.shape[1]))


def _of_all(values: Tensor) -> Tensor:
    """Return the values of all processes, with gradients; all have the same shape."""
    if get_world_size() == 1:
        return values
    return torch.cat(torch.distributed.nn.functional.all_gather(values.contiguous()))
