"""What `pretrained` may be, and how its weights get into a model."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from zs3_mmseg.utils.checkpoint import (
    CheckpointError,
    LoadReport,
    safe_load,
    state_dict_of,
)
from zs3_mmseg.utils.names import did_you_mean
from zs3_mmseg.utils.origins import origin_of_tower, tag_address

from .architectures import SHAPES_ARCH, SHAPES_TAG, Architecture, shapes_weights
from .positions import resize_positions

# Scalars that OpenAI stores beside the weights, and nobody else does.
_OPENAI_KEYS = ('input_resolution', 'context_length', 'vocab_size')
_VISUAL = 'visual.'
_POSITIONS = 'visual.positional_embedding'
_HEADS = ('logit_scale', 'logit_bias')
_FILE_SUFFIXES = ('.pt', '.pth', '.bin', '.safetensors')


@dataclass(frozen=True)
class Weights:
    """Weights of a tower: a file, and what is known about it.

    Attributes:
        name: how the config calls it: a tag or a path.
        path: the local file.
        mean: of the image in RGB, for values in 0..1; None: as the architecture says.
        std: like ``mean``.
    """

    name: str
    path: Path
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def resolve_weights(architecture: Architecture, pretrained: str | Path) -> Weights:
    """Find the file of ``pretrained``; tags of open_clip are downloaded if need be.

    Args:
        architecture: what the weights are for.
        pretrained: a tag of open_clip for this architecture, a local file, or
            ``'shapes'`` with ``'zs3-shapes-tiny'``.

    Raises:
        ValueError: if the tag is unknown or was trained with another activation.
        FileNotFoundError: if the file does not exist.
        ConnectionError: if the download fails.
    """
    name = os.fspath(pretrained)
    if name == SHAPES_TAG and architecture.name == SHAPES_ARCH:
        return Weights(name, _existing(shapes_weights(), name))
    tag = _tag_config(architecture, name)
    if tag is not None:
        return Weights(
            name,
            _download(architecture, name, tag),
            tuple(tag['mean']),
            tuple(tag['std']),
        )
    if Path(name).expanduser().is_file() or _looks_like_file(name):
        path = Path(name).expanduser()
        return Weights(name, _existing(path, name, architecture.model_name))
    raise ValueError(_unknown_tag(architecture, name))


def openai_sha256() -> frozenset[str]:
    """Return the SHA-256 of OpenAI's TorchScript archives.

    OpenAI made them part of the addresses, which open_clip lists.
    """
    import open_clip

    names = open_clip.list_pretrained_models_by_tag('openai')
    urls = [open_clip.get_pretrained_url(name, 'openai') or '' for name in names]
    found = [re.search(r'/([0-9a-f]{64})/', url) for url in urls]
    return frozenset(match[1] for match in found if match)


def load_weights(
    model: Any,
    architecture: Architecture,
    weights: Weights,
    *,
    trust: bool = False,
    pos_interp: str = 'bicubic',
) -> tuple[bool, bool]:
    """Copy the weights of a file into a model built from ``architecture``.

    Known forms: open_clip's and OpenAI's state dicts, with or without ``module.``
    before each key, alone or under ``state_dict``, and OpenAI's TorchScript archives.
    A file may lack one of the two towers altogether, but nothing else.

    Args:
        model: an open_clip model, which is changed in place.
        architecture: what ``model`` was built from.
        weights: the file.
        trust: open a TorchScript archive even if it is none of OpenAI's.
        pos_interp: how the image tower's position embeddings get another size.

    Returns:
        whether the image tower and whether the text tower was in the file.

    Raises:
        CheckpointError: if keys are missing, unexpected or of another shape.
        ValueError: if the weights were trained with another activation.
    """
    what = f'pretrained={weights.name!r}'
    content = safe_load(weights.path, trust=trust, known_sha256=openai_sha256())
    state = dict(state_dict_of(content, what))
    if any(key in state for key in _OPENAI_KEYS):
        state = {key: v for key, v in state.items() if key not in _OPENAI_KEYS}
        _check_activation(architecture, True, f'OpenAI weights {weights.name!r}')
    state = _as_open_clip(model, state)
    target = model.state_dict()
    _resize_image_positions(state, target, model, pos_interp)
    has_image = any(key.startswith(_VISUAL) for key in state)
    has_text = any(not key.startswith(_VISUAL) and key not in _HEADS for key in state)
    for key, value in target.items():
        if key in _HEADS:
            absent = not (has_image and has_text)
        else:
            absent = not (has_image if key.startswith(_VISUAL) else has_text)
        if absent:
            state.setdefault(key, value)
    report = _compare(state, target)
    if not report.clean:
        raise CheckpointError(
            f'{what} does not fit arch={architecture.name!r}: {report}'
        )
    model.load_state_dict(state)
    return has_image, has_text


def _tag_config(architecture: Architecture, name: str) -> Mapping[str, Any] | None:
    """Return open_clip's entry for a tag, checked for its activation."""
    import open_clip

    model_name = architecture.model_name
    if model_name is None:
        return None
    tag = open_clip.get_pretrained_cfg(model_name, name)
    if not tag:
        # Tags of QuickGELU towers are listed under both names, the others under one.
        base = model_name.removesuffix('-quickgelu')
        tag = open_clip.get_pretrained_cfg(base, name)
        if not tag:
            return None
    _check_activation(
        architecture, bool(tag.get('quick_gelu', False)), f'the tag {name!r}'
    )
    return tag


