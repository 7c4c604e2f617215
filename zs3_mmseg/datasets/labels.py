"""From the labels of a data set to those of a split: table, pseudo-labels, pipeline.

A step in the pipeline takes over each label map as soon as it has been loaded. Unseen
labels have to be hidden before any other transform can look at them: a crop that
balances classes, say, would place itself by what must not be known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mmcv.transforms
from mmengine.dataset import BaseDataset, Compose
from mmseg.datasets.transforms import LoadAnnotations

from zs3_mmseg.utils.image_io import ImageReadError, decode_mask
from zs3_mmseg.utils.labels import SpecialLabels, special_labels
from zs3_mmseg.utils.names import did_you_mean, read_json

from .splits import NameFinder, ZeroShotSplit
from .splits.zero_shot_split import SETTINGS

PHASES = ('train', 'test')
#: Settings of a data set: besides those of training, one that lets labels leak.
DATA_SETTINGS = (*SETTINGS, 'layout_oracle')

# Size of a table that answers every 8-bit or 16-bit label value.
_NARROW_VALUES, _WIDE_VALUES = 2**8, 2**16


def hides_unseen(phase: str, setting: str) -> bool:
    """Whether pixels of unseen classes are hidden: only in zero-shot training."""
    return phase == 'train' and setting not in ('supervised', 'layout_oracle')


@dataclass(frozen=True)
class LabelTable:
    """What becomes of each label value of one data set.

    Attributes:
        targets: the new label of each value, (V,), uint8 or uint16.
        known: whether a value is a class or ignore, (V,), bool.
        hidden: whether a value is an unseen class and hidden, (V,), bool.
        expected: the legal values in words, for messages.
    """

    targets: np.ndarray
    known: np.ndarray
    hidden: np.ndarray
    expected: str

    def check(self, labels: np.ndarray, origin: str) -> None:
        """Refuse a map that is no (H, W) of integers that are classes or ignore."""
        if labels.ndim != 2 or labels.dtype.kind not in 'iu':
            channels = labels.shape[-1] if labels.ndim == 3 else 1
            held = {1: 'floats', 2: 'grey with alpha', 4: 'colours with alpha'}
            raise ValueError(
                f'{origin}: expected a label map (H, W) of integers, got shape '
                f'{labels.shape} of {labels.dtype}: '
                f'{held.get(channels, "is the mask colour-coded?")}'
            )
        if labels.dtype == np.uint8 or not labels.size:
            inside = True
        else:
            inside = labels.min() >= 0 and labels.max() < len(self.known)
        if inside and self.known[labels].all():
            return
        wrong = [value for value in np.unique(labels) if not self._knows(value)]
        named = listed_values(wrong)
        raise ValueError(
            f'{origin}: label values {named} are neither a class nor ignore; '
            f'expected {self.expected}. Is the mask colour-coded, or is '
            'ignore_index, reduce_zero_label or the class list of the data set wrong?'
        )

    def _knows(self, value: int) -> bool:
        return 0 <= value < len(self.known) and bool(self.known[value])

    def apply(self, labels: np.ndarray) -> np.ndarray:
        """Return the new labels of a checked map, (H, W), uint8 or uint16."""
        return self.targets[labels]


def listed_values(values: Sequence[int], limit: int = 8) -> str:
    """Return the first values in words, and how many there are if these are more."""
    shown = ', '.join(str(value) for value in values[:limit])
    return shown if len(values) <= limit else f'{shown}, ... ({len(values)} values)'


def make_table(
    split: ZeroShotSplit,
    inner_classes: Sequence[str] | None,
    *,
    phase: str,
    setting: str,
    ignore_values: Iterable[int],
    origin: str,
) -> LabelTable:
    """Make the table from the label values of a data set to those of a split.

    A class of the data set that the split does not name becomes ignore, in training
    and testing alike: that is how a split without background drops it. Without names
    (``inner_classes`` is None) its labels are indices into ``split.classes``.
    """
    names = split.classes if inner_classes is None else tuple(inner_classes)
    hides = hides_unseen(phase, setting)
    # A training set may simply lack the unseen classes: nobody drew their masks.
    needed = split.seen if hides else split.classes
    positions = _positions(split, names, needed, origin)
    special = special_labels(len(split.classes))
    ignored = sorted(set(ignore_values))
    for value in ignored:
        if not len(names) <= value < _WIDE_VALUES:
            raise ValueError(
                f'{origin}: ignore_index {value} must lie above the {len(names)} '
                f'labels of its classes and below {_WIDE_VALUES}'
            )
    highest = max([len(names) - 1, *ignored])
    size = _NARROW_VALUES if highest < _NARROW_VALUES else _WIDE_VALUES
    kind = np.uint8 if special.ignore < _NARROW_VALUES else np.uint16
    targets = np.full(size, special.ignore, dtype=kind)
    known = np.zeros(size, dtype=bool)
    hidden = np.zeros(size, dtype=bool)
    known[: len(names)] = True
    known[ignored] = True
    unseen = set(split.unseen_indices)
    for index, position in enumerate(positions):
        if position is None:
            continue
        if hides and index in unseen:
            hidden[position] = True
            targets[position] = _hidden_label(setting, special)
        else:
            targets[position] = index
    expected = f'0 to {len(names) - 1} ({len(names)} classes) or ' + ' or '.join(
        str(value) for value in ignored
    )
    return LabelTable(targets, known, hidden, expected)


def _hidden_label(setting: str, special: SpecialLabels) -> int:
    return special.ignore if setting == 'inductive' else special.unlabelled


def _positions(
    split: ZeroShotSplit, names: Sequence[str], needed: Sequence[str], origin: str
) -> list[int | None]:
    """Find the label value of each class of the split in the data set."""
    finder = NameFinder(names)
    positions = [finder.find(name) for name in split.classes]
    found = dict(zip(split.classes, positions, strict=True))
    missing = [name for name in needed if found[name] is None]
    if missing:
        hint = did_you_mean(missing[0], names)
        raise ValueError(
            f'{origin} has no class {", ".join(repr(name) for name in missing)}, which '
            f'split {split.name!r} needs.{hint} It has {", ".join(names)}'
        )
    owner: dict[int, str] = {}
    for name, position in found.items():
        if position is None:
            continue
        if position in owner:
            raise ValueError(
                f'{origin}: class {names[position]!r} is both {owner[position]!r} and '
                f'{name!r} of split {split.name!r}'
            )
        owner[position] = name
    return positions


SIDECAR = 'pseudo_labels.json'
_KEYS = ('model', 'settings', 'classes')


class PseudoLabels:
    """The maps of one folder, whose sidecar must name the classes of the split."""

    def __init__(self, folder: str | Path, split: ZeroShotSplit) -> None:
        self.folder = Path(folder)
        sidecar = self._read_sidecar()
        classes = tuple(sidecar['classes'])
        if classes != split.classes:
            raise ValueError(
                f'{self.folder / SIDECAR}: its classes are not those of split '
                f'{split.name!r} in the same order; make the maps for this split'
            )
        self.model: str = str(sidecar['model'])
        self.settings: Mapping[str, Any] = sidecar['settings']
        self._classes = len(classes)
        self._ignore = special_labels(len(classes)).ignore

    def _read_sidecar(self) -> dict[str, Any]:
        path = self.folder / SIDECAR
        if not path.is_file():
            raise FileNotFoundError(
                f'{path} is missing: pseudo_label_dir must be a folder that our tool '
                'made, with a sidecar naming its model and settings'
            )
        sidecar = read_json(path)
        if not isinstance(sidecar, dict):
            raise ValueError(f'{path} is no JSON object with {", ".join(_KEYS)}')
        missing = [key for key in _KEYS if key not in sidecar]
        if missing:
            raise ValueError(f'{path} does not name {" and ".join(missing)}')
        return sidecar

    def fill(
        self, labels: np.ndarray, hidden: np.ndarray, image_path: str
    ) -> np.ndarray:
        """Return a new label map, (H, W), with the model's labels where it is hidden.

        Hidden pixels that the model ignored keep the value that hides them. The map has
        the name of the image, with ``.png``.
        """
        path = self.folder / f'{Path(image_path).stem}.png'
        if not path.is_file():
            raise FileNotFoundError(
                f'{path} is missing: no pseudo-labels of this image'
            )
        try:
            pseudo = decode_mask(path).pixels
        except ImageReadError as error:
            raise ValueError(str(error)) from error
        if pseudo.shape != labels.shape:
            raise ValueError(
                f'{path}: the map is {pseudo.shape}, the ground truth {labels.shape}'
            )
        wrong = (pseudo < 0) | ((pseudo >= self._classes) & (pseudo != self._ignore))
        if wrong.any():
            raise ValueError(
                f'{path}: {int(pseudo[wrong][0])} is neither one of {self._classes} '
                f'classes nor {self._ignore}'
            )
        return np.where(hidden & (pseudo != self._ignore), pseudo, labels).astype(
            labels.dtype
        )


#: Where a pipeline keeps the labels of the split, and whether the picture was mirrored.
LABELS_DONE = 'zero_shot_labels'
#: Where it keeps which pixels are one segment, (H, W), 0 for none.
SEGMENT_MAP = 'gt_segment_map'
_COMPOSES = (Compose, mmcv.transforms.Compose)


class LabelStep:
    """The pipeline step that applies a label table once.

    With ``tested``, label maps stay as they are in the file: predictions are brought
    back to its size, whether masks are loaded before a resize and a flip or after it.
    ``then`` is what is done next with the results, before any other transform.
    """

    def __init__(
        self,
        table: LabelTable,
        pseudo_labels: PseudoLabels | None = None,
        *,
        tested: bool = False,
    ) -> None:
        self.table = table
        self.pseudo_labels = pseudo_labels
        self.tested = tested
        self.then: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``gt_seg_map`` if it is there and has not been replaced yet."""
        if 'gt_seg_map' not in results:
            return results
        if LABELS_DONE in results:
            return self._keep(results) if self.tested else results
        labels = results['gt_seg_map']
        image_path = str(results.get('img_path', ''))
        origin = str(results.get('seg_map_path', image_path))
        # The image may have been resized before the label map was loaded.
        size = tuple(results.get('ori_shape', labels.shape))[:2]
        if labels.ndim < 2 and labels.size == np.prod(size):
            labels = labels.reshape(size)  # mmseg squeezes maps of one row or column
        self.table.check(labels, origin)
        if size != labels.shape:
            raise ValueError(
                f'{origin} has {labels.shape[1]} x {labels.shape[0]} pixels, but its '
                f'image {image_path} has {size[1]} x {size[0]}'
            )
        new = self.table.apply(labels)
        if SEGMENT_MAP in results or self.pseudo_labels is not None:
            hidden = self.table.hidden[labels]
            if SEGMENT_MAP in results:
                results[SEGMENT_MAP][hidden] = 0
            if self.pseudo_labels is not None and hidden.any():
                new = self.pseudo_labels.fill(new, hidden, image_path)
        results['gt_seg_map'] = new
        if self.then is not None:
            results = self.then(results)
        results[LABELS_DONE] = results['gt_seg_map'], results.get('flip', False)
        return results

    @staticmethod
    def _keep(results: dict[str, Any]) -> dict[str, Any]:
        """Undo what moved the labels; other changes of them are meant."""
        labels, mirrored = results[LABELS_DONE]
        now = results.get('flip', False)
        # A transform may have said that labels are wanted at another size.
        size = tuple(results.get('ori_shape', labels.shape))[:2]
        if now != mirrored or results['gt_seg_map'].shape != size:
            results['gt_seg_map'] = labels
        results[LABELS_DONE] = results['gt_seg_map'], now
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


