"""A sampler of whole epochs that numbers its draws."""

from __future__ import annotations

from collections.abc import Iterator

from mmseg.registry import DATA_SAMPLERS

from zs3_mmseg.datasets.samplers.draw_sampler import DrawSampler
from zs3_mmseg.utils.seeding import Draw


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
