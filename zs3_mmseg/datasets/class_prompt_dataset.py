"""Pairs of one image and one class name, with the mask of that class."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from mmengine.dataset import BaseDataset, force_full_init
from mmengine.logging import MMLogger
from mmseg.registry import DATASETS

from zs3_mmseg.utils.labels import special_labels
from zs3_mmseg.utils.names import choose, type_name
from zs3_mmseg.utils.random_state import draw_rng

from .labels import LabelStep, LabelTable, hides_unseen
from .scan import class_pixels, class_values
from .splits import resolve_split
from .wrappers import over_samples
from .zero_shot_dataset import UNSEEN_POLICIES, ZeroShotDataset


def binary_mask(labels: np.ndarray, prompt: int, ignore: int) -> np.ndarray:
    """Return 1 where ``labels`` is ``prompt``, ignored pixels as they are, else 0."""
    mask = (labels == prompt).astype(labels.dtype)
    mask[labels == ignore] = ignore
    return mask


class PromptStep:
    """The pipeline step that chooses a class and turns labels into its mask.

    It runs right after the labels have become those of the split, so that a crop can
    already look at the mask. Without an assigned class one is drawn, uniformly among
    those in the label map, whatever their size; with probability ``negatives`` among
    those that are not. ``chosen`` is the class of the last sample. With
    ``keep_classes`` the labels stay beside the mask, as ``gt_class_map``.
    """

    def __init__(
        self,
        prompted: Sequence[int],
        ignore: int,
        negatives: float,
        keep_classes: bool = False,
    ) -> None:
        self._prompted = np.asarray(prompted)
        self._ignore = ignore
        self._negatives = negatives
        self._keep_classes = keep_classes
        self._assigned: int | None = None
        self.chosen: int | None = None

    @contextmanager
    def asking(self, prompt: int | None) -> Iterator[None]:
        """Assign the class of the samples loaded inside; None: draw one for each."""
        self._assigned = self.chosen = prompt
        try:
            yield
        finally:
            self._assigned = None

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``gt_seg_map``, (H, W), by the mask of the chosen class."""
        labels = results['gt_seg_map']
        prompt = self._assigned
        if prompt is None:
            prompt = self.chosen = self._drawn(labels)
        results['gt_seg_map'] = binary_mask(labels, prompt, self._ignore)
        if self._keep_classes:
            results['gt_class_map'] = labels
            results['seg_fields'] = [*results.get('seg_fields', ()), 'gt_class_map']
        return results

    def _drawn(self, labels: np.ndarray) -> int:
        present = np.isin(self._prompted, np.unique(labels))
        # With the default no random number is used up, as in the official code.
        wants_absent = self._negatives > 0 and np.random.random() < self._negatives  # noqa: NPY002
        if present.all():
            wants_absent = False
        elif not present.any():
            wants_absent = True
        choices = self._prompted[~present if wants_absent else present]
        return int(np.random.choice(choices))  # noqa: NPY002


PARTS = ('rest', 'held_out')


class HeldOut(NamedTuple):
    """Every n-th image of a data set (``'held_out'``), or all others (``'rest'``)."""

    every: int
    part: str

    @classmethod
    def from_cfg(cls, config: Mapping[str, Any] | None) -> HeldOut | None:
        """Read ``dict(every=n, part=...)``; None stays None."""
        if config is None:
            return None
        every = config.get('every')
        fits = isinstance(every, int) and every >= 2 and config.get('part') in PARTS
        if not fits or set(config) != {'every', 'part'}:
            raise ValueError(
                'held_out must be dict(every=n, part=...) with n >= 2 and part one of '
                f'{PARTS}, got {dict(config)}'
            )
        return cls(**config)

    def mask(self, count: int) -> np.ndarray:
        """Tell which of ``count`` images are taken, (count,), bool."""
        out = np.arange(count) % self.every == 0
        return out if self.part == 'held_out' else ~out


