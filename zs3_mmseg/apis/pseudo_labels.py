"""Pseudo-labels: what a model is sure of among the classes nobody labelled.

The self-training of ZS5Net (arXiv 1906.00817, 3.5) on images whose unseen classes are
not labelled. The maps are read through ``ZeroShotDataset.pseudo_label_dir``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from mmengine.config import Config
from mmengine.dataset import Compose
from mmseg.registry import DATASETS

from zs3_mmseg.apis.pipeline import as_batch, find_test_pipeline
from zs3_mmseg.datasets.labels import SIDECAR
from zs3_mmseg.datasets.splits import ZeroShotSplit
from zs3_mmseg.datasets.wrappers import image_paths
from zs3_mmseg.datasets.zero_shot_dataset import ZeroShotDataset
from zs3_mmseg.utils.cache import atomic_write
from zs3_mmseg.utils.labels import special_labels
from zs3_mmseg.utils.names import choose, type_name
from zs3_mmseg.utils.output_names import clashes, require_no_input

RANKINGS = ('class', 'image')


@dataclass(frozen=True)
class PseudoLabelChoice:
    """Which of the predicted pixels are kept.

    Attributes:
        top_percent: share of the pixels predicted unseen, in (0, 100]. The paper takes
            25 on PASCAL VOC and 75 on Pascal-Context.
        ranking: among whom a pixel has to be one of the surest: those of its
            ``'class'`` in the image, or all unseen ones of the ``'image'``.

    Raises:
        ValueError: if an option is none of its choices.
    """

    top_percent: float = 25.0
    ranking: str = 'class'

    def __post_init__(self) -> None:
        if not 0 < self.top_percent <= 100:
            raise ValueError(
                f'top_percent must be above 0 and at most 100, got {self.top_percent}'
            )
        choose('ranking', self.ranking, RANKINGS)

    def keep(
        self,
        labels: np.ndarray,
        confidence: np.ndarray,
        unseen: Collection[int],
        ignore: int,
    ) -> np.ndarray:
        """Return a label map of the surest pixels of unseen classes.

        Args:
            labels: predicted classes, ``(H, W)``.
            confidence: of these predictions, ``(H, W)``.
            unseen: the unseen classes.
            ignore: what all other pixels become.

        Returns:
            ``(H, W)``. Pixels as sure as the last one kept are kept as well, so there
            is at least one for each class that was predicted.
        """
        kept = np.full_like(labels, ignore)
        groups = [[k] for k in unseen] if self.ranking == 'class' else [[*unseen]]
        for group in groups:
            predicted = np.isin(labels, group)
            if not predicted.any():
                continue
            least = np.percentile(
                confidence[predicted], 100 - self.top_percent, method='lower'
            )
            sure = predicted & (confidence >= least)
            kept[sure] = labels[sure]
        return kept


def make_pseudo_labels(
    model: nn.Module,
    config: Config,
    out_dir: str | Path,
    choice: PseudoLabelChoice,
    *,
    source: Mapping[str, Any],
) -> Iterator[dict[str, int]]:
    """Write a map for each training image; a label of the data set is never read.

    Args:
        model: a segmentor in eval mode, as ``init_segmentor`` returns it.
        config: its training data say which images, and its test pipeline how they
            reach the model.
        out_dir: where the maps and, after the last of them, their sidecar go.
        choice: which pixels are kept.
        source: what the sidecar says of the model, with ``model``: its name.

    Yields:
        after each image, the number of pixels that each unseen class got in it.

    Raises:
        ValueError: if the training data are no ``ZeroShotDataset``, the model has other
            classes, or two images have the same name.
    """
    dataset = _training_images(config)
    split: ZeroShotSplit = dataset.split
    _require_classes(model, split)
    images = _unique_paths(dataset)
    folder = Path(out_dir)
    inputs = [
        *image_paths(dataset.dataset),
        *image_paths(dataset.dataset, 'seg_map_path'),
    ]
    require_no_input((str(folder / f'{name}.png') for name in images), inputs)
    folder.mkdir(parents=True, exist_ok=True)
    # Maps of another model would be taken for this one's.
    (folder / SIDECAR).unlink(missing_ok=True)
    steps = [step for step in find_test_pipeline(config) if not _loads_labels(step)]
    pipeline = Compose(steps)
    ignore = special_labels(len(split.classes)).ignore
    for name, path in images.items():
        labels, confidence = _predict(model, pipeline(dict(img_path=path)))
        labels = labels.astype(np.uint8 if ignore < 256 else np.uint16)
        kept = choice.keep(labels, confidence, split.unseen_indices, ignore)
        save = partial(Image.fromarray(kept).save, format='PNG')
        atomic_write(folder / f'{name}.png', save)
        yield {
            unseen: int((kept == index).sum())
            for unseen, index in zip(split.unseen, split.unseen_indices, strict=True)
        }
    sidecar = {
        'model': source['model'],
        'settings': {
            **{key: value for key, value in source.items() if key != 'model'},
            'top_percent': choice.top_percent,
            'ranking': choice.ranking,
        },
        'classes': list(split.classes),
    }
    text = json.dumps(sidecar, indent=2).encode()
    atomic_write(folder / SIDECAR, lambda stream: stream.write(text))


def count_training_images(config: Config) -> int:
    """Return how many maps :func:`make_pseudo_labels` will write."""
    return len(_unique_paths(_training_images(config)))


def _training_images(config: Config) -> ZeroShotDataset:
    """Build the training data set with all of its images, whatever they show."""
    given = dict((config.get('train_dataloader') or {}).get('dataset') or {})
    if type_name(given.get('type')) != 'ZeroShotDataset':
        raise ValueError(
            'pseudo-labels are for a ZeroShotDataset as train_dataloader.dataset, '
            f'which knows the unseen classes; got {given.get("type")!r}'
        )
    given.update(setting='inductive', unseen_policy='ignore', pseudo_label_dir=None)
    return DATASETS.build(given)


def _require_classes(model: Any, split: ZeroShotSplit) -> None:
    names = tuple(model.dataset_meta['classes'])
    if names != split.classes:
        raise ValueError(
            f'the model has {len(names)} classes, {", ".join(names[:4])}, ..., which '
            f'are not those of split {split.name!r} of train_dataloader.dataset'
        )


def _unique_paths(dataset: ZeroShotDataset) -> dict[str, str]:
    """Return the images by the names of their maps; repeated ones count once."""
    paths = [*dict.fromkeys(image_paths(dataset.dataset))]
    found = {Path(path).stem: path for path in paths}
    for name in clashes(Path(path).stem for path in paths)[:1]:
        first, second, *_ = (p for p in paths if Path(p).stem.casefold() == name)
        raise ValueError(
            f'{first} and {second} have one name and would have the same map {name}.png'
        )
    return found


def _loads_labels(step: Mapping[str, Any]) -> bool:
    return 'LoadAnnotations' in str(step['type'])


@torch.no_grad()
def _predict(model: Any, item: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return the class of each pixel and its confidence, ``(H, W)`` each."""
    (sample,) = model.test_step(as_batch(item))
    scores: torch.Tensor = sample.seg_logits.data.float()
    if getattr(model.decode_head, 'score_kind', 'logit') == 'logit':
        scores = scores.softmax(dim=0)
    confidence, labels = scores.max(dim=0)
    return labels.cpu().numpy(), confidence.cpu().numpy()
