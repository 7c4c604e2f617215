"""What a converter is, what it needs, and the table of all of them."""

from __future__ import annotations

import argparse
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from zs3_mmseg.utils.checkpoint import CheckpointError


@dataclass(frozen=True)
class KeyRule:
    """What happens to the keys that a pattern matches as a whole.

    Attributes:
        pattern: a regular expression.
        replacement: the new key, with groups as in ``re.sub``; None drops the entry.
        reason: why it is dropped or renamed, for the report.
    """

    pattern: str
    replacement: str | None
    reason: str = ''


@dataclass(frozen=True)
class Conversion:
    """A converted state dict and what became of every key.

    Attributes:
        state: the result, new key -> tensor.
        sources: new key -> key in the source.
        dropped: source key -> reason.
        unknown: source keys that no rule matches.
        missing: keys of the model that got nothing.
        mismatched: ``key: shape in the source, shape in the model``.
        metadata: strings that are stored with the result.
        extra_state: class names and rows that the result carries, as a segmentor's
            ``get_extra_state`` returns them.
        classes: names of the classes that a segmentor is for.
        files: further files to write.
        notes: what else there is to say.
    """

    state: dict[str, Tensor]
    sources: dict[str, str]
    dropped: dict[str, str]
    unknown: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    extra_state: Mapping[str, Any] | None = None
    classes: tuple[str, ...] = ()
    files: Mapping[Path, Conversion] = field(default_factory=dict)
    notes: str = ''

    @property
    def complete(self) -> bool:
        """Whether nothing would have to be guessed."""
        return not (self.unknown or self.missing or self.mismatched) and all(
            conversion.complete for conversion in self.files.values()
        )

    def as_safetensors(self) -> bytes:
        """Return the content of a ``.safetensors`` file with the result.

        Equal results have equal bytes, as towers are known by the hash of their file.
        """
        # Copies: the format knows neither shared memory nor strides.
        state = {key: v.clone().contiguous() for key, v in self.state.items()}
        return _with_sorted_metadata(save(state, metadata=self.metadata))

    def __str__(self) -> str:
        """Return the report: a heading per group, a line per key."""
        kept = [key for key, source in self.sources.items() if key == source]
        renamed = [
            f'{source} -> {key}'
            for key, source in self.sources.items()
            if key != source
        ]
        groups = {
            'used as they are': kept,
            'renamed': renamed,
            'dropped': [f'{key} ({why})' for key, why in self.dropped.items()],
            'UNKNOWN in the source': self.unknown,
            'MISSING in the source': self.missing,
            'OF ANOTHER SHAPE': self.mismatched,
        }
        lines: list[str] = []
        for title, keys in groups.items():
            lines.append(f'{len(keys)} {title}')
            lines += [f'  {key}' for key in keys]
        lines += [self.notes] if self.notes else []
        for path, conversion in self.files.items():
            lines += [f'For {path}:', str(conversion)]
        return '\n'.join(lines)


def _with_sorted_metadata(raw: bytes) -> bytes:
    """Sort the metadata of a safetensors file, which the library shuffles."""
    start = 8  # the length of the header comes first
    end = start + int.from_bytes(raw[:start], 'little')
    header = json.loads(raw[start:end])
    header['__metadata__'] = dict(sorted(header.get('__metadata__', {}).items()))
    text = json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode()
    padded = text + b' ' * (-len(text) % 8)
    return len(padded).to_bytes(start, 'little') + padded + raw[end:]


def apply_rules(
    state: Mapping[str, Tensor],
    rules: Sequence[KeyRule],
    target: Mapping[str, Tensor],
    *,
    extra: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> Conversion:
    """Convert a state dict; the first rule that matches a key decides.

    Args:
        state: the source.
        rules: what happens to its keys.
        target: state dict of the model that the result is for.
        extra: new keys that the result may hold beyond those of the model.
        metadata: strings to store with the result.

    Raises:
        ValueError: if two source keys become the same key.
    """
    result: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    dropped: dict[str, str] = {}
    unknown: list[str] = []
    for key, value in state.items():
        rule = next((r for r in rules if re.fullmatch(r.pattern, key)), None)
        if rule is None:
            unknown.append(key)
            continue
        if rule.replacement is None:
            dropped[key] = rule.reason
            continue
        new = re.sub(rule.pattern, rule.replacement, key)
        if new in result:
            raise ValueError(f'both {sources[new]!r} and {key!r} would become {new!r}')
        if new not in target and new not in extra:
            unknown.append(key)
            continue
        result[new], sources[new] = value, key
    return Conversion(
        state=result,
        sources=sources,
        dropped=dropped,
        unknown=tuple(unknown),
        missing=tuple(key for key in target if key not in result),
        mismatched=tuple(
            f'{key}: {list(result[key].shape)} in the source, '
            f'{list(target[key].shape)} in the model'
            for key in target
            if key in result and result[key].shape != target[key].shape
        ),
        metadata=dict(metadata or {}),
    )


class OfficialWeights:
    """A state dict of others, whose shapes tell the sizes of its model.

    ``what`` opens messages, e.g. ``'FILE is no official ZegCLIP checkpoint'``.
    """

    def __init__(self, state: Mapping[str, Tensor], what: str) -> None:
        self.state = state
        self.what = what

    def __contains__(self, key: str) -> bool:
        return key in self.state

    def shape(self, key: str, dimensions: int) -> torch.Size:
        """Return the shape of a weight; no other number of dimensions will do."""
        if key not in self or self.state[key].ndim != dimensions:
            raise CheckpointError(
                f'{self.what}: expected {key} with {dimensions} dimensions, and it has '
                f'the keys {", ".join([*self.state][:4])}, ...'
            )
        return self.state[key].shape

    def count(self, prefix: str) -> int:
        """Return how many numbered parts there are below a prefix."""
        pattern = re.compile(re.escape(prefix) + r'\.(\d+)\.')
        numbers = [int(m[1]) for m in map(pattern.match, self.state) if m]
        return max(numbers, default=-1) + 1


def empty_model(config: Mapping[str, Any], **head: Any) -> nn.Module:
    """Build backbone and head of a segmentor's config without memory for weights.

    ``head`` holds what the segmentor fills in, and what changes no shape.
    """
    parts = {
        'backbone': config['backbone'],
        'decode_head': {**config['decode_head'], **head},
    }
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmseg'):
        return nn.ModuleDict({name: MODELS.build(part) for name, part in parts.items()})


def as_text(**parts: Mapping[str, Any]) -> str:
    """Return parts of a config as the text of a config file."""
    return Config(parts).pretty_text


#: Blocks in each stage of a ResNet -> its name.
RESNET_DEPTHS: dict[tuple[int, ...], int] = {
    (3, 4, 6, 3): 50,
    (3, 4, 23, 3): 101,
    (3, 8, 36, 3): 152,
}

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
