"""CLIP weights of OpenAI and open_clip as one plain file, and CLIPs in other files."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import torch
from torch import Tensor

from zs3_mmseg.datasets.splits import ZeroShotSplit
from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank
from zs3_mmseg.models.segmentors.vocabulary import RowState, Vocabulary
from zs3_mmseg.models.towers import Architecture, openai_sha256, resolve_architecture
from zs3_mmseg.models.towers.architectures import build_model
from zs3_mmseg.utils.checkpoint import CheckpointError, safe_load, state_dict_of

from .core import (
    Conversion,
    Converter,
    KeyRule,
    OfficialWeights,
    apply_rules,
    register_converter,
)

# OpenAI stores these scalars beside the weights. They stay in the result, because
# they tell whoever loads it that the activation is QuickGELU.
_OPENAI_MARKS = ('input_resolution', 'context_length', 'vocab_size')
# The text tower of open_clip models with `custom_text` lives one level deeper.
_TEXT_KEYS = (
    r'(positional_embedding|text_projection|token_embedding\..*|transformer\..*'
    r'|ln_final\..*)'
)
_QUICK_GELU_ADVICE = (
    'use the -quickgelu variant of the name, or "quick_gelu": true in the model config'
)


@register_converter
class CLIPConverter(Converter):
    """OpenAI's TorchScript archives and open_clip's state dicts -> safetensors.

    The result is what ``pretrained=`` of any CLIP tower takes, without TorchScript and
    therefore without ``--trust`` ever after.
    """

    name: ClassVar[str] = 'clip'
    help: ClassVar[str] = 'CLIP of OpenAI (.pt archive) or open_clip -> safetensors'

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add ``--arch``."""
        parser.add_argument(
            '--arch',
            required=True,
            help='what the weights are for: an open_clip model name such as '
            'ViT-B-16-quickgelu, or the path of a JSON model config',
        )

    def convert(self, source: Path, arguments: argparse.Namespace) -> Conversion:
        """Read the file and check it against the architecture.

        Raises:
            CheckpointError: if the file cannot be read, or OpenAI's weights are to go
                into a model without QuickGELU.
            ValueError: if ``--arch`` is unknown.
        """
        architecture = resolve_architecture(arguments.arch)
        content = safe_load(source, trust=arguments.trust, known_sha256=openai_sha256())
        state = state_dict_of(content, str(source))
        if any(key in state for key in _OPENAI_MARKS) and not architecture.quick_gelu:
            raise CheckpointError(
                f'{source} holds weights of OpenAI, which need QuickGELU, and '
                f'{arguments.arch} computes GELU: {_QUICK_GELU_ADVICE}'
            )
        target = _shapes(architecture)
        rules = [
            KeyRule('|'.join(_OPENAI_MARKS), r'\g<0>', 'marks of OpenAI'),
            KeyRule(r'(?:.*\.)?attn_mask', None, 'the model makes this constant'),
        ]
        if any(key.startswith('text.') for key in target):
            rules.append(KeyRule(_TEXT_KEYS, r'text.\1', 'text tower of its own'))
        rules.append(KeyRule('.*', r'\g<0>'))
        return apply_rules(
            state,
            rules,
            target,
            extra=_OPENAI_MARKS,
            metadata=_metadata(architecture),
        )


def _shapes(architecture: Architecture) -> dict[str, Tensor]:
    """Return the state dict of a CLIP, without memory for weights."""
    with torch.device('meta'):
        return build_model(architecture).state_dict()


def _metadata(architecture: Architecture) -> dict[str, str]:
    activation = 'quick_gelu' if architecture.quick_gelu else 'gelu'
    return dict(format='pt', arch=architecture.name, activation=activation)


#: Drops the text tower of a checkpoint, whose rows are kept instead.
DROP_TEXT_TOWER = KeyRule(
    r'text_encoder\.(positional_embedding|text_projection|token_embedding\.weight'
    r'|ln_final\.(weight|bias)|transformer\.resblocks\.\d+\..*)',
    None,
    'the rows it gave are kept instead',
)


