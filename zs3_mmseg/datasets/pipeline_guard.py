"""Make a pipeline hand over each label map as soon as it has been loaded.

Unseen labels have to be hidden before any other transform can look at them: a crop
that balances classes, say, would place itself by what must not be known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import mmcv.transforms
from mmengine.dataset import BaseDataset, Compose

from zs3_mmseg.datasets.label_policy import LabelTable
from zs3_mmseg.datasets.pseudo_labels import PseudoLabels

#: Set in the results of a pipeline once the labels are those of the split.
LABELS_DONE = 'zero_shot_labels'
_COMPOSES = (Compose, mmcv.transforms.Compose)


class LabelStep:
    """The pipeline step that applies a label table once.

    Args:
        table: what becomes of each label value.
        pseudo_labels: maps for hidden pixels, if there are any.

    Attributes:
        then: what is done next with the results, before any other transform.
    """

    def __init__(
        self, table: LabelTable, pseudo_labels: PseudoLabels | None = None
    ) -> None:
        self.table = table
        self.pseudo_labels = pseudo_labels
        self.then: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``gt_seg_map`` if it is there and has not been replaced yet.

        Raises:
            ValueError: naming the files, if the label map has another size than its
                image or a value that is neither a class nor ignore.
        """
        if 'gt_seg_map' not in results or LABELS_DONE in results:
            return results
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
        if self.pseudo_labels is not None:
            hidden = self.table.hidden[labels]
            if hidden.any():
                new = self.pseudo_labels.fill(new, hidden, image_path)
        results['gt_seg_map'] = new
        results[LABELS_DONE] = True
        return results if self.then is None else self.then(results)

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


def find_leaves(dataset: Any) -> Iterator[BaseDataset]:
    """Yield the data sets inside wrappers such as ConcatDataset, each once.

    Raises:
        TypeError: if something inside is neither a wrapper nor a data set of mmengine.
    """
    found: set[int] = set()
    for leaf in _walk(dataset):
        if id(leaf) not in found:
            found.add(id(leaf))
            yield leaf


def _walk(dataset: Any) -> Iterator[BaseDataset]:
    if isinstance(dataset, BaseDataset):
        yield dataset
    elif hasattr(dataset, 'datasets'):
        for part in dataset.datasets:
            yield from _walk(part)
    elif hasattr(dataset, 'dataset'):
        yield from _walk(dataset.dataset)
    else:
        raise TypeError(
            'ZeroShotDataset wraps data sets such as BaseSegDataset, and mmengine '
            f'wrappers of them; got {type(dataset).__name__}'
        )


def guard_pipeline(pipeline: Any, step: LabelStep) -> None:
    """Insert a label step after every transform, also inside nested pipelines.

    Every transform, because loaders of other projects cannot be told by their type;
    the step costs nothing where there is nothing to do.

    Raises:
        ValueError: if the pipeline has been guarded before.
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
        for nested in _nested_pipelines(transform):
            _insert(nested, step)
    pipeline.transforms = [
        part for transform in transforms for part in (transform, step)
    ]


def _nested_pipelines(transform: Any) -> Iterator[Any]:
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
        for nested in _nested_pipelines(transform):
            yield from _label_loaders(nested.transforms)


def read_labels(dataset: BaseDataset, index: int) -> np.ndarray:
    """Load the label map of one sample as the pipeline does, without the rest.

    Args:
        dataset: a data set whose pipeline has not been guarded yet.
        index: the sample's index.

    Returns:
        The label map before the label step, (H, W).

    Raises:
        ValueError: if the pipeline loads no label map.
    """
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
