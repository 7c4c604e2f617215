"""The bank: class names in, rows of class embeddings out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.registry import MODELS

from zs3_mmseg.models.towers import release_towers
from zs3_mmseg.utils.names import as_list, choose, duplicates, synonyms_of

from .clip_text import ClipTextSource
from .groupvit_text import GroupViTTextSource
from .queries import warn_of_equal_rows
from .sam3_text import SAM3TextSource
from .sources import (
    ConcatSource,
    EmbeddingSource,
    TensorSource,
    WordVectorSource,
)
from .tables import AttributeSource, Hierarchy
from .texts import resolve_texts


def display_name(name: str) -> str:
    """Return how a class is called in legends and tables: its first synonym."""
    return synonyms_of(name)[0]


def split_names(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Split class names into one text for each query.

    Args:
        names: one entry for each class.

    Returns:
        The ``Q`` texts, and the class of each, which is non-decreasing.

    Raises:
        ValueError: if there is no name, an empty name, or a name that occurs twice,
            in upper or lower case: text towers see no difference.
    """
    if isinstance(names, Mapping):
        raise ValueError(
            f'expected a list of class names, got a dict with {as_list([*names])}: '
            "list its names; synonyms are written as 'sofa|couch'"
        )
    if isinstance(names, str) or not isinstance(names, Collection) or not names:
        raise ValueError(f'expected a list of class names, got {names!r}')
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise ValueError(f'class names must be strings, got [{as_list(wrong)}]')
    texts: list[str] = []
    classes: list[int] = []
    for index, name in enumerate(names):
        synonyms = synonyms_of(name)
        texts += synonyms
        classes += [index] * len(synonyms)
    repeated = duplicates(text.casefold() for text in texts)
    if repeated:
        raise ValueError(
            'these class names or synonyms occur more than once: '
            + as_list(repeated, spelling=str)
        )
    return texts, classes


_SOURCES: dict[str, type[EmbeddingSource]] = {
    'attributes': AttributeSource,
    'clip_text': ClipTextSource,
    'groupvit_text': GroupViTTextSource,
    'sam3_text': SAM3TextSource,
    'tensor': TensorSource,
    'vectors': WordVectorSource,
}


#: Those that put names into sentences.
_PROMPTED = ('clip_text', 'groupvit_text')


def _built_source(kind: str, options: dict[str, Any]) -> EmbeddingSource:
    """Build a source, and those that it is made of."""
    try:
        if kind != 'concat':
            return _SOURCES[kind](**options)
        parts = []
        for part in options.pop('parts', ()):
            inner = dict(part)
            name = choose(
                'class_embeddings.source.parts', inner.pop('type', None), _SOURCES
            )
            parts.append(_built_source(name, inner))
        return ConcatSource(parts, **options)
    except (TypeError, ValueError) as error:
        if str(error).startswith('class_embeddings.'):
            raise
        raise ValueError(f'class_embeddings.source of {kind!r}: {error}') from error


@dataclass(frozen=True)
class ClassEmbeddings:
    """Embeddings of a vocabulary.

    Attributes:
        embeddings: ``(Q * P, D)`` float32 on the CPU; the ``P`` prompts of a query
            stand together, and so do the queries of a class with synonyms.
        query_to_class: ``(Q,)`` long, non-decreasing: the class of each query.
        names: the ``K`` class names as they were given.
        provenance: where the rows come from, in plain strings.
        token_features: ``(Q, L, W)`` float32 on the CPU, the text tower's output for
            each token of each query, not normalised; None if not asked for.
        prompts_per_row: ``P``, 1 unless templates are kept apart.
    """

    embeddings: Tensor
    query_to_class: Tensor
    names: tuple[str, ...]
    provenance: dict[str, str]
    token_features: Tensor | None = None
    prompts_per_row: int = 1