def guard_pipeline(pipeline: Any, step: LabelStep) -> None:
    """Insert a label step after every transform, also inside nested pipelines.

    Every transform, because loaders of other projects cannot be told by their type;
    the step costs nothing where there is nothing to do.
    """
    if _is_guarded(pipeline):
        raise ValueError(
            'this data set is already wrapped in a ZeroShotDataset; its labels would '
            'be mapped twice'
        )
    _insert(pipeline, step)


def _is_guarded(pipeline: Any) -> bool:
    return any(isinstance(transform, LabelStep) for transform in pipeline.transforms)


def _insert(pipeline: Any, step: LabelStep) -> None:
    if _is_guarded(pipeline):
        return  # reached a second time, through a transform that is used twice
    transforms = list(pipeline.transforms)
    for transform in transforms:
        for nested in nested_pipelines(transform):
            _insert(nested, step)
    pipeline.transforms = [
        part for transform in transforms for part in (transform, step)
    ]


def nested_pipelines(transform: Any) -> Iterator[Any]:
    """Yield the pipelines that a transform runs, as TestTimeAug does."""
    if isinstance(transform, _COMPOSES):
        yield transform
        return
    for value in vars(transform).values() if hasattr(transform, '__dict__') else ():
        for part in value if isinstance(value, list | tuple) else (value,):
            if isinstance(part, _COMPOSES):
                yield part


