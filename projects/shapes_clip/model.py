"""The tiny CLIP on disk: a model config of open_clip with a stem, merges, weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byte_pairs import (
    learn_merges,
    merges_file,
    vocabulary_size,
)
from zs3_mmseg.datasets.shapes.captions import known_words
from zs3_mmseg.utils.cache import atomic_write

if TYPE_CHECKING:
    from open_clip import CLIP

CONFIG_FILE = 'model.json'
WEIGHTS_FILE = 'weights.safetensors'
MERGES_FILE = 'merges.txt.gz'
CARD_FILE = 'MODEL_CARD.md'

#: open_clip's default image statistics (those of OpenAI's CLIP), RGB in 0 to 1.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def model_config(num_tokens: int) -> dict[str, Any]:
    """The open_clip model config with our extra keys.

    ``conv_stem`` replaces the patch convolution; ``known_words`` lists the words of
    the training captions; ``preprocess_cfg`` holds the image statistics in open_clip's
    own spelling.
    """
    return {
        'embed_dim': 128,
        'vision_cfg': {
            'image_size': 112,
            'patch_size': 8,
            'width': 128,
            'layers': 6,
            'head_width': 32,
            'pos_embed_type': 'sin_cos_2d',
            'pool_type': 'avg',
            'final_ln_after_pool': False,
        },
        'conv_stem': [32, 64],
        'text_cfg': {
            'context_length': 32,
            'vocab_size': num_tokens,
            'width': 128,
            'heads': 4,
            'layers': 3,
            'tokenizer_kwargs': {'bpe_path': MERGES_FILE},
        },
        'preprocess_cfg': {'mean': list(MEAN), 'std': list(STD)},
        'known_words': known_words(),
    }


def write_config_and_merges(folder: Path) -> dict[str, Any]:
    """Write ``model.json`` and the tokenizer merges; returns the config."""
    merges = learn_merges(known_words())
    config = model_config(vocabulary_size(merges))
    atomic_write(folder / MERGES_FILE, lambda stream: stream.write(merges_file(merges)))
    text = json.dumps(config, indent=2) + '\n'
    atomic_write(folder / CONFIG_FILE, lambda stream: stream.write(text.encode()))
    return config


def save_weights(model: CLIP, path: Path) -> None:
    """Write the weights in half precision."""
    import torch
    from safetensors.torch import save

    state = {
        name: value.detach().to('cpu', torch.float16).contiguous()
        for name, value in model.state_dict().items()
    }
    atomic_write(path, lambda stream: stream.write(save(state)))
