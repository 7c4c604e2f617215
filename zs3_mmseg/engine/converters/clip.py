"""CLIP weights of OpenAI and open_clip as one plain file."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from zs3_mmseg.models.towers import Architecture, openai_sha256, resolve_architecture
from zs3_mmseg.models.towers.architectures import build_model
from zs3_mmseg.utils.checkpoint import CheckpointError, safe_load, state_dict_of

from .core import Conversion, Converter, Rule, apply_rules, register_converter

_TEXT = 'text_encoder.'

#: Drops the text tower of a checkpoint, whose rows are kept instead.
DROP_TEXT_TOWER = Rule(
    r'text_encoder\.(positional_embedding|text_projection|token_embedding\.weight'
    r'|ln_final\.(weight|bias)|transformer\.resblocks\.\d+\..*)',
    None,
    'the rows it gave are kept instead',
)


def add_tower_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the flags about the CLIP that a checkpoint was made from.

    Args:
        parser: of the sub-command.
        default: which CLIP it is if the user names none, for the help.
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


ShapeReader = Callable[[str, int], torch.Size]


@dataclass(frozen=True)
class ImageTowerLayout:
    """Sizes of the image tower in an official state dict.

    Attributes:
        width: channels of the image tower's tokens.
        patch_size: of the image tower, in pixels.
        num_blocks: blocks of the image tower.
        grid: patches per side that the position embeddings are for.
        embed_dim: of the space of images and texts.
    """

    width: int
    patch_size: int
    num_blocks: int
    grid: int
    embed_dim: int

    @property
    def image_size(self) -> int:
        """Side of the images that the position embeddings are for, in pixels."""
        return self.grid * self.patch_size

    @staticmethod
    def read(
        state: Mapping[str, Tensor], shape: ShapeReader, prefix: str, what: str
    ) -> dict[str, int]:
        """Read the sizes, by name.

        Args:
            state: with the official keys.
            shape: from :func:`shape_reader`.
            prefix: of the image tower's keys, without the dot.
            what: how messages call the state dict, e.g. the file.

        Raises:
            CheckpointError: if a weight that tells a size is not there.
        """
        width, _, patch_size, _ = shape(f'{prefix}.conv1.weight', 4)
        positions = shape(f'{prefix}.positional_embedding', 2)[0] - 1
        return dict(
            width=width,
            patch_size=patch_size,
            num_blocks=count_numbered(state, f'{prefix}.transformer.resblocks'),
            grid=side_of_grid(positions, what),
            embed_dim=shape(f'{prefix}.proj', 2)[1],
        )


def shape_reader(state: Mapping[str, Tensor], what: str) -> ShapeReader:
    """Return a function of a key and a number of dimensions, giving a weight's shape.

    Args:
        state: the official state dict.
        what: how messages call it, e.g. ``'FILE is no official ZegCLIP checkpoint'``.
    """

    def shape(key: str, dimensions: int) -> torch.Size:
        if key not in state or state[key].ndim != dimensions:
            raise CheckpointError(
                f'{what}: expected {key} with {dimensions} dimensions, and it has the '
                f'keys {", ".join([*state][:4])}, ...'
            )
        return state[key].shape

    return shape


def side_of_grid(num_positions: int, what: str) -> int:
    """Return the side of the square that so many positions of patches fill.

    Raises:
        CheckpointError: if they fill none.
    """
    side = math.isqrt(num_positions)
    if side * side != num_positions:
        raise CheckpointError(
            f'{what}: {num_positions} positions are no square grid of patches'
        )
    return side


def count_numbered(state: Mapping[str, Tensor], prefix: str) -> int:
    """Return how many numbered parts there are below a prefix."""
    pattern = re.compile(re.escape(prefix) + r'\.(\d+)\.')
    numbers = [int(m[1]) for m in map(pattern.match, state) if m]
    return max(numbers, default=-1) + 1


def require_quick_gelu(architecture: Architecture, method: str) -> Architecture:
    """Return an architecture that computes QuickGELU, as OpenAI's CLIP does.

    Raises:
        ValueError: if it computes GELU.
    """
    if not architecture.quick_gelu:
        raise ValueError(
            f'{method} computes QuickGELU, and --arch {architecture.name} GELU: use '
            'the -quickgelu variant of the name, or "quick_gelu": true in the model '
            'config'
        )
    return architecture


def resized(architecture: Architecture, image_size: int) -> Architecture:
    """Return an architecture for images of another size."""
    config = dict(architecture.config)
    config['vision_cfg'] = config['vision_cfg'] | dict(image_size=image_size)
    return Architecture(architecture.name, config)


def text_tower(
    state: Mapping[str, Tensor], architecture: Architecture, what: str, advice: str = ''
) -> Conversion:
    """Take the text tower out of an official state dict, with open_clip's names.

    Args:
        state: the state dict.
        architecture: what the tower is for.
        what: how messages call the state dict, e.g. the file.
        advice: what to do if there is none.

    Raises:
        CheckpointError: if there is none.
    """
    text = {
        key.removeprefix(_TEXT): value
        for key, value in state.items()
        if key.startswith(_TEXT)
    }
    if not text:
        raise CheckpointError(f'{what} holds no text tower{advice}')
    with torch.device('meta'):
        model = build_model(architecture)
    target = {
        key: value
        for key, value in model.state_dict().items()
        if not re.match(r'visual\.|logit_', key)
    }
    return apply_rules(
        text,
        [Rule('.*', r'\g<0>')],
        target,
        metadata=dict(format='pt', arch=architecture.name, activation='quick_gelu'),
    )


# OpenAI stores these scalars beside the weights. They stay in the result, because
# they tell whoever loads it that the activation is QuickGELU.
_OPENAI_MARKS = ('input_resolution', 'context_length', 'vocab_size')
# The text tower of open_clip models with `custom_text` lives one level deeper.
_TEXT_KEYS = (
    r'(positional_embedding|text_projection|token_embedding\..*|transformer\..*'
    r'|ln_final\..*)'
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
                f'{arguments.arch} computes GELU: use the -quickgelu variant of the '
                'name, or "quick_gelu": true in the model config'
            )
        target = build_model(architecture).state_dict()
        rules = [
            Rule('|'.join(_OPENAI_MARKS), r'\g<0>', 'marks of OpenAI'),
            Rule(r'(?:.*\.)?attn_mask', None, 'a constant that the model makes itself'),
        ]
        if any(key.startswith('text.') for key in target):
            rules.append(Rule(_TEXT_KEYS, r'text.\1', 'text tower of its own'))
        rules.append(Rule('.*', r'\g<0>'))
        return apply_rules(
            state,
            rules,
            target,
            extra=_OPENAI_MARKS,
            metadata={
                'format': 'pt',
                'arch': architecture.name,
                'activation': 'quick_gelu' if architecture.quick_gelu else 'gelu',
            },
        )
