"""CLIP weights of OpenAI and open_clip as one plain file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import ClassVar

from zs3_mmseg.models.towers import openai_sha256, resolve_architecture
from zs3_mmseg.models.towers.architectures import build_model
from zs3_mmseg.utils.checkpoint import CheckpointError, safe_load, state_dict_of

from .conversion import Conversion, Rule, apply_rules
from .converter import Converter, register_converter

# OpenAI stores these scalars beside the weights. They stay in the result, because
# they tell whoever loads it that the activation is QuickGELU.
_OPENAI_MARKS = ('input_resolution', 'context_length', 'vocab_size')
# The text tower of open_clip models with `custom_text` lives one level deeper.
_TEXT = (
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
            rules.append(Rule(_TEXT, r'text.\1', 'text tower of its own'))
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
