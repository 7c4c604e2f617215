"""The result of a check as tables, JSON and a contact sheet."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from zs3_mmseg.apis.data_checks.check import DataReport
from zs3_mmseg.datasets.splits import find_name
from zs3_mmseg.utils.cache import atomic_write
from zs3_mmseg.visualization.sheets import comparison_sheet

REPORT_NAME, SHEET_NAME = 'report.json', 'contact_sheet_{}.png'


def class_histogram(report: DataReport, phase: str) -> list[dict[str, Any]]:
    """Count the classes on disk, over the data sets of one loader.

    Args:
        report: the result of a check.
        phase: ``'train'``, ``'val'`` or ``'test'``.

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
    place = find_name(name, split.classes)
    if place is None:
        return 'no class'
    return 'unseen' if split.classes[place] in set(split.unseen) else 'seen'


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
            table.add_row(name, row['group'], share, str(row['masks']))
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
        sheet = comparison_sheet(
            rows,
            ['image', 'labels'],
            classes,
            found.meta['palette'],
            found.meta.get('unseen', ()),
            cell=320,
        )
        path = folder / SHEET_NAME.format(key.split('_')[0])
        files.append(atomic_write(path, partial(_save_png, Image.fromarray(sheet))))
    return files


def _save_png(picture: Image.Image, stream: BinaryIO) -> None:
    picture.save(stream, 'PNG')


def _drawable(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Draw wrong labels as void: they have been told of, and have no colour."""
    return np.where((labels >= 0) & (labels < num_classes), labels, 255)