def add_tower_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the flags about the CLIP that a checkpoint was made from.

    ``default`` says in the help which one it is if the user names none.
    """
    parser.add_argument(
        '--arch',
        help='the CLIP it was made from: an open_clip model name or the path of a '
        f'JSON model config; {default}',
    )
    parser.add_argument(
        '--text-tower-out',
        type=Path,
        metavar='FILE.safetensors',
        help='write the text tower in the checkpoint to this file, for rows of '
        "new class names: class_embeddings.source.pretrained='FILE.safetensors'",
    )


@dataclass(frozen=True)
class TowerSizes:
    """Sizes of the image tower in an official state dict.

    ``image_size`` is the side of the images in pixels that its positions are for.
    """

    width: int
    patch_size: int
    num_blocks: int
    image_size: int
    embed_dim: int

    @classmethod
    def of(cls, weights: OfficialWeights, prefix: str) -> TowerSizes:
        """Read them below a prefix, which has no dot at its end."""
        width, _, patch_size, _ = weights.shape(f'{prefix}.conv1.weight', 4)
        positions = weights.shape(f'{prefix}.positional_embedding', 2)[0] - 1
        side = math.isqrt(positions)
        if side * side != positions:
            raise CheckpointError(
                f'{weights.what}: {positions} positions are no square grid of patches'
            )
        return cls(
            width=width,
            patch_size=patch_size,
            num_blocks=weights.count(f'{prefix}.transformer.resblocks'),
            image_size=side * patch_size,
            embed_dim=weights.shape(f'{prefix}.proj', 2)[1],
        )

    def backbone(self, architecture: Architecture, **options: Any) -> dict[str, Any]:
        """Return the config of a backbone with the official numerics."""
        return dict(
            type='OpenCLIPViT',
            arch=architecture.name,
            image_size=self.image_size,
            out_global=True,
            grid='floor',
            pos_interp='bilinear',
            cls_embed_twice=True,
            normalize=True,
            **options,
        )


def require_quick_gelu(architecture: Architecture, method: str) -> Architecture:
    """Return an architecture that computes QuickGELU, as OpenAI's CLIP does."""
    if not architecture.quick_gelu:
        raise ValueError(
            f'{method} computes QuickGELU, and --arch {architecture.name} GELU: '
            f'{_QUICK_GELU_ADVICE}'
        )
    return architecture


def text_tower(
    state: Mapping[str, Tensor], architecture: Architecture, what: str, advice: str = ''
) -> Conversion:
    """Take the text tower out of an official state dict, with open_clip's names.

    ``what`` is how messages call the state dict, ``advice`` what to do if it has none.
    """
    prefix = 'text_encoder.'
    text = {
        key.removeprefix(prefix): value
        for key, value in state.items()
        if key.startswith(prefix)
    }
    if not text:
        raise CheckpointError(f'{what} holds no text tower{advice}')
    target = {
        key: value
        for key, value in _shapes(architecture).items()
        if not re.match(r'visual\.|logit_', key)
    }
    rules = [KeyRule('.*', r'\g<0>')]
    return apply_rules(text, rules, target, metadata=_metadata(architecture))


def encoded_rows(
    tower: Conversion,
    name: str,
    architecture: Architecture,
    split: ZeroShotSplit,
    setting: str,
    bank: Mapping[str, Any],
    beside: tuple[str, ...] = (),
) -> RowState:
    """Encode the class names of a split, as a checkpoint holds them.

    ``name`` is that of the file with the tower's weights, which the rows remember;
    ``bank`` holds the options of the ``ClassEmbeddingBank``.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(tower.as_safetensors())
        source = dict(
            type='clip_text', arch=architecture, pretrained=str(path), cache=False
        )
        vocabulary = Vocabulary(split, setting, ClassEmbeddingBank(source, **bank))
        vocabulary.beside = beside
        return vocabulary.state()
