"""What a check can find."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

#: Every kind of finding, in one line each.
KINDS = {
    'cannot_build': 'the data set of the config cannot be built',
    'missing_image': 'a listed image does not exist',
    'missing_mask': 'an image has no mask',
    'unpaired_mask': 'a mask has no image',
    'wrong_split_file': 'the list of ids belongs to other files or another part',
    'duplicate_ids': 'an image is listed more than once',
    'unreadable_image': 'an image cannot be decoded to its end',
    'unreadable_mask': 'a mask cannot be decoded to its end',
    'size_mismatch': 'image and mask differ in size',
    'colour_mask': 'a mask holds colours in place of class indices',
    'deep_mask': 'a mask has 16 bits, of which the loader keeps the lower 8',
    'label_out_of_range': 'a label is neither a class nor ignored',
    'shifted_labels': 'labels are one too high',
    'background_kept': 'background is label 0, but the classes do not name it',
    'reduced_twice': 'reduce_zero_label removes a label that was removed before',
    'empty_mask': 'a mask holds nothing but ignored pixels or background',
    'swapped_class_order': 'names and label values are in different orders',
    'absent_class': 'a class never occurs',
    'unseen_in_training': 'the label of an unseen class reaches training',
    'pipeline_error': 'the pipeline fails on a sample',
    'protocol': 'data set, split, model and metric do not agree',
}
_SHOWN_FILES = 5


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be.

    Attributes:
        kind: a key of :data:`KINDS`.
        where: the data set, as a dotted key of the config.
        message: the facts.
        change: the config key to change, or what to do with the files.
        files: some of the files concerned.
        count: how many files (or whatever the message counts).
        fault: False for what may be right, such as a class that never occurs.
    """

    kind: str
    where: str
    message: str
    change: str
    files: tuple[str, ...] = ()
    count: int = 1
    fault: bool = True

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def about_files(
    kind: str,
    where: str,
    message: str,
    change: str,
    files: Iterable[str],
    *,
    fault: bool = True,
) -> Finding:
    """Make a finding about files; the message may hold ``{n}``, their number."""
    paths = list(files)
    return Finding(
        kind,
        where,
        message.format(n=len(paths)),
        change,
        tuple(paths[:_SHOWN_FILES]),
        len(paths),
        fault,
    )
