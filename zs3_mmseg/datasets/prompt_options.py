"""What a class-prompted data set asks for, and which options go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zs3_mmseg.datasets.label_policy import hides_unseen
from zs3_mmseg.datasets.prompt_lists import HeldOut
from zs3_mmseg.datasets.splits import ZeroShotSplit
from zs3_mmseg.datasets.zero_shot_dataset import UNSEEN_POLICIES, require_choice

PROMPTS = ('seen', 'unseen', 'all')
SAMPLINGS = ('episodes', 'exhaustive')
SELECTIONS = ('held_out', 'novel_official')
SETTINGS = ('inductive', 'supervised')
#: Number of pairs of the official test.
OFFICIAL_EPISODES = 1000


@dataclass(frozen=True)
class PromptOptions:
    """Options of a ``ClassPromptDataset``, whose docstring says what they do.

    Attributes:
        training: whether it is for training.
        prompts: one of :data:`PROMPTS`.
        drops_unseen: whether images with an unseen class are left out.
        min_pixels: pixels that a class needs for its image to stay.
        negatives: share of absent names, 0..1.
        sampling: one of :data:`SAMPLINGS`; None in training.
        num_episodes: of ``sampling='episodes'``.
        seed: of ``sampling='episodes'``.
        selection: one of :data:`SELECTIONS`, or None.
        held_out: images kept apart, or None.
    """

    training: bool
    prompts: str
    drops_unseen: bool
    min_pixels: int
    negatives: float
    sampling: str | None
    num_episodes: int
    seed: int
    selection: str | None
    held_out: HeldOut | None

    @classmethod
    def of(
        cls,
        split: ZeroShotSplit,
        *,
        phase: str,
        setting: str,
        prompts: str | None,
        unseen_policy: str | None,
        min_pixels: int,
        negatives: float,
        sampling: str | None,
        num_episodes: int | None,
        seed: int | None,
        selection: str | None,
        held_out: Mapping[str, Any] | None,
    ) -> PromptOptions:
        """Fill in what is left out, and check that everything fits.

        Args:
            split: the classes.
            phase: ``'train'`` or ``'test'``.
            setting: of the training.
            prompts: see ``ClassPromptDataset``, as all that follow.
            unseen_policy: as there.
            min_pixels: as there.
            negatives: as there.
            sampling: as there.
            num_episodes: as there.
            seed: as there.
            selection: as there.
            held_out: as there.

        Raises:
            ValueError: naming the options that contradict each other.
        """
        if setting not in SETTINGS:
            raise ValueError(
                f'ClassPromptDataset.setting must be one of {SETTINGS}, got '
                f'{setting!r}: a mask of one class has no unlabelled pixels'
            )
        if selection is not None:
            require_choice('selection', selection, SELECTIONS)
        hides = hides_unseen(phase, setting)
        policy = unseen_policy or ('drop_image' if hides else 'ignore')
        require_choice('unseen_policy', policy, UNSEEN_POLICIES)
        training = phase == 'train'
        # What training may ask for, validation on its classes does as well.
        learnt = 'seen' if setting == 'inductive' else 'all'
        usual = learnt if training or selection == 'held_out' else 'unseen'
        prompts = prompts or usual
        require_choice('prompts', prompts, PROMPTS)
        if selection is not None and (training or prompts != usual):
            raise ValueError(
                "selection is for validation: phase='test'"
                if training
                else f'selection={selection!r} is by the {usual} classes, but '
                f'prompts={prompts!r}'
            )
        _require_drawn_pairs(training, sampling, num_episodes, seed)
        options = cls(
            training=training,
            prompts=prompts,
            drops_unseen=policy == 'drop_image',
            min_pixels=min_pixels,
            negatives=negatives,
            sampling=None if training else sampling or 'episodes',
            num_episodes=OFFICIAL_EPISODES if num_episodes is None else num_episodes,
            seed=0 if seed is None else seed,
            selection=selection,
            held_out=HeldOut.from_cfg(held_out),
        )
        options._require_numbers_in_range()
        options._require_prompts_of(split, setting)
        return options

    def prompted(self, split: ZeroShotSplit) -> tuple[int, ...]:
        """Return the indices of the classes that may be asked for, ascending."""
        return {
            'seen': split.seen_indices,
            'unseen': split.unseen_indices,
            'all': tuple(range(len(split.classes))),
        }[self.prompts]

    @property
    def sampling_in_words(self) -> str:
        """How pairs are chosen, for tables and logs."""
        if self.sampling is None:
            return 'drawn'
        if self.sampling == 'episodes':
            return f'{self.num_episodes} drawn, seed {self.seed}'
        return self.sampling

    def _require_numbers_in_range(self) -> None:
        if not 0 <= self.negatives <= 1 or (self.negatives and not self.training):
            raise ValueError(
                'negatives must be in 0..1, and is for training only; got '
                f'{self.negatives} with phase={"train" if self.training else "test"!r}'
            )
        if self.num_episodes < 1 or self.min_pixels < 0 or self.seed < 0:
            raise ValueError(
                'expected num_episodes >= 1, min_pixels >= 0 and seed >= 0, got '
                f'{self.num_episodes}, {self.min_pixels} and {self.seed}'
            )

    def _require_prompts_of(self, split: ZeroShotSplit, setting: str) -> None:
        prompted = self.prompted(split)
        if not prompted:
            raise ValueError(
                f'split {split.name!r} has no {self.prompts} class to ask for'
            )
        asks_unseen = bool({*prompted} & {*split.unseen_indices})
        if self.training and setting == 'inductive' and asks_unseen:
            raise ValueError(
                f'prompts={self.prompts!r} would train on unseen classes; use '
                "prompts='seen', or setting='supervised'"
            )
        if self.drops_unseen and asks_unseen:
            raise ValueError(
                "unseen_policy='drop_image' leaves no image for "
                f"prompts={self.prompts!r}; use unseen_policy='ignore'"
            )


def _require_drawn_pairs(
    training: bool, sampling: str | None, num_episodes: int | None, seed: int | None
) -> None:
    """Refuse options of testing that would be ignored."""
    if sampling is not None:
        require_choice('sampling', sampling, SAMPLINGS)
    given = dict(sampling=sampling, num_episodes=num_episodes, seed=seed)
    if not training:
        if sampling != 'exhaustive':
            return
        del given['sampling']
    ignored = [key for key, value in given.items() if value is not None]
    if ignored:
        why = (
            'training draws a class for each sample'
            if training
            else "sampling='exhaustive' draws nothing"
        )
        raise ValueError(f'{why}: leave out {", ".join(ignored)}')
