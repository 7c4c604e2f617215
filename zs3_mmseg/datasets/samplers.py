"""Samplers whose order does not depend on workers or on interruptions."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import numpy as np
import torch
from torch.utils.data import Sampler

from mmengine.dist import get_dist_info, sync_random_seed
from mmseg.registry import DATA_SAMPLERS

from zs3_mmseg.utils.random_state import Draw

__all__ = ['DrawSampler', 'EpochDrawSampler']


@DATA_SAMPLERS.register_module()
class DrawSampler(Sampler[Draw]):
    """Yield :class:`~zs3_mmseg.utils.random_state.Draw` indices without end.

    Draw number ``n`` of the whole run is position ``n % len(dataset)`` in the
    permutation of epoch ``n // len(dataset)``, which follows from (seed, epoch) alone;
    rank ``r`` of ``R`` takes the draws ``r, r + R, r + 2R, ...``. So the order depends
    on neither workers nor interruptions, and skipping costs nothing. For
    ``IterBasedTrainLoop``; each new iterator starts at the same place, so looking at
    the first batches before training does not shift it.

    Args:
        dataset: the data set, of fixed length.
        seed: seed of the run; None draws one that all ranks share.
        shuffle: False goes through the data set in order.

    Raises:
        ValueError: if the data set is empty.
    """

    def __init__(
        self, dataset: Sized, seed: int | None = None, *, shuffle: bool = True
    ) -> None:
        self.size = len(dataset)
        if self.size == 0:
            raise ValueError('the training data set is empty: nothing can be drawn')
        self.seed = sync_random_seed() if seed is None else seed
        self.shuffle = shuffle
        self.rank, self.world_size = get_dist_info()
        self._skipped = 0

    def __iter__(self) -> Iterator[Draw]:
        draw = self._skipped * self.world_size + self.rank
        epoch = draw // self.size
        order = self._order(epoch)
        while True:
            if draw // self.size != epoch:
                epoch = draw // self.size
                order = self._order(epoch)
            yield Draw(order[draw % self.size], draw=draw, seed=self.seed)
            draw += self.world_size

    def _order(self, epoch: int) -> list[int]:
        if not self.shuffle:
            return list(range(self.size))
        # Not seed + epoch: the runs of seeds 0 and 1 would share their permutations.
        word = np.random.SeedSequence((self.seed, epoch)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(word[0]) >> 1)
        return torch.randperm(self.size, generator=generator).tolist()

    def skip(self, num_samples: int) -> None:
        """Start after the first ``num_samples`` draws of this rank.

        mmengine's ``IterBasedTrainLoop`` calls it when a run is resumed. The number
        counts from the beginning of the run, not from the present position.
        """
        if num_samples < 0:
            raise ValueError(f'num_samples must be >= 0, got {num_samples}')
        self._skipped = num_samples

    def __len__(self) -> int:
        """Return the length of one epoch over all ranks."""
        return self.size


@DATA_SAMPLERS.register_module()
class EpochDrawSampler(DrawSampler):
    """:class:`DrawSampler` for ``EpochBasedTrainLoop``: each iterator is one epoch.

    In one process the draws are exactly those of :class:`DrawSampler`. Several ranks
    get the same number of draws each; the first ones of the epoch's order fill up the
    last round. mmengine's ``DistSamplerSeedHook`` calls :meth:`set_epoch`.
    """

    _epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iterator, counting from 0."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Draw]:
        order = self._order(self._epoch)
        rounds = len(self)
        first = self._epoch * rounds * self.world_size
        for place in range(self.rank, rounds * self.world_size, self.world_size):
            yield Draw(order[place % self.size], draw=first + place, seed=self.seed)

    def __len__(self) -> int:
        """Return the number of draws of this rank in one epoch."""
        return -(-self.size // self.world_size)