def kept_images(
    counts: np.ndarray,
    prompted: Sequence[int],
    *,
    min_pixels: int,
    without: Sequence[int] = (),
    allowed: np.ndarray | None = None,
) -> np.ndarray:
    """Return the indices of the images that stay, ascending.

    By the pixels of each class in each image, (N, K): one of the ``prompted`` classes
    has at least ``min_pixels``, none of those of ``without`` is there, and the image is
    ``allowed``, (N,), bool.
    """
    kept = (counts[:, prompted] >= max(min_pixels, 1)).any(axis=1)
    kept &= ~counts[:, without].any(axis=1)
    if allowed is not None:
        kept &= allowed
    return np.flatnonzero(kept)


def exhaustive_pairs(
    images: np.ndarray, counts: np.ndarray, prompted: Sequence[int]
) -> np.ndarray:
    """Return every (image, class) with the class in the image, (M, 2)."""
    rows, columns = np.nonzero(counts[images][:, prompted])
    return np.stack([images[rows], np.array(prompted)[columns]], axis=1)


def episode_pairs(
    images: np.ndarray,
    counts: np.ndarray,
    prompted: Sequence[int],
    *,
    num_episodes: int,
    seed: int,
) -> np.ndarray:
    """Return pairs as the official test draws them, (num_episodes, 2).

    The list of images is cycled in its order; the class is uniform over those in the
    image that may be asked for, and follows from (seed, episode, image).
    """
    classes = np.array(prompted)
    pairs = []
    for episode in range(num_episodes):
        image = int(images[episode % len(images)])
        rng = np.random.default_rng((seed, episode, image))
        present = classes[counts[image, classes] > 0]
        pairs.append((image, int(rng.choice(present))))
    return np.array(pairs)


PROMPTS = ('seen', 'unseen', 'all')
SAMPLINGS = ('episodes', 'exhaustive')
SELECTIONS = ('held_out', 'novel_official')
PROMPT_SETTINGS = ('inductive', 'supervised')
#: Number of pairs of the official test.
OFFICIAL_EPISODES = 1000


def _require_drawn_pairs(
    training: bool, sampling: str | None, num_episodes: int | None, seed: int | None
) -> None:
    """Refuse options of testing that would be ignored."""
    if sampling is not None:
        choose('sampling', sampling, SAMPLINGS)
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


#: In place of a class that is drawn when the sample is loaded.
_DRAWN = -1


