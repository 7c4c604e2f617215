"""What a retraining is given: classes and their vectors, phases, random draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum, StrEnum

import numpy as np
import torch
from torch import Tensor

from zs3_mmseg.datasets.splits import ZeroShotSplit
from zs3_mmseg.utils.cache import content_hash


def is_unseen(labels: Tensor, split: ZeroShotSplit) -> Tensor:
    """Tell for each label of any shape whether it is an unseen class."""
    return torch.isin(labels, torch.tensor(split.unseen_indices, device=labels.device))


def present_classes(labels: Tensor, split: ZeroShotSplit) -> list[int]:
    """Return the classes that a label map holds, ascending."""
    return [value for value in labels.unique().tolist() if value < len(split.classes)]


class Phase(StrEnum):
    """What learns: the whole segmentor, the generator, the classifier, or the last two.

    The order is that of ZS3Net's three steps (arXiv 1906.00817, 3.1 to 3.3).
    """

    SEGMENTOR = 'segmentor'
    GENERATOR = 'generator'
    CLASSIFIER = 'classifier'
    INTERLEAVED = 'interleaved'

    @property
    def trains_generator(self) -> bool:
        """Whether generators take steps."""
        return self in (Phase.GENERATOR, Phase.INTERLEAVED)

    @property
    def trains_classifier(self) -> bool:
        """Whether the classifier learns from generated features."""
        return self in (Phase.CLASSIFIER, Phase.INTERLEAVED)


@dataclass(frozen=True)
class PhaseSchedule:
    """The phases of a run, by the hook's options; the last one lasts until its end."""

    segmentor_iters: int = 0
    generator_iters: int | None = None

    def __post_init__(self) -> None:
        if self.segmentor_iters < 0 or (self.generator_iters or 0) < 0:
            raise ValueError(f'numbers of iterations cannot be negative: {self}')

    @property
    def classifier_start(self) -> int:
        """The first iteration in which the classifier is retrained."""
        return self.segmentor_iters + (self.generator_iters or 0)

    def at(self, iteration: int) -> Phase:
        """Return the phase of an iteration, counted from 0."""
        if iteration < self.segmentor_iters:
            return Phase.SEGMENTOR
        if self.generator_iters is None:
            return Phase.INTERLEAVED
        if iteration < self.classifier_start:
            return Phase.GENERATOR
        return Phase.CLASSIFIER

    def check(self, max_iters: int, accumulative_counts: int) -> None:
        """The classifier must learn, and no step have gradients of two phases."""
        if self.classifier_start >= max_iters:
            raise ValueError(
                f'the classifier is retrained from iteration {self.classifier_start} '
                f'on, but the run ends after {max_iters}: lower segmentor_iters or '
                'generator_iters, or raise max_iters'
            )
        for start in (self.segmentor_iters, self.classifier_start):
            if start % accumulative_counts:
                raise ValueError(
                    f'a phase begins at iteration {start}, in the middle of a step of '
                    f'accumulative_counts={accumulative_counts} iterations; let phases '
                    'begin at multiples of it'
                )


#: Stands for all regions of an image where a class is asked for.
WHOLE_IMAGE = -1


class _Stream(IntEnum):
    NOISE = 0
    ROWS = 1
    DROPOUT = 2
    LAYOUT = 3
    RESET = 4


class KeyedDraws:
    """Draws keyed by seed, iteration, sample of the global batch, and class.

    So a resumed run draws what an uninterrupted one would have drawn, several processes
    draw what one process with their whole batch would, and nothing here shifts the
    random numbers of the segmentor.

    Args:
        seed: seed of the run, >= 0.
        iteration: number of the iteration, from 0.
        rank: number of this process.
        world_size: number of processes. As samplers deal out samples in turn, sample
            ``j`` of a process is sample ``j * world_size + rank`` of the global batch.
        device: where noise is used.
    """

    def __init__(
        self,
        seed: int,
        iteration: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = 'cpu',
    ) -> None:
        self._key = (seed, iteration)
        self._rank = rank
        self._world_size = world_size
        self._device = torch.device(device)

    def noise(self, image: int, label: int, count: int, dim: int) -> Tensor:
        """Return ``(count, dim)`` uniform numbers in [0, 1) for a class of an image."""
        generator = torch.Generator(self._device)
        generator.manual_seed(self._seed(_Stream.NOISE, image, label))
        return torch.rand(count, dim, generator=generator, device=self._device)

    def rows(self, image: int, label: int, count: int, size: int) -> Tensor:
        """Return ``size`` indices below ``count``, drawn with replacement."""
        generator = self._cpu(_Stream.ROWS, image, label)
        return torch.randint(count, (size,), generator=generator).to(self._device)

    def layout(self, image: int) -> torch.Generator:
        """Return the generator, on the CPU, of an image's synthetic label map."""
        return self._cpu(_Stream.LAYOUT, image, WHOLE_IMAGE)

    @contextmanager
    def dropout(self, image: int, label: int) -> Iterator[None]:
        """Give the body's dropout numbers of its own and put the generator back."""
        if self._device.type == 'cuda':
            index = self._device.index
            current = torch.cuda.current_device() if index is None else index
            default = torch.cuda.default_generators[current]
        else:
            default = torch.default_generator
        state = default.get_state()
        default.manual_seed(self._seed(_Stream.DROPOUT, image, label))
        try:
            yield
        finally:
            default.set_state(state)

    def _cpu(self, stream: _Stream, image: int, label: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._seed(stream, image, label))

    def _seed(self, stream: _Stream, image: int, label: int) -> int:
        sample = image * self._world_size + self._rank
        return mixed_seed(*self._key, stream, sample, label + 1)


def reset_generator(seed: int) -> torch.Generator:
    """Return the generator, on the CPU, that weights of a run are drawn from."""
    return torch.Generator().manual_seed(mixed_seed(seed, _Stream.RESET))


def mixed_seed(*key: int) -> int:
    """Mix numbers >= 0 into one seed; neighbouring keys have unrelated seeds."""
    word = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return int(word[0]) >> 1


def vectors_hash(vectors: Tensor) -> str:
    """Return a hash of vectors that survives the rounding of their making."""
    rounded = (vectors.double() * 1e4).round().to(torch.int64)
    return content_hash(str(tuple(vectors.shape)), rounded.numpy().tobytes())