@MODELS.register_module()
class ClassEmbeddingBank:
    """Makes class embeddings from one source.

    This is no module: it holds no parameters, so nothing of a text tower reaches a
    checkpoint.

    Args:
        source: one of

            - ``dict(type='clip_text', arch=..., pretrained=..., batch_size=256)``:
              prompts through a text tower; cached on disk;
            - ``dict(type='groupvit_text', weights=...)``: prompts through the text
              tower of GroupViT, which belongs to its image tower alone;
            - ``dict(type='sam3_text', weights=...)``: names through the text encoder of
              SAM 3, which needs ``token_features=True``;
            - ``dict(type='tensor', path=..., names=None)``: a file with one row for
              each name;
            - ``dict(type='vectors', path=..., binary=None)``: word vectors;
            - ``dict(type='attributes', table=..., binarize=False)``: a CSV table with a
              line for each class, or one that comes with the package.
            - ``dict(type='concat', parts=[...], normalize_parts=False)``: rows of
              several of these side by side.
        templates: for ``clip_text`` only: ``'single'`` (its default), ``'zegclip'``,
            ``'imagenet'``, ``'otseg6'``, ``'otseg8'``, ``'zegformer'``,
            ``'imagenet_select'``, ``'zegformer_crops'``, ``'vild'``, ``'bare'``, or a
            list of texts with ``{}``.
        reduce_templates: average the templates of a name, as CLIP does. False keeps
            the ``P`` prompts of a name or synonym apart, for ``clip_text`` only: rows
            ``q * P`` to ``q * P + P - 1`` are those of query ``q``, in the order of
            ``templates``, each scaled by itself. The head must know what to do with
            them, see ``ClassQueries.prompts_per_row``.
        reduce_synonyms: give each class one row, the mean over all templates and
            synonyms at once, as ZegFormer does; with ``normalize=True`` of unit rows,
            and of length 1. False: one row for each synonym.
        normalize: scale rows to length 1 (see
            :class:`~.clip_text.ClipTextSource` for prompts). The published rows of
            ZegCLIP are used as they are, with False. ``'max_norm'`` divides all rows by
            the length of the longest one, as those of ZS3Net on PASCAL VOC are.
        token_features: give the outputs of all tokens as well, as ESDA and SAM 3 read
            them; for ``clip_text`` with one template, and for ``sam3_text``.
        texts: what to encode in place of some names, ``{name: text}``, or the name of a
            published table: ``'lseg_ade20k'``, ``'lseg_coco'``.
        hierarchy: a tree of names: a CSV file, a dict ``{name: parent}``, or a table
            that comes with the package. A name or synonym then has a row for each name
            on the path from the top down to it, the last one repeated where others
            have longer paths: ``prompts_per_row`` is the depth of the tree.
        kind_of: what is encoded for a name below another one, with ``{name}`` and
            ``{parent}``, e.g. ``'{name}, a kind of {parent}'``.

    Raises:
        ValueError: if options do not fit each other; the message names the key.
    """

    def __init__(
        self,
        source: Mapping,
        *,
        templates: str | Sequence[str] | None = None,
        reduce_templates: bool = True,
        reduce_synonyms: bool = False,
        normalize: bool | Literal['max_norm'] = True,
        token_features: bool = False,
        texts: str | Mapping[str, str] | None = None,
        hierarchy: str | Mapping[str, str | None] | None = None,
        kind_of: str = '{name}',
    ) -> None:
        self.hierarchy = None if hierarchy is None else Hierarchy(hierarchy)
        self.kind_of = kind_of
        if '{name}' not in kind_of or (hierarchy is None and kind_of != '{name}'):
            raise ValueError(
                f'class_embeddings.kind_of={kind_of!r} must hold {{name}}, and belongs '
                'to class_embeddings.hierarchy'
            )
        if hierarchy is not None and (token_features or not reduce_templates):
            other = (
                'token_features=True' if token_features else 'reduce_templates=False'
            )
            raise ValueError(
                'class_embeddings.hierarchy makes several rows of a name, and so does '
                f'{other}: choose one'
            )
        self.texts = resolve_texts(texts)
        choose('class_embeddings.normalize', normalize, (True, False, 'max_norm'))
        options = dict(source)
        kind = options.pop('type', None)
        choose('class_embeddings.source.type', kind, [*_SOURCES, 'concat'])
        apart = token_features or not reduce_templates or hierarchy is not None
        if reduce_synonyms and apart:
            raise ValueError(
                'class_embeddings.reduce_synonyms=True averages all prompts of a '
                'class: leave token_features, reduce_templates and hierarchy out'
            )
        if templates is not None or not reduce_templates:
            if kind not in _PROMPTED:
                raise ValueError(
                    'class_embeddings.templates belong to the sources '
                    f'{" and ".join(_PROMPTED)}, not to {kind!r}, and so does '
                    'reduce_templates=False'
                )
            if templates is not None:
                options['templates'] = templates
            options['reduce_templates'] = reduce_templates
        if reduce_synonyms and kind in _PROMPTED:
            options['reduce_templates'] = False  # they are averaged here
        self.source = _built_source(kind, options)
        self.normalize = normalize
        self.token_features = token_features
        self.reduce_synonyms = reduce_synonyms

    @property
    def dim(self) -> int:
        """Length ``D`` of a row; no row is computed for it."""
        return self.source.dim

    @property
    def prompts_per_row(self) -> int:
        """How many rows each query has: templates kept apart, or levels, else 1."""
        if self.hierarchy is not None:
            return self.hierarchy.depth
        return 1 if self.reduce_synonyms else self.source.prompts_per_row

    def unknown_words(self, names: Sequence[str]) -> list[str]:
        """Return words of names whose rows mean nothing, as far as the source knows."""
        return self.source.unknown_words(split_names(names)[0])

    def embed(
        self, names: Sequence[str], device: torch.device | str | None = None
    ) -> ClassEmbeddings:
        """Make the rows of a vocabulary.

        Args:
            names: one name for each class; ``'sofa|couch'`` is one class of two rows.
            device: where to compute, if there is much to compute; None: the CPU.

        Raises:
            ValueError: if a name is empty or occurs twice, or the source has no row for
                it; all such names are listed.
            FileNotFoundError: if a file of the source does not exist.
        """
        texts, classes = split_names(names)
        named = [self.texts.get(text, text) for text in texts]
        if self.hierarchy is None:
            texts = named
        else:
            texts = self._along_paths(texts, self.hierarchy)
        rows = self.source.rows(texts, self.normalize is True, device)
        token_features = None
        if self.token_features:
            token_features = self.source.token_features(texts, device)
        # The towers of a model are all built by now.
        release_towers()
        lengths = rows.norm(dim=1)
        prompts = self.source.prompts_per_row
        if self.hierarchy is not None:
            prompts = self.hierarchy.depth
        useless = [
            text
            for text, some in zip(named, lengths.split(prompts), strict=True)
            if not all(0 < length < float('inf') for length in some.tolist())
        ]
        if useless:
            raise ValueError(f'the rows of {as_list(useless)} are zero or not finite')
        owners = torch.tensor(classes)
        if self.reduce_synonyms:
            of_class = owners.repeat_interleave(prompts)
            rows = torch.stack(
                [rows[of_class == index].mean(dim=0) for index in range(len(names))]
            )
            rows = F.normalize(rows, dim=-1) if self.normalize is True else rows
            owners, prompts, lengths = torch.arange(len(names)), 1, rows.norm(dim=1)
        if self.normalize == 'max_norm':
            rows = rows / lengths.max()
        provenance = self.source.provenance() | {'normalize': str(self.normalize)}
        if self.texts:
            pairs = sorted(self.texts.items())
            provenance['texts'] = ', '.join(f'{name}: {text}' for name, text in pairs)
        if self.reduce_synonyms:
            provenance['reduce_synonyms'] = 'True'
        if prompts > 1:
            provenance['prompts_per_row'] = str(prompts)
        if self.hierarchy is not None:
            provenance['hierarchy'] = self.hierarchy.fingerprint
            provenance['kind_of'] = self.kind_of
        return ClassEmbeddings(
            embeddings=rows,
            query_to_class=owners,
            names=tuple(names),
            provenance=provenance,
            token_features=token_features,
            prompts_per_row=prompts,
        )

    def _along_paths(self, names: Sequence[str], tree: Hierarchy) -> list[str]:
        """Return for each name the ``depth`` texts from the top of the tree to it."""
        found = []
        for below in names:
            path = [self.texts.get(name, name) for name in tree.path(below)]
            levels = [path[0]] + [
                self.kind_of.format(name=name, parent=parent)
                for parent, name in pairwise(path)
            ]
            found += levels + [levels[-1]] * (tree.depth - len(levels))
        return found


def class_vectors(
    bank: Mapping[str, Any] | ClassEmbeddingBank,
    names: Sequence[str],
    aliases: Mapping[str, str] | None = None,
) -> Tensor:
    """Return a row for each class, ``(K, E)`` on the CPU; synonyms are averaged.

    ``aliases`` says what to look up in place of a class name: ``tvmonitor='tv'``.
    """
    aliases = dict(aliases or {})
    strangers = [name for name in aliases if name not in names]
    if strangers:
        raise ValueError(
            f'vector_names has entries for {", ".join(strangers)}, which are no '
            f'classes of the training data set: {", ".join(names)}'
        )
    built = (
        MODELS.build({'type': 'ClassEmbeddingBank', **bank})
        if isinstance(bank, Mapping)
        else bank
    )
    found = built.embed([aliases.get(name, name) for name in names])
    sums = torch.zeros(len(names), found.embeddings.shape[1])
    sums.index_add_(0, found.query_to_class, found.embeddings)
    vectors = sums / torch.bincount(found.query_to_class)[:, None]
    warn_of_equal_rows(vectors, range(len(names)), names)
    return vectors
