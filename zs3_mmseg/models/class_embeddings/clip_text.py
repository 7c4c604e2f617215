"""Class embeddings from the text tower of a CLIP model, kept on disk."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor

from mmengine.logging import print_log

from zs3_mmseg.models.towers import (
    Architecture,
    LoadedCLIP,
    build_tokenizer,
    load_clip,
    resolve_architecture,
    text_features,
    tower_hash,
)
from zs3_mmseg.utils.cache import cached_tensors, content_hash
from zs3_mmseg.utils.names import as_list, did_you_mean

from .sources import EmbeddingSource

_SLOT = '{}'
_SIZES = ('small', 'medium', 'large')
_OTSEG = (
    *(f'a {part} of a {{}}.' for part in ('photo', 'portrait', 'part', 'segment')),
    *(f'a photo of {size} {{}}.' for size in _SIZES),
    'a background of a {}.',
)

_IN_SCENE = 'A photo of a {} in the scene'

#: Named sets of templates; ``'imagenet'`` is OpenAI's set of 80, read from open_clip.
TEMPLATE_SETS: dict[str, tuple[str, ...]] = {
    'bare': ('{}',),
    'single': ('a photo of a {}',),
    # The 15 templates of ZegCLIP's COCO-Stuff embeddings.
    'zegclip': (
        'a photo of a {}.',
        *(f'a photo of a {size} {{}}.' for size in _SIZES),
        'This is a photo of a {}.',
        *(f'This is a photo of a {size} {{}}.' for size in _SIZES),
        'a {} in the scene.',
        'a photo of a {} in the scene.',
        *(f'There is {article} {{}} in the scene.' for article in ('a', 'the')),
        *(f'This is {article} {{}} in the scene.' for article in ('a', 'the', 'one')),
    ),
    # FC-CLIP's, of ViLD: those that mmseg has under this name.
    'vild': (
        'a photo of a {}.',
        'This is a photo of a {}',
        'There is a {} in the scene',
        'There is the {} in the scene',
        'a photo of a {} in the scene',
        *(f'a photo of a {size} {{}}.' for size in _SIZES),
        *(f'This is a photo of a {size} {{}}.' for size in _SIZES),
        *(f'There is a {size} {{}} in the scene.' for size in _SIZES),
    ),
    # OTSeg's, whose sentences are kept apart: six for PASCAL VOC, else eight.
    'otseg6': _OTSEG[:6],
    'otseg8': _OTSEG,
    # ZegFormer's: of all its VOC models, of its COCO-Stuff models, and of the crops.
    'zegformer': (_IN_SCENE,),
    'imagenet_select': (
        'itap of a {}.',
        'a bad photo of the {}.',
        'a origami {}.',
        'a photo of the large {}.',
        'a {} in a video game.',
        'art of the {}.',
        'a photo of the small {}.',
        _IN_SCENE,
    ),
    'zegformer_crops': (
        'a bad photo of the {}.',
        'a photo of the large {}.',
        'a photo of the small {}.',
        'a cropped photo of a {}.',
        *(
            f'This is a {kind}photo of a {size}{{}}'
            for kind in ('', 'masked ', 'cropped ')
            for size in ('', *(f'{size} ' for size in _SIZES))
        ),
        _IN_SCENE,
        'a bad photo of the {} in the scene',
        'a photo of the large {} in the scene',
        'a photo of the small {} in the scene',
        'a cropped photo of a {} in the scene',
        'a photo of a masked {} in the scene',
        *(
            f'{start} {masked}{{}} in the scene'
            for masked in ('', 'masked ')
            for start in (
                'There is a',
                'There is the',
                'This is a',
                'This is the',
                'This is one',
            )
        ),
    ),
}
_IMAGENET = 'imagenet'


def resolve_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Return the templates of a named set, or of an own list of texts with ``{}``."""
    if isinstance(templates, str):
        if templates == _IMAGENET:
            from open_clip import OPENAI_IMAGENET_TEMPLATES

            return tuple(fill(_SLOT) for fill in OPENAI_IMAGENET_TEMPLATES)
        if templates not in TEMPLATE_SETS:
            known = [*TEMPLATE_SETS, _IMAGENET]
            raise ValueError(
                f'templates={templates!r} is no set of templates.'
                f'{did_you_mean(templates, known)} Expected one of '
                f'{", ".join(map(repr, known))}, or a list of texts with {_SLOT!r}.'
            )
        return TEMPLATE_SETS[templates]
    chosen = tuple(templates)
    wrong = [text for text in chosen if not isinstance(text, str) or _SLOT not in text]
    if wrong or not chosen:
        raise ValueError(
            f'templates must be texts with {_SLOT!r} for the class name, got '
            f'{wrong or "none"}'
        )
    return chosen


