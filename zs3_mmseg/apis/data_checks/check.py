"""Check the data that a config names: files, labels, and what training gets."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.progress import track

from mmengine.config import Config

from zs3_mmseg.apis.data_checks.class_order import check_order
from zs3_mmseg.apis.data_checks.delivered import Delivered, deliver, experiment_of
from zs3_mmseg.apis.data_checks.files import image_problem, inspect_mask, label_reader
from zs3_mmseg.apis.data_checks.finding import Finding, about_files
from zs3_mmseg.apis.data_checks.label_values import ValueCounts, check_values
from zs3_mmseg.apis.data_checks.listing import check_listing, check_overlap
from zs3_mmseg.apis.data_checks.parts import Part, build_part, part_configs
from zs3_mmseg.engine.protocol import ProtocolError, require_stated_selection
from zs3_mmseg.utils.labels import NARROW

LOADERS = ('train', 'test', 'val')
# Files of these kinds are told once, by what is wrong with the file itself.
_FILE_MESSAGES = {
    'unreadable_image': (
        '{n} images cannot be decoded to their end ({detail}); mmcv would hand over '
        'the rest as grey pixels',
        'copy these files again',
    ),
    'unreadable_mask': ('{n} masks cannot be decoded ({detail})', 'copy them again'),
    'size_mismatch': (
        '{n} masks have another size than their image ({detail})',
        'pair the right files: {key}.data_prefix, or resize neither alone',
    ),
    'colour_mask': (
        '{n} masks hold colours ({detail}), not class indices',
        'convert them to indices; FolderSegDataset reads colours by palette.txt',
    ),
    'deep_mask': (
        '{n} masks have 16 bits ({detail}); of each value LoadAnnotations keeps the '
        'lower 8 bits without a word',
        'save them with 8 bits',
    ),
    'label_out_of_range': ('{n} masks hold what is no class ({detail})', '{key}'),
}


@dataclass
class PartReport:
    """What was found in the files of one data set.

    Attributes:
        part: the data set.
        listed: how many samples it has.
        counts: label values of the masks that were read.
    """

    part: Part
    listed: int
    counts: ValueCounts


@dataclass
class DataReport:
    """The result of a check.

    Attributes:
        findings: what is wrong or may be, faults first.
        parts: one for each data set that could be built.
        delivered: by the key of the data loader.
    """

    findings: list[Finding] = field(default_factory=list)
    parts: list[PartReport] = field(default_factory=list)
    delivered: dict[str, Delivered] = field(default_factory=dict)

    @property
    def faults(self) -> list[Finding]:
        """The findings that are certainly wrong."""
        return [finding for finding in self.findings if finding.fault]


def check_data(
    config: Config, samples: int | None = 50, *, shown: int = 4, progress: bool = False
) -> DataReport:
    """Check the data sets of a config's loaders.

    Lists of files are always checked whole. Images and masks of a sample are decoded
    here, without the pipeline, and then loaded through it. Nothing is changed.

    Args:
        config: a whole config.
        samples: how many samples of each data set to look at; None for all.
        shown: how many to keep for pictures.
        progress: draw a progress bar.

    Raises:
        ValueError: if the config has no data set at all.
    """
    report = DataReport()
    images: dict[str, list[str]] = {}
    loaders = {
        f'{name}_dataloader': config[f'{name}_dataloader']['dataset']
        for name in LOADERS
        if config.get(f'{name}_dataloader') is not None
    }
    if not loaders:
        raise ValueError(
            f'the config {config.filename} has none of '
            + ', '.join(f'{name}_dataloader' for name in LOADERS)
        )
    experiment = experiment_of(config)
    looked_at: list[tuple[str, Mapping[str, Any]]] = []
    for key, dataset in loaders.items():
        if any(_same(dataset, other) for _, other in looked_at):
            continue  # test and val are often the same
        looked_at.append((key, dataset))
        before = len(report.faults)
        listed: dict[str, list[str]] = {}
        for found in part_configs(f'{key}.dataset', dataset):
            try:
                part = build_part(found)
            except Exception as error:  # noqa: BLE001  (any data set of any project)
                text = ' '.join(str(error).split())
                report.findings.append(
                    Finding('cannot_build', found.key, text, found.key)
                )
                continue
            if not hasattr(part.dataset, 'get_data_info'):
                continue  # no list of files to look at
            infos = [part.dataset.get_data_info(i) for i in range(len(part.dataset))]
            listed[part.key] = [str(info.get('img_path')) for info in infos]
            report.findings += check_listing(part, infos)
            report.findings += _check_files(report, part, infos, samples, progress)
        total = samples or sum(
            p.listed for p in report.parts if p.part.key[:4] == key[:4]
        )
        delivered = deliver(
            key,
            dataset,
            experiment,
            samples=total,
            shown=shown,
            known_bad=len(report.faults) > before,
        )
        report.delivered[key] = delivered
        report.findings += delivered.findings
        # Training and validation by name may share a list and take images in turn.
        chooses = delivered.prompted or dataset.get('held_out')
        images |= {f'{key}.dataset': delivered.images} if chooses else listed
    report.findings += check_overlap(images)
    report.findings += _check_selection(loaders, report)
    report.findings.sort(key=lambda finding: not finding.fault)
    return report


def _check_selection(
    loaders: Mapping[str, Mapping[str, Any]], report: DataReport
) -> Iterator[Finding]:
    """A checkpoint must not be chosen by unseen classes without saying so."""
    key = 'val_dataloader'
    if key not in loaders or 'train_dataloader' not in loaders:
        return
    for other, delivered in report.delivered.items():
        # Where val and test are the same, only test has been looked at.
        if _same(loaders[other], loaders[key]):
            try:
                require_stated_selection(delivered.meta, key)
            except ProtocolError as error:
                where = f'{key}.dataset'
                yield Finding('protocol', where, str(error), f'{where}.selection')


def _same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    return first is second or dict(first) == dict(second)


def _check_files(
    report: DataReport,
    part: Part,
    infos: list[dict[str, Any]],
    samples: int | None,
    progress: bool,
) -> Iterator[Finding]:
    """Decode images and masks, and judge all label values together."""
    count = len(infos) if samples is None else min(samples, len(infos))
    chosen = np.linspace(0, len(infos) - 1, count).round().astype(int).tolist()
    problems: dict[str, dict[str, str]] = defaultdict(dict)
    counts = ValueCounts(listed=len(infos))
    palettes: list[np.ndarray] = []
    meaning, reader = part.meaning, label_reader(part.dataset)
    deep = meaning is not None and len(meaning.classes) > NARROW.unlabelled
    for index in track(chosen, part.key, disable=not progress):
        image, mask = infos[index].get('img_path'), infos[index].get('seg_map_path')
        size = None
        if isinstance(image, str) and os.path.isfile(image):
            problem, size = image_problem(image)
            if problem is not None:
                problems['unreadable_image'][image] = problem
        if not isinstance(mask, str) or not os.path.isfile(mask):
            continue
        facts = inspect_mask(mask, reader, deep)
        for kind, detail in facts.problems.items():
            problems[kind][mask] = detail
        if facts.labels is None:
            continue
        if size is not None and size != facts.labels.shape:
            height, width = facts.labels.shape
            detail = f'{width} x {height} against {size[1]} x {size[0]}'
            problems['size_mismatch'][mask] = detail
        counts.add(mask, facts.labels, meaning)
        if facts.palette is not None and len(palettes) < 20:
            palettes.append(facts.palette)
    report.parts.append(PartReport(part, len(infos), counts))
    for kind, files in problems.items():
        message, change = _FILE_MESSAGES[kind]
        detail = next(iter(files.values())).replace('{', '(').replace('}', ')')
        yield about_files(
            kind,
            part.key,
            message.replace('{detail}', detail),
            change.replace('{key}', part.key),
            files,
        )
    if meaning is not None:
        yield from check_values(part.key, counts, meaning)
        yield from check_order(part, meaning, list(counts.pixels), palettes)
