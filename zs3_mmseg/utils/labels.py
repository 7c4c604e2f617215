"""The two special label values, in the one place that defines them."""

from __future__ import annotations

from typing import NamedTuple


class SpecialLabels(NamedTuple):
    """Label values that are no class.

    Attributes:
        ignore: pixels that no loss and no metric may count.
        unlabelled: pixels of an unseen class in transductive training, which
            may receive a pseudo-label.
    """

    ignore: int
    unlabelled: int


#: Label maps of 8 bits, for at most 254 classes.
NARROW = SpecialLabels(ignore=255, unlabelled=254)
#: Label maps of 16 bits, for larger vocabularies.
WIDE = SpecialLabels(ignore=65535, unlabelled=65534)

IGNORE_INDEX = NARROW.ignore
UNLABELLED_INDEX = NARROW.unlabelled


def special_labels(num_classes: int) -> SpecialLabels:
    """Return the special labels of a data set with ``num_classes`` classes."""
    return NARROW if num_classes <= NARROW.unlabelled else WIDE