def fill(template: str, name: str) -> str:
    """Put a name into a template. Braces in the name itself stay as they are."""
    return template.replace(_SLOT, name)


_ROWS = 'rows'


def cached_rows(
    key: str, shape: tuple[int, ...], compute: Callable[[], Tensor]
) -> Tensor:
    """Return float32 rows of a shape from the cache, or compute and keep them."""

    def complaint(tensors: dict[str, Tensor]) -> str | None:
        rows = tensors.get(_ROWS)
        fits = rows is not None and (tuple(rows.shape), rows.dtype) == (
            shape,
            torch.float32,
        )
        return None if fits else f'it does not hold {shape} float32 rows'

    folder = 'class_embeddings'
    return cached_tensors(folder, key, lambda: {_ROWS: compute()}, complaint)[_ROWS]


def _told(batches: Sequence[Tensor], num_texts: int) -> Iterable[Tensor]:
    """Yield batches of sentences; more than one are announced and get a bar."""
    if len(batches) == 1:
        return batches
    sentences = sum(map(len, batches))
    print_log(f'encoding {num_texts} names in {sentences} sentences', logger='current')
    console = Console(stderr=True)
    return track(
        batches,
        description='encoding names',
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)


# Part of the key of the disk cache: raised when rows are computed differently.
_RECIPE = 'clip_text 1'
_PROMPT_RECIPE = 'clip_text prompts 1'
_TOKEN_RECIPE = 'clip_text tokens 1'
_CUT_RECIPE = 'clip_text cut 1'


