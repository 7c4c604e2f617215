"""Any segmentation data set under the label rules of zero-shot training."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmengine.dataset import BaseDataset, force_full_init
from mmengine.logging import MMLogger
from mmseg.registry import DATASETS

from zs3_mmseg.utils.labels import NARROW, special_labels
from zs3_mmseg.utils.names import choose
from zs3_mmseg.utils.output_names import OUTPUT_NAME, clashes, output_names
from zs3_mmseg.utils.palette import default_palette
from zs3_mmseg.utils.random_state import draw_rng

from .labels import (
    DATA_SETTINGS,
    PHASES,
    LabelStep,
    LabelTable,
    PseudoLabels,
    guard_pipeline,
    hides_unseen,
    make_table,
    require_wide_loaders,
)
from .scan import (
    build_dataset,
    explained,
    images_without_unseen,
    init_default,
    require_files,
)
from .splits import (
    NameFinder,
    ZeroShotSplit,
    canonical,
    plain_split,
    resolve_split,
)
from .way_back import require_way_back
from .wrappers import image_paths, leaves

#: What finds class names, and their colours, RGB.
Colours = tuple[NameFinder, Sequence[Sequence[int]]]


def split_metainfo(
    split: ZeroShotSplit, sources: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the entries that follow from a split, with colours of the sources."""
    special = special_labels(len(split.classes))
    return dict(
        classes=split.classes,
        palette=split_palette(split, sources),
        # The labels that leave the data set are neither mapped nor reduced again.
        label_map=None,
        reduce_zero_label=False,
        split=plain_split(split),
        seen=split.seen_indices,
        unseen=split.unseen_indices,
        ignore_index=special.ignore,
        unlabelled_index=special.unlabelled,
    )


def split_palette(
    split: ZeroShotSplit, sources: Sequence[Mapping[str, Any]]
) -> list[list[int]]:
    """Give each class the colour, RGB, of its name in a source, or a new one."""
    known = [
        (NameFinder(meta.get('classes') or ()), meta.get('palette') or ())
        for meta in sources
    ]
    found = [_colour(name, known) for name in split.classes]
    taken = [colour for colour in found if colour is not None]
    spare = iter(default_palette(len(found) - len(taken), avoid=taken))
    return [colour or next(spare) for colour in found]


def _colour(name: str, known: Sequence[Colours]) -> list[int] | None:
    for finder, palette in known:
        position = finder.find(name)
        if position is not None and position < len(palette):
            return [int(value) for value in palette[position]]
    return None


UNSEEN_POLICIES = ('ignore', 'drop_image')


