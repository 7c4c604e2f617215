"""What can be chosen for a retraining, and what contradicts itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from .classifier import RESETS
from .layouts import SyntheticLayout

_HOOK = 'GenerativeRetrainingHook'
_CHOICES = {
    'setting': ('strict', 'layout_oracle'),
    'generator_step': ('iteration', 'class'),
    'merge': ('image', 'pixel'),
    'decide_on': ('labels', 'downsampled'),
    'segmentor_mode': ('eval', 'train'),
    'reset_classifier': RESETS,
}


@dataclass(frozen=True, kw_only=True)
class RetrainingOptions:
    """Options of ``GenerativeRetrainingHook``, which says what they mean.

    Raises:
        ValueError: if an option is none of its choices, or options contradict.
    """

    setting: Literal['strict', 'layout_oracle']
    generator: Mapping[str, Any]
    generator_from: str | None
    loss: Mapping[str, Any]
    generator_optimizer: Mapping[str, Any]
    graph: Mapping[str, Any] | None
    generator_step: Literal['iteration', 'class']
    samples_per_class: int
    unseen_weight: float
    merge: Literal['image', 'pixel']
    decide_on: Literal['labels', 'downsampled']
    layout: Mapping[str, Any] | None
    reset_classifier: Literal['unseen', 'all', 'official', 'keep']
    segmentor_mode: Literal['eval', 'train']

    def __post_init__(self) -> None:
        for field in fields(self):
            choices = _CHOICES.get(field.name)
            value = getattr(self, field.name)
            if choices and value not in choices:
                raise ValueError(
                    f'{_HOOK}.{field.name} must be one of {", ".join(choices)}, got '
                    f'{value!r}'
                )
        if self.samples_per_class < 1 or self.unseen_weight <= 0:
            raise ValueError(
                f'{_HOOK} needs samples_per_class >= 1 and unseen_weight > 0, got '
                f'{self.samples_per_class} and {self.unseen_weight}'
            )
        if self.setting == 'layout_oracle' and self.layout is not None:
            raise ValueError(
                f"{_HOOK}.layout makes label maps up, which setting='layout_oracle' "
                'takes from the data set: set one of them'
            )
        self.build_layout()

    @property
    def graph_from(self) -> str | None:
        """The file that the generator of the graph starts from."""
        return (self.graph or {}).get('generator_from')

    @property
    def needs_rows(self) -> bool:
        """Whether the seen classes' rows are those that the segmentor learned."""
        return self.reset_classifier in ('unseen', 'keep')

    def build_layout(self) -> SyntheticLayout | None:
        """Return what makes label maps with unseen classes up, if anything does."""
        if self.setting == 'layout_oracle':
            return None
        return SyntheticLayout(**(self.layout or {}))