def _label_loaders(transforms: Sequence[Any]) -> Iterator[Any]:
    """Yield what loads label maps, also within the pipelines of other transforms."""
    for transform in transforms:
        if isinstance(transform, mmcv.transforms.LoadAnnotations):
            yield transform
        for nested in nested_pipelines(transform):
            yield from _label_loaders(nested.transforms)


def require_wide_loaders(dataset: BaseDataset, highest: int, origin: str) -> None:
    """Refuse mmseg's loader, which keeps 8 bits, where labels reach higher."""
    for loader in _label_loaders(dataset.pipeline.transforms):
        kind = type(loader)
        if highest >= _NARROW_VALUES and (
            getattr(kind, '_load_seg_map', None) is LoadAnnotations._load_seg_map
        ):
            raise ValueError(
                f'{origin}: {kind.__name__} keeps the lower 8 bits of a label, and '
                f'here labels go up to {highest}: use FolderSegDataset with '
                'LoadFolderMasks, or a loader of your own'
            )


def read_labels(dataset: BaseDataset, index: int) -> np.ndarray:
    """Load the label map of one sample, (H, W), as it is before the label step."""
    results: Any = dataset.get_data_info(index)
    transforms = dataset.pipeline.transforms
    loaders = [*_label_loaders(transforms)]
    for transform in loaders[:1] or transforms:
        if isinstance(transform, LabelStep):
            continue
        results = transform(results)
        if results is None:
            break
        if 'gt_seg_map' in results:
            return results['gt_seg_map']
    raise ValueError(
        f'{type(dataset).__name__}: the pipeline loads no label map of sample {index}'
    )
