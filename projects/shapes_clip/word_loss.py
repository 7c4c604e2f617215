"""Classification of the words of a caption, an option beside InfoNCE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer


class CaptionWordLoss(nn.Module):
    """Predict from the image embedding which words its caption holds.

    Softmax cross-entropy against the caption's tokens, each weighted by how rare it
    is (Huang et al. 2024, "Classification Done Right for Vision-Language
    Pre-Training", section 3). Like InfoNCE it sees images and captions only. Its
    linear layer is dropped after training; the model stays as it is.

    Args:
        dim: channels of the image embedding.
        captions: captions to count words in.
        tokenizer: its tokens are the words.
    """

    def __init__(
        self, dim: int, captions: Sequence[str], tokenizer: SimpleTokenizer
    ) -> None:
        super().__init__()
        self.classifier = nn.Linear(dim, tokenizer.vocab_size)
        tokens = tokenizer(list(captions))
        there = self._bags(tokens).mean(dim=0)
        # A token of every caption tells nothing, one of none has no examples.
        rarity = torch.where(there > 0, -there.clamp(min=1e-6).log(), 0.0)
        self.rarity: Tensor
        self.register_buffer('rarity', rarity, persistent=False)

    def _bags(self, tokens: Tensor) -> Tensor:
        """Which tokens (B, V) are among ``tokens`` (B, L)."""
        bags = torch.zeros(len(tokens), self.classifier.out_features)
        bags.scatter_(1, tokens, 1.0)
        bags[:, 0] = 0  # the filling behind the end of the text
        return bags

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Loss of image embeddings (B, E), not normalised, and tokens (B, L)."""
        targets = self._bags(tokens) * self.rarity
        targets = targets / targets.sum(dim=1, keepdim=True).clamp(min=1e-6)
        return F.cross_entropy(self.classifier(features), targets)