def _check_activation(architecture: Architecture, quick_gelu: bool, what: str) -> None:
    if architecture.quick_gelu == quick_gelu:
        return
    wanted, given = ('QuickGELU', 'GELU') if quick_gelu else ('GELU', 'QuickGELU')
    raise ValueError(
        f'{what} was trained with {wanted}, but arch={architecture.name!r} computes '
        f'{given}, which silently spoils every feature. {_matching(architecture)}'
    )


def _matching(architecture: Architecture) -> str:
    """Return the advice that gives an architecture the other activation."""
    import open_clip

    name = architecture.model_name
    if name is not None:
        suffix = '-quickgelu'
        base = name.removesuffix(suffix)
        other = base if name.endswith(suffix) else name + suffix
        if other in open_clip.list_models():
            return f'Use arch={other!r}.'
    value = str(not architecture.quick_gelu).lower()
    return f'Use a model config with "quick_gelu": {value}.'


def _download(architecture: Architecture, name: str, tag: Mapping[str, Any]) -> Path:
    import open_clip

    try:
        return Path(open_clip.download_pretrained(dict(tag)))
    except (OSError, RuntimeError) as error:
        raise ConnectionError(
            f'the weights {name!r} of {architecture.name!r} are not in the local cache '
            f'and could not be downloaded ({error}). Without a network, bring '
            f'{tag_address(tag)} here and give the path of the file: '
            "pretrained='/path/to/file', in model.backbone and in "
            'model.class_embeddings.source alike.'
        ) from error


def _looks_like_file(name: str) -> bool:
    return os.sep in name or name.endswith(_FILE_SUFFIXES)


def _existing(path: Path, name: str, model_name: str | None = None) -> Path:
    if path.is_file():
        return path
    origin = model_name and origin_of_tower(model_name, path.name)
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    files = [entry.name for entry in beside if entry.suffix in _FILE_SUFFIXES]
    hint = did_you_mean(path.name, files)
    raise FileNotFoundError(
        f'the weights {path} do not exist; they were asked for by '
        f'pretrained={name!r}.{hint}' + (f' Get it: {origin}' if origin else '')
    )


def _unknown_tag(architecture: Architecture, name: str) -> str:
    import open_clip

    tags: list[str] = []
    if architecture.model_name is not None:
        tags = open_clip.list_pretrained_tags_by_model(architecture.model_name)
    elif architecture.name == SHAPES_ARCH:
        tags = [SHAPES_TAG]
    listed = ', '.join(map(repr, tags)) or 'none (tags go with open_clip model names)'
    return (
        f'pretrained={name!r} is neither a file nor a tag of '
        f'arch={architecture.name!r}.{did_you_mean(name, tags)} Its tags: {listed}.'
    )


def _as_open_clip(model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of other publishers to those of ``model``."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    state = dict(convert_state_dict(model, state))
    if not hasattr(model, 'positional_embedding'):
        state = dict(convert_to_custom_text_state_dict(state))
    # Older releases of transformers stored this constant.
    state.pop('text.transformer.embeddings.position_ids', None)
    for key in _HEADS:
        scalar = getattr(model, key, None)
        if key in state and scalar is not None:
            state[key] = state[key].reshape(scalar.shape)
    return state


def _resize_image_positions(
    state: dict[str, Tensor],
    target: Mapping[str, Tensor],
    model: Any,
    mode: str,
) -> None:
    if _POSITIONS not in state or _POSITIONS not in target:
        return
    given, wanted = state[_POSITIONS], target[_POSITIONS]
    patches = given.shape[0] - 1
    is_square = math.isqrt(patches) ** 2 == patches
    if (
        given.shape == wanted.shape
        or given.shape[1] != wanted.shape[1]
        or not is_square
    ):
        return
    grid = tuple(model.visual.grid_size)
    state[_POSITIONS] = resize_positions(given, grid, mode=mode)


def _compare(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> LoadReport:
    common = [key for key in state if key in target]
    mismatched = {
        key: f'{key}: {tuple(state[key].shape)} in the file, '
        f'{tuple(target[key].shape)} in the model'
        for key in common
        if state[key].shape != target[key].shape
    }
    return LoadReport(
        loaded=tuple(key for key in common if key not in mismatched),
        missing=tuple(key for key in target if key not in state),
        unexpected=tuple(key for key in state if key not in target),
        mismatched=tuple(mismatched.values()),
    )
