"""Count what is there, and compare it with the official numbers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table


@dataclass(frozen=True)
class Count:
    """One line of the summary.

    Attributes:
        what: what is counted.
        found: images with a label map.
        official: how many there are in the published data set.
        missing: files that are named or needed and not there, by path below the root.
    """

    what: str
    found: int
    official: int
    missing: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """``'ok'``, or what is wrong in a few words."""
        if self.missing:
            return f'{len(self.missing)} missing, such as {self.missing[0]}'
        if self.found == self.official:
            return 'ok'
        difference = self.found - self.official
        return f'{abs(difference)} too {"few" if difference < 0 else "many"}'


def read_list(path: Path) -> list[str]:
    """Return the names in a list file, or none if there is no such file."""
    if not path.is_file():
        return []
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def count_pairs(
    root: Path,
    what: str,
    official: int,
    names: Iterable[str],
    *,
    image: str,
    label: str,
) -> Count:
    """Count the names that have both an image and a label map.

    They replace ``{}`` in the paths below the root of both.
    """
    folders: dict[str, set[str]] = {}

    def exists(path: str) -> bool:
        folder, name = os.path.split(os.path.join(root, path))
        if folder not in folders:
            folders[folder] = set(os.listdir(folder) if os.path.isdir(folder) else [])
        return name in folders[folder]

    missing = []
    found = 0
    for name in names:
        gone = [
            path
            for path in (image.format(name), label.format(name))
            if not exists(path)
        ]
        missing.extend(gone)
        found += not gone
    return Count(what, found, official, tuple(missing))


def count_lists(root: Path, lists: Iterable[tuple[str, str, str, int]]) -> list[Count]:
    """Count what the lists of VOC name: (what, list, folder of masks, official)."""
    return [
        count_pairs(
            root,
            what,
            official,
            read_list(root / names),
            image='JPEGImages/{}.jpg',
            label=f'{folder}/{{}}.png',
        )
        for what, names, folder, official in lists
    ]


def names_in(folder: Path, suffix: str) -> list[str]:
    """Return the names of the files in a folder and below that end so, without it.

    Folders below are part of a name, as in ``'aachen/aachen_000000_000019'``.
    """
    return sorted(
        path.relative_to(folder).as_posix().removesuffix(suffix)
        for path in folder.rglob(f'*{suffix}')
    )


def count_folders(
    root: Path,
    official: Mapping[str, int],
    *,
    images: str = 'images/{}',
    labels: str = 'annotations/{}',
    image_suffix: str = '.jpg',
    label_suffix: str,
) -> list[Count]:
    """Count the images of each subset that have a label map; name what has no partner.

    In the folders below the root, ``{}`` stands for the subset.
    """
    counts = []
    for subset, number in official.items():
        pictures, maps = images.format(subset), labels.format(subset)
        names = {
            *names_in(root / pictures, image_suffix),
            *names_in(root / maps, label_suffix),
        }
        counts.append(
            count_pairs(
                root,
                subset,
                number,
                sorted(names),
                image=f'{pictures}/{{}}{image_suffix}',
                label=f'{maps}/{{}}{label_suffix}',
            )
        )
    return counts


def summary(title: str, counts: Sequence[Count]) -> Table:
    """Return the table that a preparation ends with."""
    table = Table('images with a label map', 'found', 'official', 'verdict')
    table.title = title
    for count in counts:
        table.add_row(
            count.what, f'{count.found:,}', f'{count.official:,}', count.verdict
        )
    return table
