"""A split written down in text files: ``classes.txt`` and ``unseen.txt``."""

from __future__ import annotations

import os
from pathlib import Path

from zs3_mmseg.datasets.splits.zero_shot_split import ZeroShotSplit, make_split

CLASSES_FILE, UNSEEN_FILE = 'classes.txt', 'unseen.txt'


def read_names(path: Path) -> list[str]:
    """Read one name from each line; blank lines and ``#`` comments are left out."""
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} is missing: a text file with one class name on each line, the '
            'first for label 0'
        )
    try:
        # A byte order mark, as some editors write, is no part of the first name.
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is no UTF-8 text: {error}') from error
    names = [line.strip() for line in lines]
    names = [name for name in names if name and not name.startswith('#')]
    if not names:
        raise ValueError(f'{path} holds no name')
    return names


def split_from_folder(
    folder: str | os.PathLike, name: str | None = None
) -> ZeroShotSplit:
    """Make a split from the text files of a folder, after which it is called.

    Line n of ``classes.txt`` is label n - 1; without ``unseen.txt`` all are seen.
    """
    root = Path(folder)
    classes = read_names(root / CLASSES_FILE)
    unseen = read_names(root / UNSEEN_FILE) if (root / UNSEEN_FILE).is_file() else []
    source = f'{CLASSES_FILE} and {UNSEEN_FILE} of {root}'
    return make_split(name or root.resolve().name, classes, unseen, source)
