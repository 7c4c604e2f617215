"""The report of the demo: ``report.json`` for programs, ``report.md`` for people."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from zs3_mmseg.datasets.shapes.scene import usable_cores
from zs3_mmseg.datasets.splits import ZeroShotSplit
from zs3_mmseg.utils.cache import atomic_write
from zs3_mmseg.utils.experiments import Outcome

SAYS = {
    'dense_clip': 'CLIP read pixel by pixel, nothing trained',
    'dense_clip_gate': 'the same plus a vote of the whole image '
    '(weight chosen on val scenes)',
    'finetune_ce': 'the whole image tower fine-tuned on the seen classes',
    'zegclip': 'prompts and the relationship descriptor, losses as published',
    'zegclip_ce': 'the same with softmax cross-entropy',
    'guided': 'the same, and masks that follow the outlines of the picture: ours',
}
_SCORES = ('mIoU_seen', 'mIoU_unseen', 'hIoU', 'hBIoU')
_PACKAGES = (
    'zs3_mmseg',
    'torch',
    'open_clip_torch',
    'onedl-mmengine',
    'onedl-mmcv',
    'onedl-mmsegmentation',
    'numpy',
)


@dataclass(frozen=True)
class DemoReport:
    """What the demo found.

    Attributes:
        outcomes: what each method gave, by name.
        iterations: length of the trainings, by method; 0 where there was none.
        split: who was unseen.
        seconds: wall time of each stage.
        gate: the weight of the gate that was chosen on the val scenes.
        seed: seed of all trainings.
    """

    outcomes: Mapping[str, Outcome]
    iterations: Mapping[str, int]
    split: ZeroShotSplit
    seconds: Mapping[str, float]
    gate: float
    seed: int

    def table(self) -> str:
        """Return the scores of all methods as a Markdown table."""
        lines = [
            '| method | what it is | mIoU seen | mIoU unseen | hIoU '
            '| hIoU at outlines | iterations | training, s |',
            '|---|---|---|---|---|---|---|---|',
        ]
        for name, outcome in self.outcomes.items():
            seen, unseen, both, outlines = (
                outcome.metrics['test'][key] for key in _SCORES
            )
            lines.append(
                f'| `{name}` | {SAYS[name]} | {seen:.1f} | {unseen:.1f} '
                f'| **{both:.1f}** | {outlines:.1f} | {self.iterations.get(name, 0)} '
                f'| {outcome.train_seconds:.0f} |'
            )
        return '\n'.join(lines)

    def as_dict(self) -> dict[str, object]:
        """Return everything, and what it was made with, as JSON can hold it."""
        return {
            'methods': {
                name: {
                    **{key: outcome.metrics['test'][key] for key in _SCORES},
                    'train_seconds': outcome.train_seconds,
                    'iterations': self.iterations.get(name, 0),
                }
                for name, outcome in self.outcomes.items()
            },
            'seed': self.seed,
            'split': self.split.name,
            'gate_weight': self.gate,
            'seconds': dict(self.seconds),
            'environment': _environment(),
        }

    def page(self) -> str:
        """Return the report as a Markdown page, with ``pictures.png`` in it."""
        split = self.split
        # Each of K classes then has a hit rate of 1/K and K - 1 times as many misses,
        # in its own pixels and in those of the others.
        chance = 100 / (2 * len(split.classes) - 1)
        stages = '\n'.join(f'| {s} | {took:.0f} |' for s, took in self.seconds.items())
        return f"""# Classes nobody labelled: the Shapes demo

{len(split.classes)} classes; masks were given for {len(split.seen)} of them. These
were never labelled: **{', '.join(split.unseen)}**. All {len(split.classes)} compete
for every pixel of the test scenes. Figures are percent; one seed ({self.seed}), one
split (`{split.name}`).

{self.table()}

Guessing a class at random for every pixel would score an mIoU of at most about
{chance:.1f} where all classes are equally frequent. hIoU is the harmonic mean of the
seen and the unseen mIoU: a method that forgets what it was not shown ends near 0. *At
outlines* it is made of boundary IoU instead, which compares only what lies within 2 %
of the diagonal of an outline. All trainings are short, so that the demo ends in
minutes; `configs/zegclip/README.md` and `configs/guided/README.md` have several seeds
and splits.

![Test scenes: image, truth and predictions](pictures.png)

Hatched regions are classes without any training mask. Black is void.

| stage | seconds |
|---|---|
{stages}

Run again with `make demo`; what is there is not computed twice.
"""

    def write(self, folder: Path) -> Path:
        """Write both files; return the page."""
        text = json.dumps(self.as_dict(), indent=2) + '\n'
        atomic_write(folder / 'report.json', lambda out: out.write(text.encode()))
        page = self.page().encode()
        return atomic_write(folder / 'report.md', lambda out: out.write(page))


def _environment() -> dict[str, object]:
    return {
        'python': platform.python_version(),
        'platform': f'{platform.system()} {platform.machine()}',
        'cpus': usable_cores(),
        **{package: version(package) for package in _PACKAGES},
    }
