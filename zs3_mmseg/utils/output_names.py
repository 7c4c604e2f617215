"""What a file is called that is made from a picture: each picture has its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from .names import duplicates

#: Key of the name in the metainfo of a sample whose stem is not enough.
OUTPUT_NAME = 'output_name'


def output_names(paths: Iterable[str]) -> dict[str, str]:
    """Return a name without suffix for each picture, with ``/`` below folders.

    The stems, if they tell all pictures apart, and else the paths below the folder that
    all have in common; those of ``0.png`` and ``0.jpg`` keep their suffix.
    """
    listed = [*dict.fromkeys(paths)]
    folders = [os.path.dirname(path) for path in listed]
    absolute = {os.path.isabs(folder) for folder in folders}
    root = os.path.commonpath(folders) if len(absolute) == 1 else ''
    below = [PurePath(os.path.relpath(p, root) if root else p) for p in listed]
    forms = (
        [path.stem for path in below],
        [path.with_suffix('').as_posix() for path in below],
        [path.as_posix() for path in below],
    )
    names = next((form for form in forms if not clashes(form)), forms[-1])
    return dict(zip(listed, distinct(names), strict=True))


def clashes(names: Iterable[str]) -> list[str]:
    """Return names that occur twice where upper and lower case are the same."""
    return duplicates(name.casefold() for name in names)


def distinct(names: Sequence[str]) -> list[str]:
    """Return file names with a number behind those that others have already.

    Some file systems take ``Cat.png`` and ``cat.png`` for the same file.
    """
    taken: set[str] = set()
    chosen = []
    for name in names:
        number, free = 1, name
        while free.casefold() in taken:
            number += 1
            free = f'{name}_{number}'
        taken.add(free.casefold())
        chosen.append(free)
    return chosen


def output_name(sample: Mapping[str, Any], path: str) -> str:
    """Return the name of what is written for a sample with the image at ``path``."""
    return str(sample.get(OUTPUT_NAME) or PurePath(path).stem)


def require_no_input(outputs: Iterable[str], inputs: Iterable[str]) -> None:
    """Refuse to write over the files that are read.

    Raises:
        ValueError: naming one that would be lost.
    """
    read = {os.path.abspath(path) for path in inputs}
    for path in outputs:
        if os.path.abspath(path) in read:
            raise ValueError(
                f'{path} is an input and would be overwritten: choose another folder'
            )
