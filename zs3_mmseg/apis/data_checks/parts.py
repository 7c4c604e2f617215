"""What a check looks at and finds: data sets that read files, and findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from zs3_mmseg.datasets.folder import FolderSegDataset
from zs3_mmseg.datasets.scan import build_dataset, explained
from zs3_mmseg.datasets.splits import ZeroShotSplit, resolve_split
from zs3_mmseg.datasets.splits.name_files import CLASSES_FILE
from zs3_mmseg.datasets.wrappers import children
from zs3_mmseg.utils.faults import collected_faults
from zs3_mmseg.utils.labels import NARROW

#: Every kind of finding, in one line each.
KINDS = {
    'cannot_build': 'the data set of the config cannot be built',
    'inconsistent_folder': 'names, colours or files contradict each other',
    'missing_image': 'a listed image does not exist',
    'missing_mask': 'an image has no mask',
    'unpaired_mask': 'a mask has no image',
    'wrong_split_file': 'the list of ids belongs to other files or another part',
    'duplicate_ids': 'an image is listed more than once',
    'copied_images': 'images of other names have the same content',
    'unreadable_image': 'an image cannot be decoded to its end',
    'unreadable_mask': 'a mask cannot be decoded to its end',
    'size_mismatch': 'image and mask differ in size',
    'turned_image': 'an image is turned by its EXIF data, its mask is not',
    'exchanged_files': 'a mask is the image itself, or both are exchanged',
    'identical_masks': 'different images have the same mask',
    'colour_mask': 'a mask holds colours in place of class indices',
    'unusual_mask': 'a mask holds alpha, floats or several frames',
    'smeared_mask': 'a mask was smoothed or saved with loss',
    'deep_mask': 'a mask has 16 bits, of which the loader keeps the lower 8',
    'label_out_of_range': 'a label is neither a class nor ignored',
    'shifted_labels': 'labels seem to be one too high',
    'background_kept': 'background seems to be label 0, which the classes do not name',
    'void_kept': 'void seems to be the label after the last class',
    'reduced_twice': 'reduce_zero_label seems to remove the label of a class',
    'one_label': 'masks hold one label only, as black-and-white ones do',
    'dominant_class': 'one class covers nearly everything',
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

    @property
    def is_joined(self) -> bool:
        """Whether it is one of several data sets of a loader."""
        return '.datasets.' in self.key

    def place(self, what: str) -> str:
        """Return where a user changes names, images, masks or the list of images.

        Args:
            what: ``'names'``, ``'images'``, ``'masks'`` or ``'list'``.
        """
        if isinstance(self.dataset, FolderSegDataset):
            root = Path(str(self.dataset.data_root))
            names = root / f'{self.dataset.subset}.txt'
            if what == 'names':
                return str(root / CLASSES_FILE)
            if what == 'list' and names.is_file():
                return str(names)
            prefix = self.dataset.data_prefix
            return prefix['seg_map_path' if what == 'masks' else 'img_path']
        listed = getattr(self.dataset, 'ann_file', '')
        keys = {
            'names': 'metainfo.classes',
            'images': 'data_prefix.img_path or img_suffix',
            'masks': 'data_prefix.seg_map_path or seg_map_suffix',
            'list': f'ann_file ({listed})' if listed else 'data_prefix',
        }
        return f'{self.key}.{keys[what]}'


def find_split(given: Any, where: str) -> tuple[ZeroShotSplit | None, list[Finding]]:
    """Return the split of a config, or None and what is wrong with it."""
    with collected_faults() as faults:
        try:
            return resolve_split(given), _told(faults, where)
        except (KeyError, OSError, TypeError, ValueError) as error:
            return None, _told(faults or [error], where)


def _told(errors: Iterable[Exception], where: str) -> list[Finding]:
    return [
        Finding('inconsistent_folder', where, one_line(e), 'what the message names')
        for e in errors
    ]


def one_line(error: Exception) -> str:
    """Return the message of an error without line breaks."""
    # str() of a KeyError is the repr of its message.
    text = str(error.args[0] if isinstance(error, KeyError) else error)
    return ' '.join(text.split()) or type(error).__name__


def part_configs(
    key: str, config: Mapping[str, Any], split: ZeroShotSplit | None = None
) -> Iterator[PartConfig]:
    """Yield the data sets inside wrappers with their keys."""
    if config.get('split') is not None and 'phase' in config:
        split, _ = find_split(config['split'], key)
    inside = children(config)
    if not inside:
        left_out = ('lazy_init', 'pipeline')  # everything is read at once
        bare = {name: value for name, value in config.items() if name not in left_out}
        yield PartConfig(key, bare, split)
    for name, child in inside:
        yield from part_configs(f'{key}.{name}', child, split)


def build_part(found: PartConfig) -> tuple[Part, list[Finding]]:
    """Build a data set without its pipeline; tell what it puts up with."""
    with collected_faults() as faults:
        dataset = build_dataset({**found.config, 'pipeline': []})
        with explained(found.config):
            dataset.full_init()
    meaning = _meaning(dataset, found.split)
    return Part(found.key, dataset, meaning, found.split), _told(faults, found.key)


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
