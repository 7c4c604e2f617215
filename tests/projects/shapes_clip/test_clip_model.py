"""The small byte-pair vocabulary, and how attention starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from clip_model import learn_merges, merges_file, mimetic_attention, vocabulary_size
from zs3_mmseg.datasets.shapes.captions import known_words


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    path: Path = tmp_path_factory.mktemp('bpe') / 'merges.txt.gz'
    path.write_bytes(merges_file(learn_merges(known_words())))
    return SimpleTokenizer(str(path), context_length=32)


def test_every_known_word_is_one_token(tokenizer: Any) -> None:
    assert {len(tokenizer.encode(word)) for word in known_words()} == {1}


def test_the_end_of_text_has_the_highest_id(tokenizer: Any) -> None:
    size = vocabulary_size(learn_merges(known_words()))
    assert tokenizer.vocab_size == size
    assert tokenizer.eot_token_id == size - 1
    assert tokenizer('a star').argmax(dim=1).item() == 3


@given(text=st.text(alphabet=st.characters(min_codepoint=97, max_codepoint=122)))
def test_any_word_comes_back(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)).strip() == text


@pytest.mark.parametrize('text', ['fire hydrant', 'caf\u00e9', '\u6f22\u5b57', '42!'])
def test_other_scripts_and_signs_are_encoded(tokenizer: Any, text: str) -> None:
    decoded = tokenizer.decode(tokenizer.encode(text))
    assert decoded.replace(' ', '') == text.replace(' ', '')


def test_the_file_is_the_same_every_time() -> None:
    first, again = (merges_file(learn_merges(known_words())) for _ in range(2))
    assert first == again


def test_words_of_other_letters_are_an_error() -> None:
    with pytest.raises(ValueError, match="got 'no-go'"):
        learn_merges(['fine', 'no-go'])


def test_mimetic_attention_looks_at_similar_tokens() -> None:
    attention = nn.MultiheadAttention(64, 2, batch_first=True)
    mimetic_attention(attention, seed=0)
    tokens = torch.randn(1, 30, 64, generator=torch.Generator().manual_seed(0))
    _, weights = attention(tokens, tokens, tokens, average_attn_weights=False)
    diagonal = weights.diagonal(dim1=-2, dim2=-1).mean()
    assert diagonal > 5 / 30
