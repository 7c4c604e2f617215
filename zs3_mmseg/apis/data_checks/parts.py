"""What a check looks at and finds: data sets that read files, and findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmengine.dataset import BaseDataset

from zs3_mmseg.datasets.scan import build_dataset
from zs3_mmseg.datasets.splits import ZeroShotSplit, resolve_split
from zs3_mmseg.datasets.wrappers import children
from zs3_mmseg.utils.labels import NARROW

#: Every kind of finding, in one line each.
KINDS = {
    'cannot_build': 'the data set of the config cannot be built',
    'missing_image': 'a listed image does not exist',
    'missing_mask': 'an image has no mask',
    'unpaired_mask': 'a mask has no image',
    'wrong_split_file': 'the list of ids belongs to other files or another part',
    'duplicate_ids': 'an image is listed more than once',
    'unreadable_image': 'an image cannot be decoded to its end',
    'unreadable_mask': 'a mask cannot be decoded to its end',
    'size_mismatch': 'image and mask differ in size',
    'colour_mask': 'a mask holds colours in place of class indices',
    'deep_mask': 'a mask has 16 bits, of which the loader keeps the lower 8',
    'label_out_of_range': 'a label is neither a class nor ignored',
    'shifted_labels': 'labels are one too high',
    'background_kept': 'background is label 0, but the classes do not name it',
    'reduced_twice': 'reduce_zero_label removes a label that was removed before',
    'empty_mask': 'a mask holds nothing but ignored pixels or background',
    'swapped_class_order': 'names and label values are in different orders',
    'absent_class': 'a class never occurs',
    'unseen_in_training': 'the label of an unseen class reaches training',
    'pipeline_error': 'the pipeline fails on a sample',
    'protocol': 'data set, split, model and metric do not agree',
}
_SHOWN_FILES = 5


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be.

    Attributes:
        kind: a key of :data:`KINDS`.
        where: the data set, as a dotted key of the config.
        message: the facts.
        change: the config key to change, or what to do with the files.
        files: some of the files concerned.
        count: how many files (or whatever the message counts).
        fault: False for what may be right, such as a class that never occurs.
    """

    kind: str
    where: str
    message: str
    change: str
    files: tuple[str, ...] = ()
    count: int = 1
    fault: bool = True

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def about_files(
    kind: str,
    where: str,
    message: str,
    change: str,
    files: Iterable[str],
    *,
    fault: bool = True,
) -> Finding:
    """Make a finding about files; the message may hold ``{n}``, their number."""
    paths = list(files)
    return Finding(
        kind,
        where,
        message.format(n=len(paths)),
        change,
        tuple(paths[:_SHOWN_FILES]),
        len(paths),
        fault,
    )


@dataclass(frozen=True)
class PartConfig:
    """The config of one data set that reads files.

    Attributes:
        key: its dotted key, such as ``train_dataloader.dataset.dataset``.
        config: without its pipeline.
        split: the split of the wrapper around it, if there is one.
    """

    key: str
    config: Mapping[str, Any]
    split: ZeroShotSplit | None

    @property
    def phase(self) -> str:
        """``'train'``, ``'val'`` or ``'test'``."""
        return self.key.split('_', 1)[0]


@dataclass(frozen=True)
class LabelMeaning:
    """What the values of a data set's masks stand for.

    Attributes:
        classes: names of the values ``first``, ``first + 1`` and so on.
        first: 1 if ``reduce_zero_label`` removes label 0, else 0.
        ignored: legal values that are no class.
    """

    classes: tuple[str, ...]
    first: int
    ignored: frozenset[int]

    @property
    def reduces(self) -> bool:
        """Whether label 0 is removed."""
        return self.first == 1

    @property
    def end(self) -> int:
        """The value after the last class."""
        return self.first + len(self.classes)

    def name(self, value: int) -> str | None:
        """Return the class of a value, None for any other."""
        inside = self.first <= value < self.end
        return self.classes[value - self.first] if inside else None

    def is_legal(self, value: int) -> bool:
        """Whether a value is a class or ignored."""
        return self.first <= value < self.end or value in self.ignored


@dataclass(frozen=True)
class Part:
    """One data set that reads files, built without a pipeline.

    Attributes:
        key: its dotted key in the config.
        dataset: the data set.
        meaning: what its label values stand for; None if nobody names classes.
        split: the split of the wrapper around it, if there is one.
    """

    key: str
    dataset: BaseDataset
    meaning: LabelMeaning | None
    split: ZeroShotSplit | None

    @property
    def phase(self) -> str:
        """``'train'``, ``'val'`` or ``'test'``."""
        return self.key.split('_', 1)[0]


def part_configs(
    key: str, config: Mapping[str, Any], split: ZeroShotSplit | None = None
) -> Iterator[PartConfig]:
    """Yield the data sets inside wrappers with their keys."""
    if config.get('split') is not None and 'phase' in config:
        split = resolve_split(config['split'])
    inside = children(config)
    if not inside:
        left_out = ('lazy_init', 'pipeline')  # everything is read at once
        bare = {name: value for name, value in config.items() if name not in left_out}
        yield PartConfig(key, bare, split)
    for name, child in inside:
        yield from part_configs(f'{key}.{name}', child, split)


def build_part(found: PartConfig) -> Part:
    """Build a data set without its pipeline."""
    dataset = build_dataset({**found.config, 'pipeline': []})
    dataset.full_init()
    return Part(found.key, dataset, _meaning(dataset, found.split), found.split)


def _meaning(dataset: BaseDataset, split: ZeroShotSplit | None) -> LabelMeaning | None:
    reduces = bool(getattr(dataset, 'reduce_zero_label', False))
    chosen = getattr(dataset, 'label_map', None) is not None
    names: Sequence[str] | None = dataset.metainfo.get('classes')
    if chosen:  # labels on disk are those of all classes
        names = type(dataset).METAINFO['classes']
    if names is None and split is not None:
        names = split.classes
    if names is None:
        return None
    ignored = {getattr(dataset, 'ignore_index', NARROW.ignore)}
    if reduces or chosen:
        ignored.add(NARROW.ignore)
    return LabelMeaning(
        tuple(names), int(reduces), frozenset(ignored | ({0} if reduces else set()))
    )