@DATASETS.register_module()
class ClassPromptDataset(ZeroShotDataset):
    """A data set of "here is an image and one name": PASCAL-5i, COCO-20i and the like.

    Labels become 1 for the named class and 0 for everything else, also for classes
    that the split does not name, such as background. Void stays ignored, and so do, in
    zero-shot training, pixels of unseen classes. Each sample's metainfo has
    ``prompt_class`` (index in ``split.classes``) and ``prompt_name``.

    **Lists**, by the rules of the few-shot codes (BAM, ESDA). An image stays if a class
    that may be named has at least ``min_pixels`` pixels in it and, with
    ``unseen_policy='drop_image'``, if it holds no unseen class at all. The masks are
    looked at once and counts are kept in the cache.

    **Training** draws the name for each sample, uniformly among the classes in the
    image, also small ones. With :class:`~zs3_mmseg.datasets.samplers.EpochDrawSampler`
    or :class:`~zs3_mmseg.datasets.samplers.DrawSampler` everything random about a
    sample follows from (seed, number of the draw, sample index).

    **Testing** has a fixed list of pairs: ``'episodes'`` goes through the images in
    order, again and again until there are ``num_episodes``, and draws a class of each
    image from (seed, episode, image); the sequence is our own, as the official one
    depends on the number of workers. ``'exhaustive'`` asks for every class of every
    image, once.

    Args:
        dataset: as in :class:`ZeroShotDataset`; or the config of a
            ``ZeroShotDataset``, whose settings are then taken over.
        phase: ``'train'`` or ``'test'``.
        split: name of a split, or a dict with ``classes`` and ``unseen``.
        setting: ``'inductive'`` or ``'supervised'``.
        prompts: which classes are asked for: ``'seen'``, ``'unseen'`` or ``'all'``; by
            default the seen ones in training, the unseen ones in testing, and what
            ``selection`` says.
        unseen_policy: ``'drop_image'`` (default of inductive training) leaves out
            images with any unseen class, ``'ignore'`` keeps them.
        min_pixels: see above; 2 * 32 * 32 in the few-shot codes.
        negatives: in training, how often a name is asked for that is not in the image
            (0 is published).
        keep_classes: hand the labels of all classes on to the pipeline as
            ``gt_class_map``, which ``GenerateClassEdges`` reads: the index of a class
            of the split, their number for what the split does not name, or ignore.
        sampling: of testing, see above; ``'episodes'`` by default.
        num_episodes: number of episodes; 1000 by default, as in the official test.
        seed: of the classes drawn for episodes; 0 by default.
        selection: for validation data sets, which classes a checkpoint is chosen by:
            ``'held_out'`` the seen ones, on images kept out of training;
            ``'novel_official'`` the unseen ones, as ESDA's code does, which leaks.
        held_out: ``dict(every=n, part='rest')`` leaves every n-th image of the data
            set (of each one inside a wrapper) out, ``part='held_out'`` takes only
            those.
        pipeline: as in :class:`ZeroShotDataset`.
        lazy_init: whether to put off reading lists and masks.

    Raises:
        ValueError: if arguments contradict each other or no image is left.
        TypeError: if a wrapper is inside whose samples mix several images.
    """

    def __init__(
        self,
        dataset: Mapping[str, Any] | Any,
        *,
        phase: str | None = None,
        split: Any = None,
        setting: str | None = None,
        prompts: str | None = None,
        unseen_policy: str | None = None,
        min_pixels: int = 2048,
        negatives: float = 0.0,
        keep_classes: bool = False,
        sampling: str | None = None,
        num_episodes: int | None = None,
        seed: int | None = None,
        selection: str | None = None,
        held_out: Mapping[str, Any] | None = None,
        pipeline: Sequence[Mapping[str, Any] | Any] | None = None,
        lazy_init: bool = False,
    ) -> None:
        given = dict(
            phase=phase,
            split=split,
            setting=setting,
            unseen_policy=unseen_policy,
            pipeline=pipeline,
        )
        dataset, given = _unpacked(dataset, given)
        for key in ('phase', 'split'):
            if given[key] is None:
                raise ValueError(f'ClassPromptDataset needs {key}=')
        self.phase = given['phase']
        self.setting = given['setting'] = given['setting'] or 'inductive'
        self.split = given['split'] = resolve_split(given['split'])
        if self.setting not in PROMPT_SETTINGS:
            raise ValueError(
                f'ClassPromptDataset.setting must be one of {PROMPT_SETTINGS}, got '
                f'{self.setting!r}: a mask of one class has no unlabelled pixels'
            )
        hides = hides_unseen(self.phase, self.setting)
        policy = given.pop('unseen_policy') or ('drop_image' if hides else 'ignore')
        choose('unseen_policy', policy, UNSEEN_POLICIES)
        training = self.phase == 'train'
        self._choose_prompts(prompts, selection, policy)
        self.selection = selection
        _require_drawn_pairs(training, sampling, num_episodes, seed)
        self.sampling = None if training else sampling or 'episodes'
        self.num_episodes = OFFICIAL_EPISODES if num_episodes is None else num_episodes
        self.seed = 0 if seed is None else seed
        self.min_pixels = min_pixels
        self.held_out = HeldOut.from_cfg(held_out)
        if not 0 <= negatives <= 1 or (negatives and not training):
            raise ValueError(
                'negatives must be in 0..1, and is for training only; got '
                f'{negatives} with phase={self.phase!r}'
            )
        if self.num_episodes < 1 or min_pixels < 0 or self.seed < 0:
            raise ValueError(
                'expected num_episodes >= 1, min_pixels >= 0 and seed >= 0, got '
                f'{self.num_episodes}, {min_pixels} and {self.seed}'
            )
        super().__init__(dataset, **given, lazy_init=True)
        # Validation may drop images as well, which the base class does not offer.
        self.unseen_policy = policy
        special = special_labels(len(self.split.classes))
        self._step = PromptStep(self.prompted, special.ignore, negatives, keep_classes)
        for leaf in self._leaves:
            for transform in leaf.pipeline.transforms:
                if isinstance(transform, LabelStep):
                    transform.then = self._step
        #: Pairs of an index into the wrapped data set and a class, (M, 2).
        self._pairs = np.zeros((0, 2), dtype=np.int64)
        if not lazy_init:
            self.full_init()

    def _choose_prompts(
        self, prompts: str | None, selection: str | None, policy: str
    ) -> None:
        """Set which classes are asked for, if that goes with the other options."""
        if selection is not None:
            choose('selection', selection, SELECTIONS)
        training = self.phase == 'train'
        # What training may ask for, validation on its classes does as well.
        learnt = 'seen' if self.setting == 'inductive' else 'all'
        usual = learnt if training or selection == 'held_out' else 'unseen'
        prompts = prompts or usual
        choose('prompts', prompts, PROMPTS)
        if selection is not None and (training or prompts != usual):
            raise ValueError(
                "selection is for validation: phase='test'"
                if training
                else f'selection={selection!r} is by the {usual} classes, but '
                f'prompts={prompts!r}'
            )
        self.prompts = prompts
        asks_unseen = bool({*self.prompted} & {*self.split.unseen_indices})
        if not self.prompted:
            raise ValueError(
                f'split {self.split.name!r} has no {prompts} class to ask for'
            )
        if training and self.setting == 'inductive' and asks_unseen:
            raise ValueError(
                f'prompts={prompts!r} would train on unseen classes; use '
                "prompts='seen', or setting='supervised'"
            )
        if policy == 'drop_image' and asks_unseen:
            raise ValueError(
                "unseen_policy='drop_image' leaves no image for "
                f"prompts={prompts!r}; use unseen_policy='ignore'"
            )

    @property
    def prompted(self) -> tuple[int, ...]:
        """Indices of the classes that may be asked for, ascending."""
        return {
            'seen': self.split.seen_indices,
            'unseen': self.split.unseen_indices,
            'all': tuple(range(len(self.split.classes))),
        }[self.prompts]

    @property
    def sampling_in_words(self) -> str:
        """How pairs are chosen, for tables and logs."""
        if self.sampling == 'episodes':
            return f'{self.num_episodes} drawn, seed {self.seed}'
        return self.sampling or 'drawn'

    def _table_of(self, leaf: BaseDataset) -> LabelTable:
        """Make the label table; classes that the split does not name are "other"."""
        table = super()._table_of(leaf)
        names = leaf.metainfo.get('classes')
        if names is None:
            return table
        named = {*class_values(leaf, self.split)}
        others = [value for value in range(len(names)) if value not in named]
        targets = table.targets.copy()
        targets[others] = len(self.split.classes)
        return dataclasses.replace(table, targets=targets)

    def _make_metainfo(self) -> dict[str, Any]:
        metainfo = super()._make_metainfo()
        metainfo.update(
            prompted=self.prompted,
            selection=self.selection or '',
            sampling=self.sampling_in_words,
        )
        return metainfo

    def _choose_samples(self) -> None:
        """Look into the masks (once) and make the pairs."""
        drops = self.unseen_policy == 'drop_image'
        counts = self._class_pixels()
        images = kept_images(
            counts,
            self.prompted,
            min_pixels=self.min_pixels,
            without=self.split.unseen_indices if drops else (),
            allowed=self._not_kept_apart(),
        )
        if not len(images):
            raise ValueError(
                f'ClassPromptDataset: none of {len(counts)} images is left that holds '
                f'at least {max(self.min_pixels, 1)} pixels of one of the '
                f'{len(self.prompted)} {self.prompts} classes'
                + (' and no unseen class' if drops else '')
                + '; change min_pixels, unseen_policy or held_out'
            )
        self._pairs = self._make_pairs(images, counts)
        MMLogger.get_current_instance().info(
            f'ClassPromptDataset ({self.phase}): {len(images)} of {len(counts)} images '
            f'with {self.prompts} classes of {self.split.name!r}, '
            f'{len(self._pairs)} samples, {self.sampling_in_words}.'
        )
        if self.selection == 'novel_official':
            MMLogger.get_current_instance().warning(
                "selection='novel_official': the checkpoint is chosen by its score on "
                'the UNSEEN classes, as in the official code of ESDA. The result is '
                'no zero-shot result in the strict sense.'
            )

    def _class_pixels(self) -> np.ndarray:
        """Count the pixels of each class in each sample, (N, K)."""
        tables = {
            id(leaf): t for leaf, t in zip(self._leaves, self._tables, strict=True)
        }
        return over_samples(
            self.dataset,
            lambda leaf: class_pixels(leaf, tables[id(leaf)], self.split),
            needed_by='ClassPromptDataset',
        )

    def _not_kept_apart(self) -> np.ndarray | None:
        """Tell which samples ``held_out`` allows, (N,); None: all.

        Images are counted within the data set that reads them: repeated, or with other
        data beside it, the same ones are kept apart.
        """
        held_out = self.held_out
        if held_out is None:
            return None
        return over_samples(
            self.dataset,
            lambda leaf: held_out.mask(len(leaf)),
            needed_by='ClassPromptDataset',
        )

    def _make_pairs(self, images: np.ndarray, counts: np.ndarray) -> np.ndarray:
        if self.phase == 'train':
            return np.stack([images, np.full(len(images), _DRAWN)], axis=1)
        if self.sampling == 'exhaustive':
            return exhaustive_pairs(images, counts, self.prompted)
        return episode_pairs(
            images,
            counts,
            self.prompted,
            num_episodes=self.num_episodes,
            seed=self.seed,
        )

    @force_full_init
    def __len__(self) -> int:
        return len(self._pairs)

    def _pair(self, index: int) -> tuple[int, int | None]:
        if not -len(self) <= index < len(self):
            raise IndexError(
                f'index {int(index)} is out of range for {len(self)} samples'
            )
        image, prompt = self._pairs[int(index) % len(self)]
        return int(image), None if prompt == _DRAWN else int(prompt)

    def _inner_index(self, index: int) -> int:
        return self._pair(index)[0]

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """Return one sample after the pipeline; see :class:`ZeroShotDataset`."""
        image, prompt = self._pair(idx)
        with draw_rng(idx), self._step.asking(prompt):
            sample = self.dataset[image]
        chosen = self._step.chosen
        if chosen is None:  # the training pipeline loads no labels
            return self._named(sample)
        return self._named(
            sample, prompt_class=chosen, prompt_name=self.split.classes[chosen]
        )

    @force_full_init
    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep some samples: the first n, the last n (negative), or those given."""
        if isinstance(indices, int):
            chosen = slice(indices) if indices >= 0 else slice(indices, None)
            self._pairs = self._pairs[chosen]
        else:
            self._pairs = self._pairs[np.asarray(indices, dtype=np.int64)]


def _unpacked(
    dataset: Mapping[str, Any] | Any, given: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Take over what the config of a ``ZeroShotDataset`` says; it must not disagree."""
    if not isinstance(dataset, Mapping) or (
        type_name(dataset.get('type')) != ZeroShotDataset.__name__
    ):
        return dataset, given
    inner = {k: v for k, v in dataset.items() if k not in ('type', '_scope_')}
    wrapped = inner.pop('dataset')
    inner.pop('lazy_init', None)
    for key, value in inner.items():
        if key not in given:
            raise ValueError(f'ClassPromptDataset does not understand {key}={value!r}')
        if given[key] not in (None, value):
            raise ValueError(
                f'ClassPromptDataset({key}={given[key]!r}) wraps a ZeroShotDataset '
                f'with {key}={value!r}: give it once'
            )
    return wrapped, {**given, **inner}
