"""Does a data loader suit the loop that it feeds?"""

from __future__ import annotations

from torch.utils.data import DataLoader

from mmengine.dataset import InfiniteSampler

from zs3_mmseg.datasets.samplers import DrawSampler, EpochDrawSampler
from zs3_mmseg.utils.config_check import ConfigError

#: Options of a loader that only its worker processes read; torch refuses them without.
WORKER_OPTIONS = (
    *('persistent_workers', 'prefetch_factor'),
    *('multiprocessing_context', 'timeout'),
)


def require_suitable(
    key: str, loader: DataLoader, *, endless: bool, complete: bool
) -> None:
    """Check that a loader gives batches, and ends, or leaves out no image, if needed.

    Args:
        key: of the loader in the config, for messages.
        endless: whether the loop stops by itself, however many batches there are.
        complete: whether every image must come.

    Raises:
        ConfigError: naming what to change.
    """
    sampler, size = loader.sampler, loader.batch_size
    unending = isinstance(sampler, InfiniteSampler | DrawSampler) and not isinstance(
        sampler, EpochDrawSampler
    )
    if unending:
        if not endless:
            raise ConfigError(
                f'{key}.sampler: {type(sampler).__name__} never comes to an end, and '
                f'this loop goes on until it does; use '
                f'{"DefaultSampler" if complete else "EpochDrawSampler"}'
            )
        return
    if size is None or not loader.drop_last:
        return
    images = len(sampler)  # type: ignore[arg-type]
    if images < size:
        raise ConfigError(
            f'{key}.drop_last leaves nothing: {images} images are fewer than '
            f'{key}.batch_size={size}'
        )
    if complete and images % size:
        raise ConfigError(
            f'{key}.drop_last leaves {images % size} of {images} images out of the '
            'scores; leave it out'
        )
