"""Class embeddings from the text encoder of SAM 3."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zs3_mmseg.utils.transformers_models import load_pretrained

from .sources import EmbeddingSource

_KEY = 'class_embeddings.source.weights'
#: Tokens of a prompt, as the released processor cuts and fills them up.
LENGTH = 32


class SAM3TextSource(EmbeddingSource):
    """Names as SAM 3 reads them: the features of each of their tokens.

    A row is the mean over the tokens of a name; SAM 3 itself reads the tokens
    (``token_features=True``), which are 0 behind the end of a name. Names stand in no
    sentence.

    Args:
        weights: see ``SAM3Backbone``.
        batch_size: how many names run at once.
    """

    def __init__(
        self, weights: str | Path = 'facebook/sam3', *, batch_size: int = 64
    ) -> None:
        if batch_size < 1:
            raise ValueError(f'batch_size must be at least 1, not {batch_size}')
        self.weights = weights
        self.batch_size = batch_size

    @cached_property
    def _config(self) -> Any:
        return load_pretrained('Sam3Config', self.weights, _KEY)

    @property
    def dim(self) -> int:
        return int(self._config.detr_encoder_config.hidden_size)

    @torch.no_grad()
    def token_features(
        self, texts: Sequence[str], device: torch.device | str | None
    ) -> Tensor:
        from open_clip import SimpleTokenizer

        model = load_pretrained('Sam3Model', self.weights, _KEY).eval()
        target = torch.device('cpu' if device is None else device)
        encoder = model.text_encoder.to(target)
        project = model.text_projection.to(target)
        ids = SimpleTokenizer(context_length=LENGTH)([*texts]).to(target)
        # The end of a text has the largest id.
        valid = torch.arange(LENGTH, device=target) <= ids.argmax(dim=1)[:, None]
        found = []
        for some, there in zip(
            ids.split(self.batch_size), valid.split(self.batch_size), strict=True
        ):
            states = encoder(input_ids=some, attention_mask=there.long())
            tokens = project(states.last_hidden_state)
            found.append(tokens.masked_fill(~there[..., None], 0).float().cpu())
        return torch.cat(found)

    def rows(
        self, texts: Sequence[str], normalize: bool, device: torch.device | str | None
    ) -> Tensor:
        tokens = self.token_features(texts, device)
        means = tokens.sum(dim=1) / tokens.any(dim=2).sum(dim=1, keepdim=True)
        return F.normalize(means, dim=-1) if normalize else means

    def provenance(self) -> dict[str, str]:
        return {'source': 'sam3_text', 'weights': Path(self.weights).name}
