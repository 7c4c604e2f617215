"""The tiny CLIP: open_clip's model config with a stem, tokenizer, start, weights."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from zs3_mmseg.datasets.shapes.captions import known_words
from zs3_mmseg.utils.cache import atomic_write

if TYPE_CHECKING:
    from open_clip import CLIP

CONFIG_FILE = 'model.json'
WEIGHTS_FILE = 'weights.safetensors'
MERGES_FILE = 'merges.txt.gz'

#: open_clip's default image statistics (those of OpenAI's CLIP), RGB in 0 to 1.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

Pair = tuple[str, str]

#: SimpleTokenizer skips the first line of a merges file.
_HEADER = '#version: 0.2'
_WORD_END = '</w>'


def _merged(symbols: Sequence[str], pair: Pair) -> list[str]:
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def learn_merges(words: Iterable[str]) -> list[Pair]:
    """Learn merges, in order, that turn each of ``words`` (a to z) into one token.

    The most frequent pair is merged first, the alphabetically first of equals
    (Sennrich et al. 2016, algorithm 1). Any other word falls apart into smaller
    tokens, in the end into bytes, so nothing is unknown.
    """
    spelled = []
    for word in sorted(set(words)):
        if not (word.isascii() and word.isalpha() and word.islower()):
            raise ValueError(f'expected words of the letters a to z, got {word!r}')
        spelled.append([*word[:-1], word[-1] + _WORD_END])
    merges: list[Pair] = []
    while True:
        pairs = Counter(pair for symbols in spelled for pair in pairwise(symbols))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = [_merged(symbols, best) for symbols in spelled]


def merges_file(merges: Sequence[Pair]) -> bytes:
    """Content of the ``.txt.gz`` that ``SimpleTokenizer(bpe_path=...)`` reads.

    No line break at the end: the tokenizer would take the empty line for a merge.
    """
    lines = [_HEADER, *(' '.join(pair) for pair in merges)]
    return gzip.compress('\n'.join(lines).encode(), mtime=0)


def vocabulary_size(merges: Sequence[Pair]) -> int:
    """256 bytes, each also as a word end, the merges, start and end of text."""
    return 2 * 256 + len(merges) + 2


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
    state = {
        name: value.detach().to('cpu', torch.float16).contiguous()
        for name, value in model.state_dict().items()
    }
    atomic_write(path, lambda stream: stream.write(save(state)))


def normalised(images: np.ndarray) -> Tensor:
    """uint8 RGB images (N, H, W, 3) to the model's input (N, 3, H, W)."""
    pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    mean = torch.tensor(MEAN).view(3, 1, 1)
    std = torch.tensor(STD).view(3, 1, 1)
    return (pixels.float() / 255 - mean) / std


def _noise(width: int, generator: torch.Generator) -> Tensor:
    return torch.randn(width, width, generator=generator) / width**0.5


def _factors(product: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors (W, R) whose product ``a @ b.T`` is the best of that rank."""
    left, sizes, right = torch.linalg.svd(product)
    root = sizes[:rank].sqrt()
    return left[:, :rank] * root, right[:rank].T * root


@torch.no_grad()
def mimetic_attention(attention: nn.MultiheadAttention, seed: int) -> None:
    """Initialise self-attention the way trained transformers come out.

    Queries and keys start so that tokens attend to tokens like themselves, with
    sine-cosine positions mostly to their neighbours; values and output projection
    start close to a small negative identity (Trockman and Kolter 2023, "Mimetic
    Initialization of Self-Attention Layers", section 4, with its strengths 0.7 and
    0.4). From a uniform start a small transformer takes long to find locality.
    Biases become zero; ``seed`` is that of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    width, heads = attention.embed_dim, attention.num_heads
    rank, eye = width // heads, torch.eye(width)
    query, key, value = attention.in_proj_weight.split(width)
    for head in range(heads):
        rows = slice(head * rank, (head + 1) * rank)
        left, right = _factors(0.7 * _noise(width, generator) + 0.7 * eye, rank)
        query[rows], key[rows] = left.T, right.T
    left, right = _factors(0.4 * _noise(width, generator) - 0.4 * eye, width)
    value.copy_(right.T)
    attention.out_proj.weight.copy_(left)
    attention.in_proj_bias.zero_()
    attention.out_proj.bias.zero_()
