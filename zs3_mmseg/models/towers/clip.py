"""CLIP models by architecture and weights, each file read once."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from mmengine.logging import print_log

from zs3_mmseg.utils.cache import content_hash
from zs3_mmseg.utils.checkpoint import (
    CheckpointError,
    LoadReport,
    safe_load,
    state_dict_of,
)
from zs3_mmseg.utils.hub import cached_file, require_hub
from zs3_mmseg.utils.names import choose, did_you_mean
from zs3_mmseg.utils.origins import hub_file, origin_of_tower, tag_address

from .architectures import (
    SHAPES_ARCH,
    SHAPES_TAG,
    Architecture,
    Tokenizer,
    build_model,
    build_tokenizer,
    resolve_architecture,
    shapes_weights,
)
from .positions import INTERPOLATIONS, resize_positions


def text_features(model: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Run an open_clip text tower once for its embedding and all token outputs.

    Args:
        model: an open_clip model.
        tokens: token ids ``(T, L)``.

    Returns:
        the embeddings ``(T, E)``, not normalised, and the outputs of all ``L`` places
        ``(T, L, W)`` after the final norm and before the projection, those after the
        end of the text included.

    Raises:
        ValueError: if the tower gives no outputs of single tokens.
    """
    try:
        outputs = model.forward_intermediates(
            text=tokens, text_indices=1, normalize=False, normalize_intermediates=True
        )
    except (AttributeError, NotImplementedError) as error:
        raise ValueError(
            f'the text tower of {type(model).__name__} gives no outputs of single '
            "tokens: use one of open_clip's own text transformers, such as that of "
            "'ViT-B-16'"
        ) from error
    return outputs['text_features'], outputs['text_intermediates'][-1]


# Scalars that OpenAI stores beside the weights, and nobody else does.
_OPENAI_KEYS = ('input_resolution', 'context_length', 'vocab_size')
_VISUAL = 'visual.'
_POSITIONS = 'visual.positional_embedding'
_HEADS = ('logit_scale', 'logit_bias')
_FILE_SUFFIXES = ('.pt', '.pth', '.bin', '.safetensors')


@dataclass(frozen=True)
class Weights:
    """Weights of a tower: a file, and what is known about it.

    ``name`` is the tag or path in the config. ``mean`` and ``std`` are those of
    images in RGB, for values in 0..1; None: as the architecture says.
    """

    name: str
    path: Path
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def resolve_weights(architecture: Architecture, pretrained: str | Path) -> Weights:
    """Find the file of ``pretrained``; tags of open_clip are downloaded if need be."""
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
    A file may lack one of the two towers altogether, but nothing else. Returned is
    whether the image tower and whether the text tower was in it.

    open_clip's own loading is not used: it resizes positions with anti-aliasing, which
    gives other features, and fills in a logit bias that a file lacks.
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
    """Return the file of a tag from the cache, or let open_clip fetch it."""
    import open_clip

    try:
        if tag.get('hf_hub'):
            repo, file = hub_file(tag)
            # open_clip takes one of these if the repository has it.
            safe = (f'{Path(file).stem}.safetensors', 'open_clip_model.safetensors')
            cached = cached_file(repo, (*safe, file))
            if cached is not None:
                return cached
            require_hub()
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
    choose('pos_interp', pos_interp, INTERPOLATIONS)
    if pretrained is None:
        return _load(architecture, None)
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


def _load(
    architecture: Architecture,
    weights: Weights | None,
    trust: bool = False,
    pos_interp: str = 'bicubic',
) -> LoadedCLIP:
    """Build a model with the weights of a file, or with random ones, and say so."""
    model = build_model(architecture)
    has_image = has_text = True
    if weights is None:
        state = model.state_dict()
        if any(value.is_meta for value in state.values()):
            state = {}  # somebody asks for keys and shapes only
        else:
            print_log(
                f'arch={architecture.name!r} has no pretrained weights: they are '
                'random until a checkpoint is loaded.',
                logger='current',
                level=logging.WARNING,
            )
        digest = hashlib.sha256()
        for key, value in state.items():
            digest.update(key.encode())
            digest.update(value.cpu().numpy().tobytes())
        hashed = content_hash(_config_json(architecture), digest.hexdigest())
    else:
        has_image, has_text = load_weights(
            model, architecture, weights, trust=trust, pos_interp=pos_interp
        )
        hashed = _hash(architecture, weights.path)
    mean, std = _statistics(architecture, weights)
    return LoadedCLIP(
        model=model,
        architecture=architecture,
        mean=mean,
        std=std,
        content_hash=hashed,
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
