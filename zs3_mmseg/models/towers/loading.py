"""CLIP models by architecture and weights, each file read once."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from mmengine.logging import print_log

from zs3_mmseg.utils.cache import content_hash
from zs3_mmseg.utils.checkpoint import CheckpointError

from .architectures import (
    Architecture,
    Tokenizer,
    build_model,
    build_tokenizer,
    resolve_architecture,
)
from .positions import check_interpolation
from .weights import Weights, load_weights, resolve_weights

Tower = Literal['both', 'image', 'text']


@dataclass(frozen=True)
class LoadedCLIP:
    """An open_clip model with what belongs to it.

    Attributes:
        model: the model, in evaluation mode and float32. It is shared between
            callers: copy what you change.
        architecture: what it was built from.
        mean: of the images it was trained on, RGB, for values in 0..1.
        std: like ``mean``.
        content_hash: of the weights, the config and the tokenizer; equal for equal
            files, wherever they are.
        has_image: whether the image tower's weights were in the file.
        has_text: whether the text tower's weights were in the file.
    """

    model: Any = field(repr=False)
    architecture: Architecture
    mean: tuple[float, ...]
    std: tuple[float, ...]
    content_hash: str
    has_image: bool
    has_text: bool

    @property
    def arch_name(self) -> str:
        """How the config calls the architecture."""
        return self.architecture.name

    @property
    def known_words(self) -> tuple[str, ...]:
        """The words the tower was trained on; empty if there is no such list."""
        return self.architecture.known_words

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer: a list of texts -> token ids ``(T, context length)``."""
        return build_tokenizer(self.architecture)


# The last model loaded from a file: the image and the text tower of a segmentor are
# asked for one after the other.
_latest: list[tuple[tuple, LoadedCLIP]] = []


def load_clip(
    arch: str | Mapping | Architecture,
    pretrained: str | Path | None = None,
    *,
    trust: bool = False,
    need: Tower = 'both',
    pos_interp: str = 'bicubic',
) -> LoadedCLIP:
    """Build a CLIP model and load its weights.

    The model last loaded from a file is kept until :func:`release_towers`.

    Args:
        arch: an open_clip model name, the path of an open_clip JSON model config, such
            a config as a dict, or ``'zs3-shapes-tiny'``.
        pretrained: a tag of open_clip, a local file (open_clip's or OpenAI's state
            dict, or an OpenAI archive), ``'shapes'``, or None for random weights.
        trust: open a TorchScript archive even if it is none of OpenAI's.
        need: which tower must be in the file.
        pos_interp: how the image tower's position embeddings are resized if the file
            was made for another image size: ``'bicubic'`` or ``'bilinear'``.

    Raises:
        ValueError: if ``arch`` or a tag is unknown, or the activation does not match.
        FileNotFoundError: if a file does not exist.
        CheckpointError: if the file does not fit the architecture.
        ConnectionError: if a tag could not be downloaded.
    """
    architecture = resolve_architecture(arch)
    check_interpolation(pos_interp)
    if pretrained is None:
        return _random(architecture)
    weights = resolve_weights(architecture, pretrained)
    key = (architecture, _identity(weights.path), trust, pos_interp)
    kept = [loaded for known, loaded in _latest if known == key]
    if kept:
        loaded = kept[0]
    else:
        release_towers()
        loaded = _load(architecture, weights, trust, pos_interp)
        _latest.append((key, loaded))
    for tower, present in (('image', loaded.has_image), ('text', loaded.has_text)):
        if need in ('both', tower) and not present:
            raise CheckpointError(f'pretrained={weights.name!r} has no {tower} tower')
    return loaded


def release_towers() -> None:
    """Let go of the model that :func:`load_clip` keeps."""
    _latest.clear()


def tower_hash(arch: str | Mapping | Architecture, pretrained: str | Path) -> str:
    """Return the ``content_hash`` of a tower without building it.

    Args:
        arch: as in :func:`load_clip`.
        pretrained: as in :func:`load_clip`, but not None.
    """
    architecture = resolve_architecture(arch)
    return _hash(architecture, resolve_weights(architecture, pretrained).path)


def _random(architecture: Architecture) -> LoadedCLIP:
    print_log(
        f'arch={architecture.name!r} has no pretrained weights: they are random until '
        'a checkpoint is loaded.',
        logger='current',
        level=logging.WARNING,
    )
    model = build_model(architecture)
    digest = hashlib.sha256()
    for key, value in model.state_dict().items():
        digest.update(key.encode())
        digest.update(value.cpu().numpy().tobytes())
    mean, std = _statistics(architecture, None)
    return LoadedCLIP(
        model=model,
        architecture=architecture,
        mean=mean,
        std=std,
        content_hash=content_hash(_config_json(architecture), digest.hexdigest()),
        has_image=True,
        has_text=True,
    )


def _load(
    architecture: Architecture, weights: Weights, trust: bool, pos_interp: str
) -> LoadedCLIP:
    model = build_model(architecture)
    has_image, has_text = load_weights(
        model, architecture, weights, trust=trust, pos_interp=pos_interp
    )
    mean, std = _statistics(architecture, weights)
    return LoadedCLIP(
        model=model,
        architecture=architecture,
        mean=mean,
        std=std,
        content_hash=_hash(architecture, weights.path),
        has_image=has_image,
        has_text=has_text,
    )


def _statistics(
    architecture: Architecture, weights: Weights | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    mean = architecture.mean or (weights and weights.mean) or OPENAI_DATASET_MEAN
    std = architecture.std or (weights and weights.std) or OPENAI_DATASET_STD
    return tuple(mean), tuple(std)


def _hash(architecture: Architecture, weights: Path) -> str:
    merges = architecture.merges_path
    return content_hash(
        _config_json(architecture),
        _file_sha256(*_identity(weights)),
        '' if merges is None else _file_sha256(*_identity(merges)),
    )


def _config_json(architecture: Architecture) -> str:
    """Return the model config as text, without the place of the merges file."""
    config = json.loads(json.dumps(architecture.config))
    kwargs = config['text_cfg'].get('tokenizer_kwargs') or {}
    kwargs.pop('bpe_path', None)
    return json.dumps(config, sort_keys=True)


def _identity(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path.resolve()), status.st_mtime_ns, status.st_size


@lru_cache(maxsize=16)
def _file_sha256(path: str, _mtime_ns: int, _size: int) -> str:
    with open(path, 'rb') as stream:
        return hashlib.file_digest(stream, 'sha256').hexdigest()
