"""Class embeddings from the text tower of GroupViT, which is none of CLIP's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zs3_mmseg.utils.transformers_models import load_pretrained

from .clip_text import fill, resolve_templates
from .sources import EmbeddingSource

_KEY = 'class_embeddings.source.weights'


class GroupViTTextSource(EmbeddingSource):
    """Prompts through GroupViT's own text tower, through ``transformers``.

    Its tokens are those of CLIP. Rows are averaged over templates as those of CLIP are.

    Args:
        weights: see ``GroupViTBackbone``.
        templates: as for ``clip_text``.
        reduce_templates: average the templates of a name.
        batch_size: how many prompts run at once.
    """

    def __init__(
        self,
        weights: str | Path = 'nvidia/groupvit-gcc-yfcc',
        *,
        templates: str | Sequence[str] = 'single',
        reduce_templates: bool = True,
        batch_size: int = 256,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f'batch_size must be at least 1, not {batch_size}')
        self.weights = weights
        self.templates = resolve_templates(templates)
        self.reduce_templates = reduce_templates
        self.batch_size = batch_size

    @cached_property
    def _config(self) -> Any:
        return load_pretrained('GroupViTConfig', self.weights, _KEY)

    @property
    def dim(self) -> int:
        return int(self._config.projection_dim)

    @property
    def prompts_per_row(self) -> int:
        return 1 if self.reduce_templates else len(self.templates)

    @torch.no_grad()
    def rows(
        self, texts: Sequence[str], normalize: bool, device: torch.device | str | None
    ) -> Tensor:
        from open_clip import SimpleTokenizer

        model = load_pretrained('GroupViTModel', self.weights, _KEY).eval()
        length = int(self._config.text_config.max_position_embeddings)
        prompts = [
            fill(template, text) for text in texts for template in self.templates
        ]
        tokens = SimpleTokenizer(context_length=length)(prompts)
        target = torch.device('cpu' if device is None else device)
        model.to(target)
        found = torch.cat(
            [
                model.text_projection(
                    model.text_model(input_ids=some.to(target)).pooler_output
                ).cpu()
                for some in tokens.split(self.batch_size)
            ]
        ).float()
        found = F.normalize(found, dim=-1) if normalize else found
        if not self.reduce_templates:
            return found
        means = found.unflatten(0, (len(texts), -1)).mean(dim=1)
        return F.normalize(means, dim=-1) if normalize else means

    def provenance(self) -> dict[str, str]:
        return {
            'source': 'groupvit_text',
            'weights': Path(self.weights).name,
            'templates': ' | '.join(self.templates),
        }
