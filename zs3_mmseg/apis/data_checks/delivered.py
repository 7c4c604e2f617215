"""What leaves a data set and its pipeline, as the model would get it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS

from zs3_mmseg.apis.data_checks.finding import Finding
from zs3_mmseg.apis.data_checks.parts import part_configs
from zs3_mmseg.datasets.splits import ZeroShotSplit, find_name, resolve_split
from zs3_mmseg.engine.protocol import (
    LabelCounts,
    ProtocolError,
    allowed_in_training,
    require_legal_labels,
    require_matching_prompts,
    require_phase,
    require_same_classes,
    require_same_split,
    require_some_labels,
)
from zs3_mmseg.utils.random_state import get_random_state, set_random_state


@dataclass
class Delivered:
    """Samples as the model would get them.

    Attributes:
        meta: metainfo of the data set.
        counts: the labels of the samples.
        images: paths of the images of all samples, where the data set knows them.
        rows: RGB image (H, W, 3) and label map (H, W) of a few samples.
        findings: what went wrong.
    """

    meta: Mapping[str, Any] = field(default_factory=dict)
    counts: LabelCounts = field(default_factory=LabelCounts)
    images: list[str] = field(default_factory=list)
    rows: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def prompted(self) -> bool:
        """Whether labels say "the named class or not" in place of classes."""
        return 'prompted' in self.meta


@dataclass(frozen=True)
class Experiment:
    """What the model of a config expects of its data.

    Attributes:
        split: the model's, or else that of any data set of the config.
        test_split: the model's in testing; None if the model has no split.
        setting: ``'inductive'`` and so on; None if nothing says.
        segmentor: the model's class; None if no such class is known.
    """

    split: ZeroShotSplit | None
    test_split: ZeroShotSplit | None
    setting: str | None
    segmentor: type | None = None


def experiment_of(config: Config) -> Experiment:
    """Read split and setting out of a config."""
    model = config.get('model') or {}
    if model.get('split') is not None:
        split = resolve_split(model['split'])
        tested = model.get('test_split')
        return Experiment(
            split,
            split if tested is None else resolve_split(tested),
            model.get('setting'),
            MODELS.get(model['type']) if isinstance(model.get('type'), str) else None,
        )
    for name in ('train', 'test', 'val'):
        loader = config.get(f'{name}_dataloader') or {}
        for part in part_configs('', loader.get('dataset') or {}):
            if part.split is not None:
                return Experiment(part.split, None, None)
    return Experiment(None, None, None)


def deliver(
    key: str,
    config: Mapping[str, Any],
    experiment: Experiment,
    *,
    samples: int,
    shown: int,
    known_bad: bool,
) -> Delivered:
    """Build a data set with its pipeline and look at what comes out.

    Args:
        key: of the data loader in the config.
        config: of the data set.
        experiment: what the model expects.
        samples: how many samples to load, spread evenly.
        shown: how many of them to keep for pictures.
        known_bad: whether faults were found in the files already; what fails here
            probably follows from them then, and is only noted.
    """
    result, where = Delivered(), f'{key}.dataset'
    try:
        dataset = DATASETS.build(config)
        result.meta = dataset.metainfo
        if result.prompted:
            infos = [dataset.get_data_info(index) for index in range(len(dataset))]
            result.images = [str(info.get('img_path')) for info in infos]
    except Exception as error:  # noqa: BLE001  (any data set of any project)
        result.findings.append(
            Finding('cannot_build', where, _line(error), where, fault=not known_bad)
        )
        return result
    wanted = np.linspace(0, len(dataset) - 1, min(samples, len(dataset)))
    kept = set(np.linspace(0, len(wanted) - 1, min(shown, len(wanted))).round())
    failed: list[str] = []
    state = get_random_state()
    for place, index in enumerate(wanted.round().astype(int)):
        try:
            sample = dataset[int(index)]
        except Exception as error:  # noqa: BLE001  (any transform of any project)
            failed.append(f'sample {index}: {_line(error)}')
            continue
        result.counts.add(sample)
        if place in kept:
            result.rows += _pictures(sample)
    set_random_state(state)
    if failed:
        result.findings.append(
            Finding(
                'pipeline_error',
                where,
                failed[0],
                f'{where}.pipeline, or what the message says',
                count=len(failed),
                fault=not known_bad,
            )
        )
    result.findings += _disagreements(key, result, experiment)
    return result


def _line(error: Exception) -> str:
    return ' '.join(str(error).split()) or type(error).__name__


def _pictures(sample: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    inputs = sample.get('inputs') if isinstance(sample, Mapping) else None
    if not isinstance(inputs, torch.Tensor) or inputs.dtype != torch.uint8:
        return []
    data = sample['data_samples']
    if 'gt_sem_seg' not in data or data.gt_sem_seg.shape != inputs.shape[1:]:
        return []
    image = inputs.permute(1, 2, 0).flip(2)  # BGR, as mmcv reads
    return [(image.contiguous().numpy(), data.gt_sem_seg.data[0].numpy())]


def _disagreements(
    key: str, found: Delivered, experiment: Experiment
) -> Iterator[Finding]:
    """Ask the questions of ProtocolCheckHook that need no model."""
    meta, phase = found.meta, 'train' if key.startswith('train') else 'test'
    questions = [
        partial(require_phase, meta, phase, key),
        partial(require_some_labels, found.counts, meta, key),
    ]
    if 'seen' in meta and experiment.segmentor is not None:
        questions.append(
            partial(
                require_matching_prompts,
                experiment.segmentor,
                meta,
                key,
                training=phase == 'train',
            )
        )
    split = experiment.test_split
    if split is not None and meta.get('classes'):
        if phase == 'train':
            split = experiment.split or split
        questions.append(partial(require_same_classes, split.classes, meta, key))
        if 'unseen' in meta:
            questions.append(partial(require_same_split, split, meta, key))
    for ask in questions:
        try:
            ask()
        except ProtocolError as error:
            yield Finding('protocol', f'{key}.dataset', str(error), f'{key}.dataset')
    if phase == 'train' and not found.prompted:
        yield from _leaked(key, found, experiment)


def _leaked(key: str, found: Delivered, experiment: Experiment) -> Iterator[Finding]:
    """Find labels of unseen classes in what training gets."""
    meta, split = found.meta, experiment.split
    names = meta.get('classes') or ()
    setting = experiment.setting or meta.get('setting') or 'inductive'
    if 'seen' in meta:
        allowed = allowed_in_training({**meta, 'setting': setting})
        if meta['setting'] == 'layout_oracle':
            allowed |= set(meta['unseen'])  # let through by name, and logged
        try:
            counts = found.counts
            require_legal_labels(counts, allowed | set(meta['unseen']), meta, key)
        except ProtocolError as error:
            yield Finding('protocol', f'{key}.dataset', str(error), f'{key}.dataset')
        hidden = set(meta['unseen']) - allowed
    elif split is not None and setting != 'supervised':
        places = [find_name(name, names) for name in split.unseen] if names else []
        hidden = {place for place in places if place is not None}
    else:
        return
    leaked = sorted(hidden & set(found.counts.pixels))
    if leaked:
        listed = ', '.join(f'{names[label]!r} ({label})' for label in leaked[:8])
        yield Finding(
            'unseen_in_training',
            f'{key}.dataset',
            f'labels of {len(leaked)} unseen classes reach {setting} training: '
            f'{listed}',
            f"{key}.dataset: wrap it in dict(type='ZeroShotDataset', phase='train', "
            f'setting={setting!r}, split=...), and load labels once only',
            count=len(leaked),
        )
