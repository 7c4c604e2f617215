"""A split written down in text files: ``classes.txt`` and ``unseen.txt``."""

from __future__ import annotations

import os
import re
from pathlib import Path

from zs3_mmseg.datasets.splits.zero_shot_split import (
    NameFinder,
    ZeroShotSplit,
    make_split,
    same_classes,
)
from zs3_mmseg.utils.faults import fault
from zs3_mmseg.utils.names import did_you_mean, read_json, read_text, synonyms_of

CLASSES_FILE, UNSEEN_FILE = 'classes.txt', 'unseen.txt'

_NUMBERED = re.compile(r'(\d+)\s*[:;,.\s]\s*(\S.*)')

#: A line of a list with synonyms, and what stands there for no class.
_SYNONYMS, _NO_CLASS = re.compile(r'(\d+):(\S.*)'), 'invalid_class_id'

#: The number of a line in its file, from 1, and what it says.
Line = tuple[int, str]


def read_lines(path: Path) -> list[Line]:
    """Read the lines of a text file but for blank ones and ``#`` comments."""
    lines = enumerate(map(str.strip, read_text(path).splitlines()), 1)
    return [(n, line) for n, line in lines if line and not line.startswith('#')]


def read_names(path: Path) -> list[str]:
    """Read class names, one from each line; line n may begin with its label n - 1.

    A JSON list of names will do as well, and so does a list with synonyms as OpenSeg
    has published them and others use them: ``12:sofa,couch`` is ``'sofa|couch'``, and
    ``0:invalid_class_id`` no class.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming file and line, if it holds no names, or one twice.
    """
    return [name for _, name in _name_lines(path)]


def _name_lines(path: Path) -> list[Line]:
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} is missing: a text file with one class name on each line, the '
            'first for label 0'
        )
    is_json = read_text(path).lstrip()[:1] in ('[', '{')
    lines = _from_json(path) if is_json else _plain_names(path, read_lines(path))
    if not lines:
        raise ValueError(f'{path} holds no name')
    for n, name in lines:
        try:
            synonyms_of(name)
        except ValueError as error:
            raise ValueError(f'{path}, line {n}: {error}') from error
    for first, second in same_classes([name for _, name in lines]):
        (number, name), (again, twin) = lines[first], lines[second]
        fault(
            ValueError(
                f'{path}, line {again}: {twin!r} is listed more than once, as {name!r} '
                f'in line {number}; give each class one line (synonyms: "sofa|couch")'
            )
        )
    return lines


def _from_json(path: Path) -> list[Line]:
    try:
        content = read_json(path)
    except ValueError as error:
        advice = 'write one name on each line, without brackets'
        raise ValueError(f'{error}; {advice}') from error
    if not isinstance(content, list) or not all(isinstance(n, str) for n in content):
        raise ValueError(f'{path}, line 1: expected names, one on each line')
    return list(enumerate((name.strip() for name in content), 1))


def _plain_names(path: Path, lines: list[Line]) -> list[Line]:
    """Take away what is no part of a name: numbers, commas, quotes, remarks."""
    lines = [
        (n, re.sub(r'\s+#.*$', '', line).rstrip(',;').strip()) for n, line in lines
    ]
    lines = [(n, line) for n, line in lines if line]
    listed = [_SYNONYMS.fullmatch(line) for _, line in lines]
    if all(listed) and any(found and ',' in found[2] for found in listed):
        return _with_synonyms(path, lines)
    numbered = [found for _, line in lines if (found := _NUMBERED.fullmatch(line))]
    if len(numbered) == len(lines) > 1:
        for label, ((n, line), found) in enumerate(zip(lines, numbered, strict=True)):
            if int(found[1]) != label:
                raise ValueError(
                    f'{path}, line {n}: {line!r} is numbered {int(found[1])}, but is '
                    f'name {label}, counted from 0, and name n stands for label n; '
                    'bring both together, leave numbers out, or put a name like '
                    '"2 euro" in quotes'
                )
        lines = [(n, found[2]) for (n, _), found in zip(lines, numbered, strict=True)]
    for n, line in lines:
        if '\t' in line or (len(lines) == 1 and line.count(',')):
            raise ValueError(
                f'{path}, line {n}: {line!r} is more than one name; write one on each '
                'line'
            )
    return [(n, re.sub(r'^(["\'])(.*)\1$', r'\2', line)) for n, line in lines]


def _with_synonyms(path: Path, lines: list[Line]) -> list[Line]:
    """Read ``number:name,synonym`` of each line; a synonym listed twice stands once."""
    found: list[Line] = []
    first = int(lines[0][1].partition(':')[0])
    for place, (n, line) in enumerate(lines, min(first, 1)):
        number, _, names = line.partition(':')
        if int(number) != place:
            raise ValueError(
                f'{path}, line {n}: {line!r} is numbered {number}, and {place} is '
                'next: lists with synonyms are numbered from 0 or 1, line by line'
            )
        if names != _NO_CLASS:
            words = dict.fromkeys(word.strip() for word in names.split(','))
            found.append((n, '|'.join(word for word in words if word)))
    return found


def split_from_folder(
    folder: str | os.PathLike, name: str | None = None
) -> ZeroShotSplit:
    """Make a split from the text files of a folder, after which it is called.

    Line n of ``classes.txt`` is label n - 1; without ``unseen.txt`` all are seen.
    """
    root = Path(folder).expanduser()
    classes = read_names(root / CLASSES_FILE)
    path = root / UNSEEN_FILE
    unseen = _name_lines(path) if path.is_file() else []
    finder = NameFinder(classes)
    for n, unseen_name in unseen:
        if finder.find(unseen_name) is None:
            fault(
                ValueError(
                    f'{path}, line {n}: {unseen_name!r} is no class of '
                    f'{root / CLASSES_FILE}.{did_you_mean(unseen_name, classes)}'
                )
            )
    source = f'{CLASSES_FILE} and {UNSEEN_FILE} of {root}'
    names = [unseen_name for _, unseen_name in unseen]
    return make_split(name or root.resolve().name, classes, names, source)
