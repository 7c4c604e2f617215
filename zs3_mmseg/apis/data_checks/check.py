"""Check the data of a config, from files to what the model would get, and report it."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from mmengine.config import Config
from mmseg.registry import MODELS

from zs3_mmseg.datasets.scan import build_dataset
from zs3_mmseg.datasets.splits import NameFinder, ZeroShotSplit, find_name
from zs3_mmseg.engine.protocol import (
    LabelCounts,
    ProtocolError,
    allowed_in_training,
    require_competition,
    require_legal_labels,
    require_matching_prompts,
    require_phase,
    require_same_classes,
    require_same_split,
    require_some_labels,
    require_stated_selection,
)
from zs3_mmseg.registry import find_class
from zs3_mmseg.utils.cache import atomic_write
from zs3_mmseg.utils.faults import collected_faults
from zs3_mmseg.utils.labels import NARROW
from zs3_mmseg.utils.palette import default_palette
from zs3_mmseg.utils.random_state import get_random_state, set_random_state
from zs3_mmseg.visualization.sheets import comparison_sheet

from .files import (
    check_listing,
    check_overlap,
    inspect_sample,
    label_reader,
)
from .labels import ValueCounts, check_order, check_values, has_readings, is_unseen
from .parts import (
    Finding,
    Part,
    about_files,
    build_part,
    find_split,
    one_line,
    part_configs,
)


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


def experiment_of(config: Config) -> tuple[Experiment, list[Finding]]:
    """Read split and setting out of a config; tell what is wrong with the split."""
    model = config.get('model') or {}
    if model.get('split') is not None:
        split, findings = find_split(model['split'], 'model.split')
        tested = split
        if model.get('test_split') is not None:
            tested, more = find_split(model['test_split'], 'model.test_split')
            findings += more
        segmentor = find_class(MODELS, model.get('type'))
        return Experiment(split, tested, model.get('setting'), segmentor), findings
    for name in ('train', 'test', 'val'):
        loader = config.get(f'{name}_dataloader') or {}
        for part in part_configs('', loader.get('dataset') or {}):
            if part.split is not None:
                return Experiment(part.split, None, None), []
    return Experiment(None, None, None), []


def deliver(
    key: str,
    config: Mapping[str, Any],
    experiment: Experiment,
    *,
    samples: int,
    shown: int,
    known_bad: bool,
) -> Delivered:
    """Build a data set with its pipeline and look at what comes out."""
    result, where = Delivered(), f'{key}.dataset'
    try:
        with collected_faults():  # what is missing has been told
            dataset = build_dataset(config)
        result.meta = dataset.metainfo
        if result.prompted:
            infos = [dataset.get_data_info(index) for index in range(len(dataset))]
            result.images = [str(info.get('img_path')) for info in infos]
    except Exception as error:  # noqa: BLE001  (any data set of any project)
        result.findings.append(
            Finding('cannot_build', where, one_line(error), where, fault=not known_bad)
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
            failed.append(f'sample {index}: {one_line(error)}')
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
        partial(require_competition, meta, key),
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
        finder = NameFinder(names or ())
        hidden = {p for n in split.unseen if (p := finder.find(n)) is not None}
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


LOADERS = ('train', 'test', 'val')
# How many palettes of masks are compared with the names.
_PALETTES = 20
# A class that covers more than this of what is labelled is worth a look.
_DOMINANT = 0.99
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
        'pair the right files: {masks}, or resize neither alone',
    ),
    'turned_image': (
        '{n} images are turned by their EXIF data when they are read ({detail}), '
        'masks never are; sizes do not tell whether the masks were drawn upright',
        'look at the contact sheet; if they do not fit, turn these masks',
    ),
    'exchanged_files': (
        '{n} masks look like pictures ({detail})',
        'exchange or name again: {images}, and {masks}',
    ),
    'colour_mask': (
        '{n} masks hold colours ({detail}), not class indices',
        'convert them to indices; FolderSegDataset reads colours by palette.txt',
    ),
    'unusual_mask': (
        '{n} masks are no plain label maps ({detail})',
        'save class indices as PNG, grey or with a palette',
    ),
    'smeared_mask': (
        '{n} masks have lost their values ({detail})',
        'make them again and save them as PNG',
    ),
    'deep_mask': (
        '{n} masks have 16 bits ({detail}); of each value LoadAnnotations keeps the '
        'lower 8 bits without a word',
        'save them with 8 bits',
    ),
    'label_out_of_range': (
        '{n} masks hold what is no class ({detail})',
        'the masks, or the palette that the message names',
    ),
}
_NOTES = {'turned_image'}


@dataclass
class PartReport:
    """What was found in the files of one data set.

    Attributes:
        part: the data set.
        listed: how many samples it has.
        counts: label values of the masks that were read.
        rows: image and mask of a few samples with the label after the last class.
    """

    part: Part
    listed: int
    counts: ValueCounts
    rows: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)


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
    experiment, report.findings = experiment_of(config)
    looked_at: list[tuple[str, Mapping[str, Any]]] = []
    for key, dataset in loaders.items():
        if any(_same(dataset, other) for _, other in looked_at):
            continue  # test and val are often the same
        looked_at.append((key, dataset))
        listed: dict[str, list[str]] = {}
        for found in part_configs(f'{key}.dataset', dataset):
            try:
                part, mistakes = build_part(found)
            except Exception as error:  # noqa: BLE001  (any data set of any project)
                text = one_line(error)
                report.findings.append(
                    Finding('cannot_build', found.key, text, found.key)
                )
                continue
            report.findings += mistakes
            if not hasattr(part.dataset, 'get_data_info'):
                continue  # no list of files to look at
            infos = [part.dataset.get_data_info(i) for i in range(len(part.dataset))]
            listed[part.key] = [str(info.get('img_path')) for info in infos]
            report.findings += check_listing(part, infos)
            report.findings += _check_files(
                report, part, infos, samples, shown, progress
            )
        total = samples or sum(
            p.listed for p in report.parts if p.part.key[:4] == key[:4]
        )
        delivered = deliver(
            key,
            dataset,
            experiment,
            samples=total,
            shown=shown,
            known_bad=bool(report.faults),
        )
        report.delivered[key] = delivered
        report.findings += delivered.findings
        # Training and validation by name may share a list and take images in turn.
        chooses = delivered.prompted or dataset.get('held_out')
        images |= {f'{key}.dataset': delivered.images} if chooses else listed
        if not delivered.prompted:
            report.findings += _check_groups(report, key)
    report.findings += check_overlap(images)
    report.findings += _check_selection(loaders, report)
    report.findings.sort(key=lambda finding: not finding.fault)
    # A list of names that two data sets read is wrong once.
    told = {one.message: one for one in reversed(report.findings)}
    report.findings = [one for one in report.findings if told[one.message] is one]
    return report


def _check_groups(report: DataReport, key: str) -> Iterator[Finding]:
    """Find out whether seen and unseen classes, and more than one, occur at all."""
    phase = key.split('_')[0]
    parts = [one for one in report.parts if one.part.phase == phase]
    rows = [row for row in class_histogram(report, phase) if row['name']]
    sizes = {row['name']: row['percent'] for row in rows}
    largest, total = max(sizes, key=sizes.__getitem__, default=''), sum(sizes.values())
    looked_at = f'{sum(one.counts.looked_at for one in parts)} masks'
    if len(sizes) > 1 and _DOMINANT * total < sizes[largest] < total:
        yield Finding(
            'dominant_class',
            key,
            f'{largest!r} covers {sizes[largest] / total:.2%} of what is labelled in '
            f'{looked_at}',
            'the masks, unless that is right',
            fault=False,
        )
    for group in ('seen', 'unseen') if total else ():
        if (phase, group) == ('train', 'unseen'):
            continue
        of_group = [row['percent'] for row in rows if row['group'] == group]
        if of_group and not any(of_group):
            yield Finding(
                'absent_class',
                key,
                f'none of the {len(of_group)} {group} classes occurs in {looked_at}, '
                + ('so nothing is learnt' if phase == 'train' else 'so their scores, ')
                + ('' if phase == 'train' else 'and hIoU with them, have no value'),
                'the list of images, or the split (unseen.txt)',
                fault=all(one.counts.complete for one in parts) and phase == 'train',
            )


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
    shown: int,
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
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    for index in track(chosen, part.key, disable=not progress):
        image, mask = infos[index].get('img_path'), infos[index].get('seg_map_path')
        facts = inspect_sample(image, mask, reader, deep)
        for kind, (path, detail) in facts.problems.items():
            problems[kind][path] = detail
        if facts.labels is None:
            continue
        counts.add(str(mask), facts.labels, meaning)
        if facts.palette is not None and len(palettes) < _PALETTES:
            palettes.append(facts.palette)
        if facts.picture is None or meaning is None or len(rows) == shown:
            continue
        fits = 'size_mismatch' not in facts.problems
        if fits and (facts.labels == meaning.end).any():
            rows.append((facts.picture, facts.labels))
    report.parts.append(PartReport(part, len(infos), counts, rows))
    for kind, files in problems.items():
        message, change = _FILE_MESSAGES[kind]
        detail = next(iter(files.values())).replace('{', '(').replace('}', ')')
        yield about_files(
            kind,
            part.key,
            message.replace('{detail}', detail),
            change.format(images=part.place('images'), masks=part.place('masks')),
            files,
            fault=kind not in _NOTES,
        )
    if meaning is not None:
        yield from check_values(part, counts, meaning)
        yield from check_order(part, meaning, list(counts.pixels), palettes)


REPORT_NAME, SHEET_NAME = 'report.json', 'contact_sheet_{}.png'
READINGS_NAME = 'readings_{}.png'


def class_histogram(report: DataReport, phase: str) -> list[dict[str, Any]]:
    """Count the classes on disk, over the data sets of one loader.

    Returns:
        One row for each name, with ``group`` (``'seen'``, ``'unseen'``, ``'void'`` or
        ``'no class'`` for what the split leaves out), ``percent`` of the pixels, and
        how many ``masks`` hold it; void last.
    """
    pixels: Counter[str] = Counter()
    masks: Counter[str] = Counter()
    groups: dict[str, str] = {}
    for one in report.parts:
        meaning, split = one.part.meaning, one.part.split
        if one.part.phase != phase or meaning is None:
            continue
        for name in meaning.classes:
            groups.setdefault(name, _group(name, split))
        for value, count in one.counts.pixels.items():
            name = meaning.name(value) or ''
            pixels[name] += count
            masks[name] += one.counts.masks[value]
    groups[''] = 'void'
    total = max(pixels.total(), 1)
    return [
        dict(
            name=name,
            group=group,
            percent=100 * pixels[name] / total,
            masks=masks[name],
        )
        for name, group in groups.items()
        if pixels[name] or name
    ]


def _group(name: str, split: Any) -> str:
    if split is None:
        return 'class'
    if find_name(name, split.classes) is None:
        return 'no class'
    return 'unseen' if is_unseen(name, split) else 'seen'


def print_report(report: DataReport, console: Console) -> None:
    """Print histograms, findings and the verdict."""
    for phase in dict.fromkeys(one.part.phase for one in report.parts):
        looked_at = sum(
            one.counts.looked_at for one in report.parts if one.part.phase == phase
        )
        listed = sum(one.listed for one in report.parts if one.part.phase == phase)
        table = Table(
            'class',
            'group',
            'pixels',
            'masks',
            title=f'{phase}: labels on disk, {looked_at} of {listed} masks',
        )
        for row in class_histogram(report, phase):
            name = row['name'] or 'ignored or no class'
            share = f'{row["percent"]:.2f} %'
            table.add_row(Text(name), row['group'], share, str(row['masks']))
        console.print(table)
    for finding in report.findings:
        style, word = ('red', 'FAULT') if finding.fault else ('yellow', 'note')
        console.print(f'[bold {style}]{word}[/] [bold]{finding.kind}[/]', end=' ')
        # Paths and messages may hold brackets, which are no markup.
        console.print(f'in {finding.where}', markup=False, highlight=False)
        console.print(f'  {finding.message}', markup=False, highlight=False)
        for path in finding.files:
            console.print(f'  - {path}', markup=False, highlight=False)
        console.print(f'  change: {finding.change}', markup=False, highlight=False)
    faults = report.faults
    if faults:
        kinds = ', '.join(dict.fromkeys(finding.kind for finding in faults))
        number = '1 fault' if len(faults) == 1 else f'{len(faults)} faults'
        console.print(f'FAIL: {number} ({kinds})', style='bold red')
    else:
        console.print('PASS: no faults found', style='bold green')


def write_report(report: DataReport, folder: Path) -> list[Path]:
    """Write ``report.json`` and one contact sheet for each loader with pictures.

    Returns:
        The files.
    """
    phases = list(dict.fromkeys(one.part.phase for one in report.parts))
    content = dict(
        verdict='fail' if report.faults else 'pass',
        findings=[finding.as_dict() for finding in report.findings],
        classes={phase: class_histogram(report, phase) for phase in phases},
    )
    encoded = (json.dumps(content, indent=1) + '\n').encode()
    files = [
        atomic_write(folder / REPORT_NAME, lambda stream: stream.write(encoded)),
    ]
    for key, found in report.delivered.items():
        classes = found.meta.get('classes')
        if not found.rows or not classes or found.prompted:
            continue
        rows = [
            [image, _drawable(labels, len(classes))] for image, labels in found.rows
        ]
        colours = found.meta['palette'], found.meta.get('unseen', ())
        path = folder / SHEET_NAME.format(key.split('_')[0])
        files.append(_write_sheet(path, rows, ['image', 'labels'], classes, *colours))
    for one in report.parts:
        meaning = one.part.meaning
        if meaning is None or not one.rows or not has_readings(one.counts, meaning):
            continue
        count = len(meaning.classes)
        rows = [
            [
                image,
                _drawable(labels.astype(np.int64) - 1, count),
                _drawable(labels, count),
            ]
            for image, labels in one.rows
        ]
        titles = ['image', '0 is void', f'{meaning.end} is void']
        palette = one.part.dataset.metainfo.get('palette') or default_palette(count)
        name = re.sub(r'_dataloader|\.datasets?', '', one.part.key)
        sheet = folder / READINGS_NAME.format(name)
        files.append(_write_sheet(sheet, rows, titles, meaning.classes, palette, ()))
    return files


def _write_sheet(
    path: Path,
    rows: list[list[np.ndarray]],
    titles: list[str],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    unseen: Collection[int | str],
) -> Path:
    sheet = comparison_sheet(rows, titles, classes, palette, unseen, cell=320)
    return atomic_write(path, partial(_save_png, Image.fromarray(sheet)))


def _save_png(picture: Image.Image, stream: BinaryIO) -> None:
    picture.save(stream, 'PNG')


def _drawable(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Draw wrong labels as void: they have been told of, and have no colour."""
    return np.where((labels >= 0) & (labels < num_classes), labels, 255)
