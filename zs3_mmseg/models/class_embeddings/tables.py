"""What people know of classes, in CSV tables: attributes, and a tree of names.

Lines that begin with ``#`` are comments; the first says where a table comes from.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from zs3_mmseg.datasets.splits import NameFinder
from zs3_mmseg.utils.cache import content_hash
from zs3_mmseg.utils.names import as_list, did_you_mean, duplicates, read_text

from .sources import EmbeddingSource

_ASSETS = Path(__file__).resolve().parents[2] / 'assets'
_PARENT = 'parent'


def shipped_tables(kind: str) -> list[str]:
    """Return the names of the tables of a kind that come with the package."""
    return sorted(path.stem for path in (_ASSETS / kind).glob('*.csv'))


def _table_file(kind: str, name: str | Path) -> Path:
    """Return the file of a shipped table, or one of the user's."""
    if str(name) in shipped_tables(kind):
        return _ASSETS / kind / f'{name}.csv'
    path = Path(name).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f'there is no table {path}: name a CSV file, or one that comes with the '
            f'package: {", ".join(shipped_tables(kind))}'
        )
    return path


def _lines(path: Path) -> tuple[str, list[tuple[int, list[str]]]]:
    """Return the first comment, and the cells of each line with its number."""
    text = read_text(path).splitlines()
    comments = [line.lstrip('# ') for line in text if line.startswith('#')]
    filled = [
        (number, line)
        for number, line in enumerate(text, 1)
        if line.strip() and not line.startswith('#')
    ]
    numbers = [number for number, _ in filled]
    rows = [
        [cell.strip() for cell in row] for row in csv.reader(line for _, line in filled)
    ]
    if len(rows) < 2:
        raise ValueError(
            f'{path} has no rows: a line of headings and one for each name'
        )
    for number, row in zip(numbers, rows, strict=True):
        if len(row) != len(rows[0]):
            raise ValueError(
                f'{path}, line {number}: {len(row)} cells, and the headings are '
                f'{len(rows[0])}'
            )
    repeated = duplicates(row[0].casefold() for row in rows[1:])
    if repeated:
        raise ValueError(f'{path} has several lines for {as_list(repeated)}')
    source = comments[0] if comments else 'unknown'
    return source, list(zip(numbers, rows, strict=True))


class AttributeSource(EmbeddingSource):
    """Attributes of classes: a CSV file with a heading and a line for each class.

    The first column holds names, each other one an attribute, as numbers, such as 0 and
    1 or a share. Columns are standardised over all classes of the table (mean 0,
    deviation 1); with ``binarize`` they are 1 above their mean and 0 elsewhere.
    """

    def __init__(self, table: str | Path, *, binarize: bool = False) -> None:
        self.path = _table_file('attributes', table)
        self.binarize = binarize

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the columns."""
        return self._table[1]

    @property
    def dim(self) -> int:
        return len(self.attributes)

    def rows(
        self, texts: Sequence[str], normalize: bool, device: torch.device | str | None
    ) -> Tensor:
        names, _, values, _ = self._table
        finder = NameFinder(names)
        places = [finder.find(text) for text in texts]
        missing = [text for text, p in zip(texts, places, strict=True) if p is None]
        if missing:
            hints = ''.join(did_you_mean(text, names, limit=1) for text in missing[:3])
            raise ValueError(f'{self.path} has no line for {as_list(missing)}.{hints}')
        mean, deviation = values.mean(dim=0), values.std(dim=0, correction=0)
        made = (values > mean) if self.binarize else (values - mean) / deviation
        rows = made[places].float()
        return F.normalize(rows, dim=1) if normalize else rows

    def provenance(self) -> dict[str, str]:
        return {
            'source': 'attributes',
            'file': self.path.name,
            'table': self._table[3],
            'binarize': str(self.binarize),
        }

    @cached_property
    def _table(self) -> tuple[list[str], tuple[str, ...], Tensor, str]:
        """Names, attributes, values ``(R, D)`` in float64, and where they come from."""
        source, ((_, head), *lines) = _lines(self.path)
        values = []
        for number, (_, *cells) in lines:
            for attribute, cell in zip(head[1:], cells, strict=True):
                if not _is_number(cell):
                    raise ValueError(
                        f'{self.path}, line {number}, column {attribute!r}: {cell!r} '
                        'is no number'
                    )
            values.append([float(cell) for cell in cells])
        table = torch.tensor(values, dtype=torch.float64)
        constant = [
            name
            for name, column in zip(head[1:], table.T, strict=True)
            if column.min() == column.max()
        ]
        if constant or len(head) < 2:
            raise ValueError(
                f'{self.path}: all classes have the same value in '
                f'{as_list(constant) or "no column"}: take out what tells none apart'
            )
        return [row[0] for _, row in lines], tuple(head[1:]), table, source


def _is_number(cell: str) -> bool:
    try:
        return abs(float(cell)) < float('inf')
    except ValueError:
        return False


class Hierarchy:
    """A tree of names.

    Args:
        table: the name of a shipped table, a CSV file with the columns ``name`` and
            ``parent``, or a dict of them; no parent stands for the top.

    Raises:
        ValueError: for a circle of names, or a file that is no such table.
    """

    def __init__(self, table: str | Path | Mapping[str, str | None]) -> None:
        self.origin = 'the hierarchy' if isinstance(table, Mapping) else str(table)
        if isinstance(table, Mapping):
            pairs = [(str(name), parent or '') for name, parent in table.items()]
        else:
            path = _table_file('hierarchies', table)
            (_, head), *lines = _lines(path)[1]
            if len(head) != 2 or head[1].lower() != _PARENT:
                raise ValueError(
                    f'{path}: the headings of a hierarchy are name,parent, not '
                    f'{",".join(head)}'
                )
            pairs = [(row[0], row[1]) for _, row in lines]
        self._parents = dict(pairs)
        self._paths = {name: self._climb(name) for name, _ in pairs}
        self._finder = NameFinder([*self._paths])

    @property
    def depth(self) -> int:
        """How many names the longest path has."""
        return max(map(len, self._paths.values()))

    @property
    def fingerprint(self) -> str:
        """A hash of all names and parents."""
        pairs = sorted(self._parents.items())
        return content_hash('\0'.join(f'{name}\0{parent}' for name, parent in pairs))

    def path(self, name: str) -> tuple[str, ...]:
        """Return the names from the top down to ``name``, which keeps its spelling.

        Raises:
            ValueError: if the tree does not have it; the message has the closest names.
        """
        names = [*self._paths]
        place = self._finder.find(name)
        if place is None:
            raise ValueError(
                f'{self.origin} has no place for {name!r}.{did_you_mean(name, names)}'
            )
        return (*self._paths[names[place]][:-1], name)

    def _climb(self, name: str) -> tuple[str, ...]:
        path = [name]
        for parent in self._ancestors(name):
            if parent in path:
                circle = [*reversed(path[path.index(parent) :]), parent]
                raise ValueError(
                    f'{self.origin} goes round in a circle: {" < ".join(circle[::-1])}'
                )
            path.append(parent)
        return tuple(reversed(path))

    def _ancestors(self, name: str) -> Iterator[str]:
        while parent := self._parents.get(name):
            yield parent
            name = parent
