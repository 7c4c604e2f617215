"""What a converter is, and the table of all of them."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from .conversion import Conversion

#: Sub-commands of ``tools/convert_checkpoint.py``.
CONVERTERS: dict[str, type[Converter]] = {}


class Converter(ABC):
    """Turns one kind of file into weights of this package.

    Attributes:
        name: the sub-command.
        help: one line on what it converts.
        suffix: ending of the file it makes: ``'.safetensors'`` for bare weights,
            ``'.pth'`` for a checkpoint that carries rows of class embeddings.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    suffix: ClassVar[str] = '.safetensors'

    @classmethod
    @abstractmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add flags beyond ``SRC``, ``DST``, ``--trust`` and ``--force``."""

    @abstractmethod
    def convert(self, source: Path, arguments: argparse.Namespace) -> Conversion:
        """Read a file safely and rename its keys.

        Raises:
            CheckpointError: if the file cannot be read or would run code.
        """


def register_converter(converter: type[Converter]) -> type[Converter]:
    """Add a converter class to :data:`CONVERTERS` under its name."""
    if converter.name in CONVERTERS:
        raise KeyError(f'there is a converter {converter.name!r} already')
    CONVERTERS[converter.name] = converter
    return converter