class ClipTextSource(EmbeddingSource):
    """Prompts through the text tower of an open_clip model.

    With ``normalize`` the embedding of each prompt is scaled to length 1, averaged over
    the templates, and scaled again; without, it is the plain average.
    """

    def __init__(
        self,
        arch: str | Mapping | Architecture,
        pretrained: str | Path | None = None,
        *,
        templates: str | Sequence[str] = 'single',
        reduce_templates: bool = True,
        batch_size: int = 256,
        cache: bool = True,
        trust: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f'batch_size must be at least 1, not {batch_size}')
        self.templates = resolve_templates(templates)
        self.reduce_templates = reduce_templates
        self.batch_size = batch_size
        self.cache = cache and pretrained is not None
        self.trust = trust
        self._arch = arch
        self._pretrained = pretrained
        self._tower_hash: str | None = None

    @property
    def architecture(self) -> Architecture:
        """The architecture, found when first needed."""
        self._arch = resolve_architecture(self._arch)
        return self._arch

    @property
    def dim(self) -> int:
        return self.architecture.embed_dim

    @property
    def prompts_per_row(self) -> int:
        return 1 if self.reduce_templates else len(self.templates)

    def rows(
        self, texts: Sequence[str], normalize: bool, device: torch.device | str | None
    ) -> Tensor:
        def encode(model: Any, tokens: Tensor) -> Tensor:
            return model.encode_text(tokens, normalize=normalize)

        def compute() -> Tensor:
            prompts = self._run(texts, encode, device)
            if not self.reduce_templates:
                return prompts
            rows = prompts.unflatten(0, (len(texts), -1)).mean(dim=1)
            return F.normalize(rows, dim=-1) if normalize else rows

        self._warn_of_unknown_words(texts)
        self._warn_of_cut_prompts(texts)
        shape = (len(texts) * self.prompts_per_row, self.dim)
        recipe = _RECIPE if self.reduce_templates else _PROMPT_RECIPE
        return self._cached(recipe, texts, shape, compute, str(normalize))

    def token_features(
        self, texts: Sequence[str], device: torch.device | str | None
    ) -> Tensor:
        if len(self.templates) > 1:
            raise ValueError(
                'class_embeddings.token_features=True gives the outputs of single '
                f'tokens, which cannot be averaged over {len(self.templates)} '
                "templates: use one, such as templates='bare'"
            )

        def encode(model: Any, tokens: Tensor) -> Tensor:
            return text_features(model, tokens)[1]

        text = self.architecture.config['text_cfg']
        shape = (len(texts), text.get('context_length', 77), text.get('width', 512))
        return self._cached(
            _TOKEN_RECIPE, texts, shape, lambda: self._run(texts, encode, device)
        )

    def provenance(self) -> dict[str, str]:
        return {
            'source': 'clip_text',
            'arch': _file_name(self.architecture.name),
            'pretrained': _file_name(self._pretrained or ''),
            'tower_hash': self._tower_hash or '',
            'templates': json.dumps(self.templates),
        }

    def _cached(
        self,
        recipe: str,
        texts: Sequence[str],
        shape: tuple[int, ...],
        compute: Callable[[], Tensor],
        *options: str,
    ) -> Tensor:
        """Return what ``compute`` makes of the texts, or the cache holds of it."""
        if not self.cache or self._pretrained is None:
            return compute()
        self._tower_hash = tower_hash(self.architecture, self._pretrained)
        parts = [recipe, self._tower_hash, *options, json.dumps(self.templates)]
        return cached_rows(content_hash(*parts, *texts), shape, compute)

    @torch.no_grad()
    def _run(
        self,
        texts: Sequence[str],
        encode: Callable[[Any, Tensor], Tensor],
        device: torch.device | str | None,
    ) -> Tensor:
        """Return what the tower makes of every prompt, template by template."""
        # A run draws the same whether its rows are in the cache or not.
        from_file = self._pretrained is not None
        with torch.random.fork_rng(devices=[], enabled=from_file):
            clip = load_clip(
                self.architecture, self._pretrained, trust=self.trust, need='text'
            )
        self._tower_hash = clip.content_hash
        tokens = self._tokens(clip, self._prompts(texts))
        target = torch.device('cpu' if device is None else device)
        model = clip.model.to(target)
        try:
            batches = [
                encode(model, batch.to(target)).float().cpu()
                for batch in _told(tokens.split(self.batch_size), len(texts))
            ]
        finally:
            model.to('cpu')
        return torch.cat(batches)

    def _tokens(self, clip: LoadedCLIP, prompts: list[str]) -> Tensor:
        """Return token ids ``(len(prompts), context length)``."""
        tokens = clip.tokenizer(prompts)
        vocabulary = int(clip.model.vocab_size)
        if int(tokens.max()) >= vocabulary:
            raise ValueError(
                f'the tokenizer of arch={clip.arch_name!r} gives ids up to '
                f'{int(tokens.max())}, but its text tower knows {vocabulary}: set '
                'text_cfg.tokenizer_kwargs.bpe_path to the merges it was trained with'
            )
        return tokens

    def _warn_of_cut_prompts(self, texts: Sequence[str]) -> None:
        flags = self._cached(
            _CUT_RECIPE, texts, (len(texts),), partial(self._cut, texts)
        )
        cut = [text for text, flag in zip(texts, flags.tolist(), strict=True) if flag]
        if cut:
            length = self.architecture.config['text_cfg'].get('context_length', 77)
            _warn(
                'names whose prompts are too long, and so cut to the '
                f'{length} tokens of the text tower: {as_list(cut)}'
            )

    def _cut(self, texts: Sequence[str]) -> Tensor:
        """Tell for each text whether any of its prompts is cut, ``(len(texts),)``."""
        tokenizer = build_tokenizer(self.architecture)
        prompts = self._prompts(texts)
        tokens = tokenizer(prompts)
        # The end that a cut row has been given moves if there is room for more.
        longer = tokenizer(prompts, tokens.shape[1] + 1)
        cut = (longer[:, :-1] != tokens).any(dim=1)
        return cut.unflatten(0, (len(texts), -1)).any(dim=1).float()

    def _prompts(self, texts: Sequence[str]) -> list[str]:
        return [fill(template, text) for text in texts for template in self.templates]

    def unknown_words(self, texts: Sequence[str]) -> list[str]:
        """Return words that the tower was never trained on, if it knows its own."""
        known = {word.lower() for word in self.architecture.known_words}
        if not known:
            return []
        words = [word for text in texts for word in re.findall(r'\w+', text.lower())]
        return [word for word in dict.fromkeys(words) if word not in known]

    def _warn_of_unknown_words(self, texts: Sequence[str]) -> None:
        unknown = self.unknown_words(texts)
        if unknown:
            _warn(
                f'{self.architecture.name} was never trained on these words, so expect '
                f'nothing of their classes: {as_list(unknown)}'
            )


def _file_name(name: str | Path) -> str:
    """Return a name or tag, or a file's name without the folders of this machine."""
    return Path(name).name
