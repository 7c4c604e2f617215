"""Which part of the model learns in which iteration."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
    """The phases of a run; the last one lasts until its end.

    Attributes:
        segmentor_iters: iterations of ordinary training first; 0 for a run that starts
            from a trained segmentor.
        generator_iters: iterations for the generator alone after that; None: generator
            and classifier learn side by side, as in ZS3Net's code.

    Raises:
        ValueError: if a number is negative.
    """

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
        """Compare with the length of the run.

        Args:
            max_iters: iterations of the run.
            accumulative_counts: iterations whose gradients make one step.

        Raises:
            ValueError: if the classifier would never be retrained, or a step would
                collect gradients of two phases.
        """
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
