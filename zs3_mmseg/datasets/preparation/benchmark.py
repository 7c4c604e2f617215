"""What a benchmark's preparation consists of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zs3_mmseg.datasets.preparation.counts import Count
from zs3_mmseg.datasets.preparation.job import Job, Rule

Step = Callable[[Job], None]


def voc_year(year: int) -> str:
    """Return how a pattern begins that is about one year of the VOC challenge.

    The years have the same folder names; what lies in another year's is left alone.
    """
    return rf'(?<!VOC20\d\d/)(?:VOC{year}/)?'


@dataclass(frozen=True)
class Download:
    """A file that its makers publish.

    Attributes:
        name: what the file is called.
        url: where it is, or the page that hands it out.
        md5: its checksum, in hex. Only a file with a known one is fetched by us.
        holds: what is in it.
    """

    name: str
    url: str
    holds: str
    md5: str = ''


@dataclass(frozen=True)
class Benchmark:
    """A published data set: where it comes from, and how it is brought into shape.

    Attributes:
        name: what ``tools/prepare_data.py`` calls it.
        root: where the configs look for it.
        downloads: the official files.
        arrange: puts files and label maps below the root.
        count: counts what is below a root.
        convert: makes only the label maps and lists that the official files lack; None
            if they lack nothing.
    """

    name: str
    root: str
    downloads: Sequence[Download]
    arrange: Step
    count: Callable[[Path], list[Count]]
    convert: Step | None = None


def taking(**rules: Rule) -> Step:
    """Return a step that takes the files of some rules, one rule after the other.

    Args:
        **rules: by what the progress bar calls the files, ``_`` standing for a space.
    """

    def step(job: Job) -> None:
        for label, rule in rules.items():
            job.apply(rule, label=label.replace('_', ' '))

    return step
