"""Checks of a backbone's options, before anything is built or downloaded."""

from __future__ import annotations

from collections.abc import Sequence

from zs3_mmseg.models.towers import Architecture

#: The entry of ``out_indices`` that means the tokens in the space of the texts.
DENSE = -1


def one_of(name: str, value: object, allowed: tuple) -> None:
    """Raise if an option has none of the allowed values."""
    if value not in allowed:
        options = ', '.join(map(repr, allowed))
        raise ValueError(f'{name} must be one of {options}, not {value!r}')


def check_indices(indices: Sequence[int], num_blocks: int) -> tuple[int, ...]:
    """Return ``out_indices`` as a tuple if they name different outputs."""
    chosen = tuple(indices)
    wrong = [i for i in chosen if not DENSE <= i < num_blocks]
    if wrong or len(set(chosen)) != len(chosen):
        raise ValueError(
            f'out_indices={chosen} must be different numbers, each -1 (the dense '
            f'tokens) or a block from 0 to {num_blocks - 1}'
        )
    return chosen


def check_blocks(name: str, blocks: Sequence[int], num_blocks: int) -> tuple[int, ...]:
    """Return block numbers in ascending order if they are different and exist."""
    chosen = tuple(sorted(blocks))
    if any(not 0 <= i < num_blocks for i in chosen) or len(set(chosen)) != len(chosen):
        raise ValueError(
            f'{name}={tuple(blocks)} must be different blocks from 0 to '
            f'{num_blocks - 1}'
        )
    return chosen


def require_plain_vit(architecture: Architecture) -> None:
    """Refuse towers that the backbone cannot run."""
    vision = architecture.config['vision_cfg']
    patch = vision.get('patch_size', 16)
    kind = None
    if vision.get('timm_model_name'):
        kind = f'a timm model ({vision["timm_model_name"]})'
    elif isinstance(vision.get('layers'), (list, tuple)):
        kind = 'a ResNet'
    elif vision.get('attentional_pool'):
        kind = 'a ViT with attentional pooling'
    elif vision.get('pool_type', 'tok') == 'none':
        kind = 'a ViT without pooling'
    elif not isinstance(patch, int) and len(set(patch)) > 1:
        kind = f'a ViT with patches of {"x".join(map(str, patch))}'
    if kind is not None:
        raise ValueError(
            f'the image tower of arch={architecture.name!r} is {kind}, and OpenCLIPViT '
            "runs open_clip's own vision transformers with square patches and class "
            "token or average pooling: use one such as 'ViT-B-16'."
        )