@DATASETS.register_module()
class ZeroShotDataset:
    """A data set whose labels are indices into a split, unseen ones hidden.

    The labels of the wrapped data set are mapped by class name, right after they have
    been loaded and before any other transform. In training no pixel of an unseen class
    leaves the data set, except in the cases named below, which are logged. In
    testing labels then stay as they are, wherever the pipeline loads them: predictions
    are brought back to the size of the file, and what leads nowhere back is refused.

    ===============  =====================  ========================
    ``setting``      training, unseen       testing
    ===============  =====================  ========================
    inductive        ignore                 all labels
    transductive     unlabelled             all labels
    supervised       all labels             all labels
    unseen_location  unlabelled (named!)    all labels
    layout_oracle    all labels (named!)    all labels
    ===============  =====================  ========================

    Classes of the wrapped data set that the split does not name become ignore. A
    wrapped data set without class names has labels that are split indices already.

    Args:
        dataset: a ``BaseSegDataset`` of any kind, or mmengine wrappers around some;
            built or as a config.
        phase: ``'train'`` or ``'test'``. Testing (validation too) hides nothing.
        split: name of a split, or a dict with ``classes`` and ``unseen``.
        setting: see above. ``'layout_oracle'`` gives the true layout of unseen classes
            away, as ZS3Net's official training does; ``'unseen_location'`` where they
            are, all as one, to a training that is inductive otherwise, as TagCLIP's.
        unseen_policy: ``'drop_image'`` also leaves out the images that hold an unseen
            class; in inductive training only. It reads every mask once.
        pseudo_label_dir: a folder of maps that a model made, see
            :mod:`zs3_mmseg.datasets.labels`; used for hidden pixels only.
        pipeline: the pipeline of the wrapped data set, for a config that does not
            give it one. mmseg's ``MMSegInferencer`` looks for it here.
        lazy_init: whether to put off reading lists, masks and checks of files.

    Raises:
        ValueError: if arguments contradict each other, or class names of the data set
            and the split don't fit.
        KeyError: if no split has this name.
        FileNotFoundError: naming the missing path and the config key to change.
    """

    def __init__(
        self,
        dataset: Mapping[str, Any] | Any,
        *,
        phase: str,
        split: str | Mapping[str, Any] | ZeroShotSplit,
        setting: str = 'inductive',
        unseen_policy: str = 'ignore',
        pseudo_label_dir: str | None = None,
        pipeline: Sequence[Mapping[str, Any] | Any] | None = None,
        lazy_init: bool = False,
    ) -> None:
        if phase == 'val':
            raise ValueError("phase='val' is none: validation is phase='test'")
        choose('phase', phase, PHASES)
        choose('setting', setting, DATA_SETTINGS)
        choose('unseen_policy', unseen_policy, UNSEEN_POLICIES)
        self.phase = phase
        self.setting = setting
        self.unseen_policy = unseen_policy
        self.split = resolve_split(split)
        self._check_arguments(pseudo_label_dir)
        self.pseudo_labels: PseudoLabels | None = None
        if pseudo_label_dir is not None:
            self.pseudo_labels = PseudoLabels(pseudo_label_dir, self.split)
        self.dataset = build_dataset(_with_pipeline(dataset, pipeline))
        self._leaves = _read_by(self.dataset)
        self._tables = [self._table_of(leaf) for leaf in self._leaves]
        for leaf, table in zip(self._leaves, self._tables, strict=True):
            tested = phase == 'test'
            if tested:
                require_way_back(leaf.pipeline)
            step = LabelStep(table, self.pseudo_labels, tested=tested)
            guard_pipeline(leaf.pipeline, step)
            # A test image that cannot be loaded must not be replaced by another one.
            leaf.test_mode = leaf.test_mode or phase == 'test'
        self._metainfo = self._make_metainfo()
        self._warn_about_exceptions()
        self._positions: np.ndarray | None = None
        #: Names for what is written for test images whose stems are not enough.
        self._output_names: dict[str, str] = {}
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    def _check_arguments(self, pseudo_label_dir: str | None) -> None:
        split = self.split
        hides = hides_unseen(self.phase, self.setting)
        if self.phase == 'train' and not split.seen:
            raise ValueError(f'split {split.name!r} has no seen class to train on')
        if hides and not split.unseen:
            raise ValueError(
                f'split {split.name!r} has no unseen class, so setting='
                f"{self.setting!r} has nothing to hide; use setting='supervised'"
            )
        if self.unseen_policy == 'drop_image' and not (
            hides and self.setting == 'inductive'
        ):
            raise ValueError(
                "unseen_policy='drop_image' is for inductive training only, got "
                f'phase={self.phase!r} and setting={self.setting!r}'
            )
        if pseudo_label_dir is not None and not hides:
            raise ValueError(
                'pseudo_label_dir replaces hidden labels, but nothing is hidden with '
                f'phase={self.phase!r} and setting={self.setting!r}'
            )

    def _table_of(self, leaf: BaseDataset) -> LabelTable:
        """Make the label table of one wrapped data set."""
        origin = type(leaf).__name__
        classes = leaf.metainfo.get('classes')
        label_map = getattr(leaf, 'label_map', None)
        reduces = bool(getattr(leaf, 'reduce_zero_label', False))
        if reduces and (label_map is not None or _names_include_zero(leaf)):
            raise ValueError(
                f'{origin}: reduce_zero_label=True shifts the labels, and choosing '
                'classes by name maps them again: they would be shifted twice. Set '
                'reduce_zero_label=False; the split leaves background out by name'
            )
        if classes is None:
            MMLogger.get_current_instance().info(
                f'{origin} has no class names: its labels are taken as indices into '
                f'the classes of split {self.split.name!r}.'
            )
        ignored = {getattr(leaf, 'ignore_index', NARROW.ignore)}
        if reduces or label_map is not None:
            ignored.add(NARROW.ignore)  # mmseg writes this value itself then
        highest = max(len(classes or self.split.classes) - 1, *ignored)
        require_wide_loaders(leaf, highest, origin)
        return make_table(
            self.split,
            classes,
            phase=self.phase,
            setting=self.setting,
            ignore_values=ignored,
            origin=origin,
        )

    def _make_metainfo(self) -> dict[str, Any]:
        metainfo: dict[str, Any] = copy.deepcopy(dict(self.dataset.metainfo))
        metainfo.update(
            split_metainfo(self.split, [leaf.metainfo for leaf in self._leaves]),
            phase=self.phase,
            setting=self.setting,
            pseudo_labels=self.pseudo_labels.model if self.pseudo_labels else '',
        )
        return metainfo

    def _warn_about_exceptions(self) -> None:
        logger = MMLogger.get_current_instance()
        if self.phase == 'train' and self.setting == 'layout_oracle':
            logger.warning(
                "setting='layout_oracle': the TRUE labels of unseen classes reach "
                'training. This is no zero-shot result in the strict sense; it '
                "repeats ZS3Net's official training."
            )
        if self.phase == 'train' and self.setting == 'unseen_location':
            logger.warning(
                "setting='unseen_location': training is told WHERE unseen classes are, "
                'though not which. This is no inductive result: say "leaks" beside it.'
            )
        if self.pseudo_labels is not None:
            logger.warning(
                f"pseudo_label_dir='{self.pseudo_labels.folder}': pixels of unseen "
                f'classes get labels made by {self.pseudo_labels.model}, settings '
                f'{self.pseudo_labels.settings}.'
            )

    @property
    def metainfo(self) -> dict[str, Any]:
        """Names, colours, split and special labels, as a copy."""
        return copy.deepcopy(self._metainfo)

    def full_init(self) -> None:
        """Read the lists, check that files exist, and find the images to drop."""
        if self._fully_initialized:
            return
        with explained(self.dataset):
            self.dataset.full_init()
        for leaf in self._leaves:
            require_files(leaf)
        if self.phase == 'test':
            self._output_names = output_names(image_paths(self.dataset))
            if not clashes(Path(path).stem for path in self._output_names):
                self._output_names = {}
        self._choose_samples()
        self._fully_initialized = True

    def _choose_samples(self) -> None:
        """Find the images to drop; the lists have been read."""
        if self.unseen_policy == 'drop_image':
            tables = {
                id(leaf): table
                for leaf, table in zip(self._leaves, self._tables, strict=True)
            }
            self._positions = images_without_unseen(self.dataset, tables, self.split)

    @force_full_init
    def __len__(self) -> int:
        if self._positions is not None:
            return len(self._positions)
        return len(self.dataset)

    def _inner_index(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(
                f'index {int(index)} is out of range for {len(self)} images'
            )
        index = int(index) % len(self)
        return index if self._positions is None else int(self._positions[index])

    @force_full_init
    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Return the annotation of one sample; its labels are still the inner ones."""
        return self.dataset.get_data_info(self._inner_index(idx))

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """Return one sample after the pipeline.

        Its random numbers follow from the draw alone if ``idx`` is a
        :class:`~zs3_mmseg.utils.random_state.Draw`.
        """
        if not self._fully_initialized:
            self.full_init()
        with draw_rng(idx):
            return self._named(self.dataset[self._inner_index(idx)])

    def _named(self, sample: dict[str, Any], **metainfo: Any) -> dict[str, Any]:
        """Put into the metainfo of a sample what only the data set knows of it."""
        packed = sample.get('data_samples')
        # Test-time augmentation packs a list of views.
        for view in packed if isinstance(packed, list) else [packed]:
            if view is None:
                continue
            own = self._output_names.get(view.metainfo.get('img_path'))
            view.set_metainfo(metainfo | ({} if own is None else {OUTPUT_NAME: own}))
        return sample

    @force_full_init
    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep some samples: the first n, the last n (negative), or those given."""
        positions = self._positions
        if positions is None:
            positions = np.arange(len(self.dataset))
        if isinstance(indices, int):
            chosen = positions[:indices] if indices >= 0 else positions[indices:]
        else:
            chosen = positions[np.asarray(indices, dtype=np.int64)]
        self._positions = chosen

    def get_subset(self, indices: int | Sequence[int]) -> ZeroShotDataset:
        """Return a data set of some samples; see :meth:`get_subset_`."""
        subset = copy.copy(self)
        subset.get_subset_(indices)
        return subset


def _read_by(dataset: Any) -> list[BaseDataset]:
    """Return the data sets that read files for a wrapper, each once."""
    readers = list({id(leaf): leaf for leaf in leaves(dataset)}.values())
    for reader in readers:
        if not isinstance(reader, BaseDataset):
            raise TypeError(
                'ZeroShotDataset wraps data sets such as BaseSegDataset, and mmengine '
                f'wrappers of them; got {type(reader).__name__}'
            )
    return readers


def _with_pipeline(
    dataset: Mapping[str, Any] | Any, pipeline: Sequence[Any] | None
) -> Mapping[str, Any] | Any:
    """Return the config of a wrapped data set with the pipeline in it."""
    if pipeline is None:
        return dataset
    if not isinstance(dataset, Mapping) or not {
        'dataset',
        'datasets',
        'pipeline',
    }.isdisjoint(dataset):
        raise ValueError(
            'ZeroShotDataset.pipeline is for a data set given as a config without a '
            'pipeline of its own, and not for wrappers: set one of the two, with '
            'pipeline=None here where a base config sets it'
        )
    return {**dataset, 'pipeline': list(pipeline)}


def _names_include_zero(leaf: BaseDataset) -> bool:
    """Whether the names of a data set begin with the label that would be removed.

    True for a class such as ``PascalVOCDataset``, which names background and does not
    ask for ``reduce_zero_label`` itself: True was set from outside.
    """
    names = type(leaf).METAINFO.get('classes') or ('',)
    default = init_default(type(leaf), 'reduce_zero_label')
    return canonical(names[0]) == 'background' and default is False
