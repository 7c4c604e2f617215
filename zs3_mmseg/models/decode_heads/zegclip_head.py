"""The decode head of ZegCLIP (CVPR 2023, arXiv 2212.03588)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS
from mmseg.utils import ConfigType, SampleList, add_prefix

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.losses import Divisor, TrustLoss
from zs3_mmseg.models.losses.class_masks import masks_divisor
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.names import choose

from .relation_decoder import Decoded, Layout, MaskDecoder, RecoveryDecoder
from .sinkhorn import PromptTransport, transported
from .zero_shot_head import (
    GatedLogits,
    ScoreKind,
    ZeroShotHead,
    pixel_accuracy,
    reduce_queries,
)

DESCRIPTOR_TERMS = ('product', 'text', 'difference', 'image')


def descriptor(terms: tuple[str, ...], text: Tensor, image: Tensor) -> Tensor:
    """Relationship descriptor of class texts and an image (paper, section 3.4).

    The terms ``'product'`` (elementwise ``T * z``), ``'text'`` (``T``),
    ``'difference'`` (``|T - z|``) and ``'image'`` (``z``) of rows ``T (Q, E)`` and
    global embeddings ``z (N, E)``, concatenated in the order given:
    ``(N, Q, len(terms) * E)``. Published: ``('product', 'text')``.
    """
    # Of shape, not len: a graph of torch.export takes that for a constant.
    rows = text.unsqueeze(0).expand(image.shape[0], -1, -1)
    whole = image.unsqueeze(1).expand(-1, text.shape[0], -1)
    parts = {'text': rows, 'image': whole}
    if 'product' in terms:
        parts['product'] = rows * whole
    if 'difference' in terms:
        parts['difference'] = (rows - whole).abs()
    return torch.cat([parts[term] for term in terms], dim=-1)


def _mask_loss(config: ConfigType) -> nn.Module:
    """Build a loss over class masks; mmseg's, called in another way, are refused."""
    loss = None if isinstance(config, Sequence) else MODELS.build(config)
    wanted = {'ignore_index', 'align_corners'}
    if loss is None or not wanted <= signature(loss.forward).parameters.keys():
        raise ValueError(
            f'loss_decode={config} is no loss over class masks, which resizes logits '
            "to labels itself: expected dict(type='NonExclusiveLoss'), or None for "
            'softmax cross-entropy'
        )
    return loss


class ScorePath(PromptTransport):
    """The transport of a score path, and its share ``mix`` of the result."""

    def __init__(self, *, mix: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        if not 0 <= mix <= 1:
            raise ValueError(f'score_path.mix={mix} must be in 0..1')
        self.mix = mix


def _score_path(config: str | Mapping[str, Any]) -> ScorePath:
    options = dict(type=config) if isinstance(config, str) else {**config}
    choose('score_path', options.pop('type', None), ('sinkhorn',))
    return ScorePath(**options)


#: Which groups of maps share the map from descriptors to queries.
PROJECTIONS = ('each', 'one')


class TapGroup(nn.Module):
    """A relation decoder over maps that are summed with learnt weights (Cascade-CLIP).

    ``memory = sum_k w_k tap_k``, where ``w`` starts as ``exp(-x^2 / 2)`` for the
    distance ``x`` to the last of the group: (0.135, 0.607, 1) for three. A single map
    is taken as it is.
    """

    def __init__(
        self, taps: Sequence[int], decoder: MaskDecoder, q_proj: nn.Linear | None
    ) -> None:
        super().__init__()
        if not taps:
            raise ValueError('each of tap_groups must name one map or more')
        self.taps = tuple(taps)
        self.decoder = decoder
        self.q_proj = q_proj
        self.weights: nn.Parameter | None = None
        if len(self.taps) > 1:
            distance = torch.arange(len(self.taps) - 1, -1, -1.0)
            self.weights = nn.Parameter((-(distance**2) / 2).exp())

    def summed(self, maps: Sequence[Tensor], channels: int) -> Tensor:
        """Return the weighted sum of this group's maps ``(N, E, h, w)``."""
        for tap in self.taps:
            if not -len(maps) <= tap < len(maps) or maps[tap].shape[1] != channels:
                widths = ', '.join(str(one.shape[1]) for one in maps)
                raise ConfigError(
                    f'model.decode_head.tap_groups reads map {tap} with {channels} '
                    f'channels, and the backbone gives maps of {widths}: set '
                    'model.backbone.out_indices and tap_projection'
                )
        if self.weights is None:
            return maps[self.taps[0]]
        taps = torch.stack([maps[tap] for tap in self.taps], dim=-1)
        return taps @ self.weights.to(taps.dtype)


#: What queries may be modulated by.
QUERY_CONTEXTS = ('image', 'groups')
#: What a memory may be made of.
MEMORY_PARTS = ('group', 'image', 'patch')


def _check_parts(memory: tuple[str, ...]) -> None:
    for part in memory:
        choose('each part of memory', part, MEMORY_PARTS)
    if 'patch' not in memory or len(set(memory)) != len(memory):
        raise ConfigError(
            f"memory={memory} must name different parts, 'patch' among them"
        )


class Relation(NamedTuple):
    """What a head made of an image and queries.

    Attributes:
        masks: of every layer, ``(N, Q, h, w)``, with the trusty query last.
        score: those of the score path, if there is one.
        described: descriptors of all rows, ``(N, Q * P, terms * E)``.
        decoded: what came out of the decoder.
        layout: of queries and patches there.
    """

    masks: list[Tensor]
    score: Tensor | None
    described: Tensor
    decoded: Decoded
    layout: Layout


class TrainingMasks(list[Tensor]):
    """Masks that get a loss, ``(N, K, h, w)`` each, and the rest.

    ``trust`` is the map ``(N, 1, h, w)`` of the trusty query, and ``recovered`` pairs
    of what was brought back and what it should be, by the name of their loss.
    """

    def __init__(
        self,
        masks: Iterable[Tensor],
        trust: Tensor | None = None,
        recovered: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        super().__init__(masks)
        self.trust = trust
        self.recovered = recovered or {}


@MODELS.register_module()
class ZegCLIPHead(ZeroShotHead):
    """Class queries made from text and image find their patches (arXiv 2212.03588).

    Each row of text ``T (E,)`` is joined with the image's global token ``z (E,)`` into
    a relationship descriptor, mapped to a query, and matched with the patches ``H (hw,
    E)`` by a decoder of cross-attention alone; the pre-softmax attention of its last
    layer is the mask (sections 3.2 to 3.4)::

        q = W_d [T * z, T]
        mask = mean over heads of (W_q q) (W_k H)^T / sqrt(E / heads)

    where the layers before the last have refined ``q``. Scores are ``sigmoid(mask)``.
    The masks of several rows of a name (``reduce_templates=False``) are averaged.
    Patches and global token are expected normalised
    (``OpenCLIPViT(normalize=True, out_global=True)``), rows as they come.

    Options make the heads that came after it, and any mixture of them:

    - CLIP-RC (CVPR 2024): group tokens ``rho (R, E)`` of the tower take part. Each
      class has a query for each of them, from ``rho + z`` in place of ``z``
      (``query_context='groups'``), whose masks are averaged; patches are joined with
      their group and the image before the decoder (``memory=('group', 'image',
      'patch')``), in which they attend to queries, too (``two_way``); masks are
      products of what comes out (``mask_from='dot'``), from which what went in must be
      recovered: ``recovery`` adds ``w mean|q' - [..]|`` and ``w mean|h' - H|``.
    - TagCLIP (arXiv 2304.07547): ``extra_query='trust'`` is a query without a class,
      made of a learnt row, whose map :class:`TrustLoss` teaches where unseen pixels
      are, and :class:`TrustGate` weighs scores by; ``self_attn_layers=(0,)``.
    - SPT-SEG (arXiv 2312.12754): ``attention='hilo'``.

    With ``two_way`` or ``self_attn_layers`` the scores of a class depend on the other
    classes that are asked for.

    Args:
        in_channels: channels ``E`` of patches, global token and rows.
        descriptor: what the queries are made of, see
            :func:`~zs3_mmseg.models.decode_heads.zegclip_head.descriptor`. The paper's
            ablation also uses ``('text',)``, ``('product',)`` and ``('difference',)``
            and their combinations.
        num_layers: decoder layers.
        num_heads: attention heads.
        ffn_dim: hidden width of the decoder's feed-forward part, 4 E if None.
        dropout: of the decoder.
        identical_layers: start the decoder's layers as copies of each other, as the
            official code does.
        attention: how the decoder's queries look at patches: ``'softmax'``, or
            ``'sinkhorn'`` as in OTSeg, which takes the rows of a class together and has
            one head; ``'hilo'`` as in SPT-SEG; or a dict with ``type`` and the options
            of :class:`~zs3_mmseg.models.decode_heads.sinkhorn.PromptTransport` or
            :class:`~zs3_mmseg.models.decode_heads.relation_decoder.HiLoFilter`.
        mask_from: what the masks are made of: ``'attention'``, the map before the
            softmax, or with ``attention='sinkhorn'`` the ``'plan'``,
            ``hw P sum_p plan_p cos_p`` over the ``P`` rows of a class, or the ``'dot'``
            product of queries and patches after all layers.
        two_way: patches attend to queries, too.
        self_attn_layers: layers in which queries attend to each other first.
        merge_layers: the result is the ``'last'`` layer's masks, or with ``'gate'``
            these times the geometric mean of the others' sigmoids, as in OTSeg.
        score_path: masks of the queries themselves beside those of the decoder:
            ``'sinkhorn'``, as in OTSeg: ``hw P sum_p plan_p cos_p`` of queries and
            patches; or a dict with ``type``, ``mix`` and the options of
            ``PromptTransport``. They get a loss of their own, and the result, for
            pseudo-labels as well, is ``mix`` (0.5) of them and the rest of the
            decoder's. None: no such path.
        tap_groups: maps, by their places in what the backbone returns, that have
            decoders of their own, as in Cascade-CLIP: the maps of a group are summed
            with learnt weights, which start as ``exp(-x^2 / 2)`` of the distance ``x``
            to the last of them, and the masks of all groups are added to those of the
            map at ``in_index``. Published: ``((0, 1, 2), (3, 4, 5))`` with
            ``OpenCLIPViT(out_indices=(5, ..., 10, -1), tap_projection=...)``.
        query_projections: the groups have ``'each'`` a ``W_d`` of their own, as
            published, or ``'one'`` for all.
        query_context: what modulates the rows of text, the ``'image'`` or ``'groups'``.
        memory: what patches are joined with for the decoder, by a linear map:
            ``'group'`` tokens, laid out as a square and resized to the grid, the
            ``'image'``'s global token and the ``'patch'`` itself.
        recovery: ``dict(num_layers=1, loss_weight=2.0)`` of a decoder that brings
            descriptors and patches back, with ``mask_from='dot'``; None: none.
        extra_query: ``'trust'`` or None.
        trust_weight: of its loss, 10 if left out.
        xavier_start: draw all weights of the head as TagCLIP does, Xavier-uniform.
        project_patches: a linear map and a norm on the patches, ``use_proj`` of the
            official code, which no published config sets.
        loss_decode: a loss over class masks, called as :class:`NonExclusiveLoss` is;
            None: softmax cross-entropy, the paper's ablation, which makes the scores a
            softmax, too.
        deep_supervision: add the losses of the earlier layers' masks.
        cosine_start: start as this many times the cosine of class row and patch, which
            is dense CLIP, instead of masks that are almost flat; not in the official
            code. Of several groups it is that of the map at ``in_index``, to which the
            others add little at first. None: as published.
        mask_scale: what a learnt factor on all masks starts as; not in the official
            code. For masks of transport plans, which are no larger than ``P``. None: no
            such factor.
        mask_bias: what a learnt number that is added to all masks starts as; not in
            the official code. With a cosine start the sigmoids of absent classes begin
            near 1, too; below 0 it makes absence the rule, as arXiv 1708.02002 (section
            4.1) advises for the focal loss. None: no such number.
        **kwargs: see :class:`ZeroShotHead`.

    Raises:
        ValueError: for unknown or no descriptor terms, a ``cosine_start`` that is not
            positive or that the other options rule out, a ``mask_bias`` without
            sigmoids to shift, or a ``loss_decode`` that is not called as said above.
    """

    score_kind: ScoreKind = 'sigmoid'

    def __init__(
        self,
        in_channels: int,
        *,
        descriptor: Sequence[str] = ('product', 'text'),
        num_layers: int = 3,
        num_heads: int = 8,
        ffn_dim: int | None = None,
        dropout: float = 0.1,
        identical_layers: bool = True,
        attention: str | Mapping[str, Any] = 'softmax',
        mask_from: str = 'attention',
        merge_layers: str = 'last',
        score_path: str | Mapping[str, Any] | None = None,
        tap_groups: Sequence[Sequence[int]] = (),
        query_projections: str = 'each',
        two_way: bool = False,
        self_attn_layers: Sequence[int] = (),
        query_context: str = 'image',
        memory: Sequence[str] = ('patch',),
        recovery: Mapping[str, Any] | None = None,
        extra_query: str | None = None,
        trust_weight: float | None = None,
        xavier_start: bool = False,
        project_patches: bool = False,
        loss_decode: ConfigType | None = dict(type='NonExclusiveLoss'),  # noqa: B006
        deep_supervision: bool = False,
        cosine_start: float | None = None,
        mask_scale: float | None = None,
        mask_bias: float | None = None,
        **kwargs: Any,
    ) -> None:
        if loss_decode is None:
            # Before the base looks at it: query_reduce='sum' needs a softmax.
            self.score_kind = 'softmax'
        super().__init__(in_channels, **kwargs)
        self.terms = tuple(descriptor)
        for term in self.terms:
            choose('each term of descriptor', term, DESCRIPTOR_TERMS)
        if not self.terms or len(set(self.terms)) != len(self.terms):
            raise ValueError(f'descriptor={self.terms} must name different terms')
        self.query_context = choose('query_context', query_context, QUERY_CONTEXTS)
        if query_context == 'groups' and self.terms == ('text',):
            raise ConfigError(
                "query_context='groups' has nothing to modulate with descriptor="
                "('text',): leave it out, or add 'product' to descriptor"
            )
        self.memory_parts = tuple(memory)
        _check_parts(self.memory_parts)
        self.needs_global_token = (
            self.terms != ('text',) or 'image' in self.memory_parts
        )
        self.needs_groups = query_context == 'groups' or 'group' in self.memory_parts
        self.deep_supervision = deep_supervision
        self.num_layers = num_layers
        self.mask_loss: Any = None if loss_decode is None else _mask_loss(loss_decode)
        descriptor_dim = len(self.terms) * in_channels
        self.q_proj = nn.Linear(descriptor_dim, in_channels)
        options: dict[str, Any] = dict(
            num_layers=num_layers,
            num_heads=num_heads,
            ffn_dim=ffn_dim,
            dropout=dropout,
            identical_layers=identical_layers,
            attention=attention,
            mask_from=mask_from,
            merge_layers=merge_layers,
            two_way=two_way,
            self_attn_layers=self_attn_layers,
        )
        self.decoder = MaskDecoder(in_channels, **options)
        own = choose('query_projections', query_projections, PROJECTIONS) == 'each'
        self.tap_groups = nn.ModuleList(
            TapGroup(
                taps,
                MaskDecoder(in_channels, **options),
                nn.Linear(descriptor_dim, in_channels) if own else None,
            )
            for taps in tap_groups
        )
        self.score_path = None if score_path is None else _score_path(score_path)
        if self.memory_parts != ('patch',):
            joined = len(self.memory_parts) * in_channels
            self.memory_proj = nn.Linear(joined, in_channels)
        self.recovery: RecoveryDecoder | None = None
        if recovery is not None:
            if mask_from != 'dot':
                raise ConfigError(
                    f'recovery={dict(recovery)} starts from queries and patches after '
                    "the decoder, of which masks are made with mask_from='dot' only: "
                    'set decode_head.mask_from, or recovery=None'
                )
            how = {**recovery}
            self.recovery_weight = how.pop('loss_weight', 2.0)
            self.recovery = RecoveryDecoder(
                in_channels,
                len(self.terms) * in_channels,
                num_heads=num_heads,
                ffn_dim=ffn_dim,
                dropout=dropout,
                **how,
            )
        self.gives_gate = self.needs_unseen_pixels = extra_query is not None
        if choose('extra_query', extra_query, ('trust', None)) is None:
            if trust_weight is not None:
                raise ConfigError(
                    f'trust_weight={trust_weight} weighs the loss of a query that is '
                    "not there: set decode_head.extra_query='trust'"
                )
        else:
            self.trust_token = nn.Parameter(torch.empty(1, in_channels))
            nn.init.xavier_uniform_(self.trust_token)
            weight = 10.0 if trust_weight is None else trust_weight
            self.trust_loss = TrustLoss(loss_weight=weight)
        if project_patches:
            self.input_proj = nn.Linear(in_channels, in_channels)
            self.proj_norm = nn.LayerNorm(in_channels)
        self.project_patches = project_patches
        if xavier_start:
            if cosine_start is not None or identical_layers:
                raise ConfigError(
                    'xavier_start draws all weights, each layer by itself: set '
                    'decode_head.cosine_start=None and identical_layers=False'
                )
            for weights in self.parameters():
                if weights.ndim > 1:
                    nn.init.xavier_uniform_(weights)
        if cosine_start is not None:
            self._start_as_cosine(cosine_start)
        self.mask_scale: nn.Parameter | None = None
        if mask_scale is not None:
            self.mask_scale = nn.Parameter(torch.full((1,), float(mask_scale)))
        self.mask_bias: nn.Parameter | None = None
        if mask_bias is not None:
            if self.mask_loss is None:
                raise ValueError(
                    f'mask_bias={mask_bias} shifts sigmoids, and a softmax over '
                    'classes (loss_decode=None) is the same with and without: set it '
                    'to None'
                )
            self.mask_bias = nn.Parameter(torch.full((1,), float(mask_bias)))

    @torch.no_grad()
    def _start_as_cosine(self, scale: float) -> None:
        if scale <= 0:
            raise ValueError(f'cosine_start={scale} must be above 0')
        if 'text' not in self.terms or self.project_patches:
            raise ValueError(
                f'cosine_start={scale} compares patches with text rows as they are: it '
                "needs 'text' in descriptor, got "
                f'{self.terms}, and project_patches=False'
            )
        dim = self.q_proj.out_features
        begin = self.terms.index('text') * dim
        nn.init.zeros_(self.q_proj.weight)
        nn.init.zeros_(self.q_proj.bias)
        self.q_proj.weight[:, begin : begin + dim] = torch.eye(dim)
        if self.memory_parts != ('patch',):
            begin = self.memory_parts.index('patch') * dim
            nn.init.zeros_(self.memory_proj.weight)
            nn.init.zeros_(self.memory_proj.bias)
            self.memory_proj.weight[:, begin : begin + dim] = torch.eye(dim)
        self.decoder.start_as_cosine(scale)

    def query_logits(
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        group_tokens: Tensor | None = None,
    ) -> Tensor | GatedLogits:
        """Return the resulting mask logits ``(N, Q, h, w)``."""
        found = self._relate(inputs, queries, global_token, group_tokens)
        mask = self._mixed(found.masks[-1], found.score)
        return GatedLogits(mask[:, :-1], mask[:, -1:]) if self.gives_gate else mask

    def training_outputs(  # type: ignore[override]  # wants nothing else
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        group_tokens: Tensor | None = None,
    ) -> TrainingMasks:
        """Return the masks that get a loss, ``(N, K, h, w)`` each.

        The decoder's result is the last of them. The score path's stand first, if there
        is one, and earlier layers between them with deep supervision.
        """
        found = self._relate(inputs, queries, global_token, group_tokens)
        masks = found.masks if self.deep_supervision else found.masks[-1:]
        masks = ([] if found.score is None else [found.score]) + masks
        trust = None
        if self.gives_gate:
            trust = self._mixed(masks[-1], found.score)[:, -1:]
            masks = [mask[:, :-1] for mask in masks]
        recovered = {}
        if self.recovery is not None:
            query, patches = self.recovery(
                found.decoded.query, found.decoded.memory, found.layout
            )
            wanted = self._transform_inputs(inputs).flatten(2).transpose(1, 2)
            recovered = {
                'loss_recovery_query': (query, found.described.detach()),
                'loss_recovery_patch': (patches, wanted.detach()),
            }
        reduced = [
            reduce_queries(mask, queries.queries_per_class, self.query_reduce)
            for mask in masks
        ]
        return TrainingMasks(reduced, trust, recovered)

    def class_logits(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return the result: the last layer's masks, or the mixture with scores."""
        return self._mixed(outputs[-1], outputs[0])

    def _mixed(self, masks: Tensor, score: Tensor | None) -> Tensor:
        """Mix the masks of decoder and score path, if there is one."""
        if self.score_path is None or score is None:
            return masks
        return self.score_path.mix * score + (1 - self.score_path.mix) * masks

    def loss_by_feat(
        self,
        outputs: Sequence[Tensor],
        batch_data_samples: SampleList,
        unseen_pixels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the losses of every mask, and ``acc_seg`` of the result.

        Args:
            outputs: what :meth:`training_outputs` returned.
            batch_data_samples: samples with ``gt_sem_seg`` ``(1, H, W)``.
            unseen_pixels: ``(N, H, W)`` bool, where unseen classes are, for the trusty
                query.

        Returns:
            the losses of the decoder's result under their names, those of earlier
            layers with ``d0.``, ``d1.``, ... before them, and those of the score path
            and its accuracy with ``score.``.
        """
        made = outputs
        losses = self._mask_losses(outputs[-1], batch_data_samples)
        if self.score_path is not None:
            score, *outputs = outputs
            extra = self._mask_losses(score, batch_data_samples)
            losses |= {f'score.{name}': value for name, value in extra.items()}
        for index, mask in enumerate(outputs[:-1]):
            extra = self._mask_losses(mask, batch_data_samples)
            losses |= {
                f'd{index}.{name}': value
                for name, value in extra.items()
                if name.startswith('loss')
            }
        if isinstance(made, TrainingMasks):
            for name, (found, wanted) in made.recovered.items():
                losses[name] = self.recovery_weight * F.l1_loss(found, wanted)
            if made.trust is not None and unseen_pixels is not None:
                losses['loss_trust'] = self.trust_loss(
                    made.trust,
                    unseen_pixels,
                    self._stack_batch_gt(batch_data_samples).squeeze(1),
                    num_classes=made[-1].shape[1],
                    **self._label_options,
                )
        return losses

    def loss_divisors(self, batch_data_samples: SampleList) -> dict[str, Divisor]:
        """Return what each loss is divided by; those of all masks by the same.

        Raises:
            ConfigError: if ``loss_decode`` does not say it.
        """
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        of_mask = super().loss_divisors(batch_data_samples)
        if self.mask_loss is not None:
            if not hasattr(self.mask_loss, 'divisors'):
                raise ConfigError(
                    f'model.decode_head.loss_decode: {type(self.mask_loss).__name__} '
                    'does not say what it is divided by (divisors). Set train_cfg.'
                    "normalise_by='batch'"
                )
            del of_mask['loss_ce']
            of_mask |= self.mask_loss.divisors(labels, self.ignore_index)
        found = dict(of_mask)
        for prefix in ('score', *(f'd{index}' for index in range(self.num_layers))):
            found |= add_prefix(of_mask, prefix)
        if self.recovery is not None:
            images = torch.tensor(len(labels), device=labels.device)
            for name in ('query', 'patch'):
                found[f'loss_recovery_{name}'] = Divisor(images)
        if self.gives_gate:
            found['loss_trust'] = masks_divisor(labels, self.ignore_index)
        return found

    def _mask_losses(
        self, mask: Tensor, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Return the losses and ``acc_seg`` of one layer's mask ``(N, K, h, w)``."""
        if self.mask_loss is None:
            return super().loss_by_feat(mask, batch_data_samples)
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        losses = self.mask_loss(mask, labels, **self._label_options)
        losses['acc_seg'] = pixel_accuracy(mask, labels, **self._label_options)
        return losses

    def _relate(
        self,
        inputs: Sequence[Tensor],
        queries: ClassQueries,
        image: Tensor | None,
        groups: Tensor | None,
    ) -> Relation:
        """Return the masks of every layer and of the score path, and their parts."""
        patches = self._transform_inputs(inputs)
        if self.needs_groups and groups is None:
            raise ConfigError(
                'ZegCLIPHead reads group tokens (query_context, memory), which the '
                'backbone does not give: set model.backbone.extra_tokens=dict(type='
                "'RegionTokens') of an 'OpenCLIPViT'"
            )
        described = self._described(patches, queries, image, groups)
        rows = queries.prompts_per_row
        if self.query_context == 'groups' and groups is not None:
            rows *= groups.shape[1]
        layout = Layout(patches.shape[-2:], rows)
        query, memory = self.q_proj(described), self._memory(patches, image, groups)
        decoded = self.decoder(query, memory, layout)
        parts = [decoded.masks]
        for group in self.tap_groups:
            assert isinstance(group, TapGroup)  # a ModuleList does not know
            tapped = group.summed(inputs, self.in_channels)
            own = query if group.q_proj is None else group.q_proj(described)
            tapped = self._memory(tapped, image, groups)
            parts.append(group.decoder(own, tapped, layout).masks)
        # Layer by layer, over all groups.
        masks: list[Tensor] = [
            sum(layer[1:], layer[0]) for layer in zip(*parts, strict=True)
        ]
        if self.score_path is not None:
            plan, cosines = self.score_path(query, memory, layout.rows)
            masks.append(transported(plan, cosines).to(query.dtype))
        if self.mask_scale is not None:
            masks = [mask * self.mask_scale for mask in masks]
        if self.mask_bias is not None:
            masks = [mask + self.mask_bias for mask in masks]
        masks = [mask.unflatten(-1, layout.grid) for mask in masks]
        score = None if self.score_path is None else masks.pop()
        return Relation(masks, score, described, decoded, layout)

    def _memory(
        self, patches: Tensor, image: Tensor | None, groups: Tensor | None
    ) -> Tensor:
        """Return what queries look at: ``(N, E, h, w) -> (N, hw, E)``."""
        maps = {'patch': patches}
        if 'image' in self.memory_parts and image is not None:
            maps['image'] = image[:, :, None, None].expand_as(patches)
        if 'group' in self.memory_parts and groups is not None:
            side = math.isqrt(groups.shape[1])
            if side**2 != groups.shape[1]:
                raise ConfigError(
                    f"'group' in decode_head.memory lays {groups.shape[1]} group "
                    'tokens out as a square: set a square number of '
                    'backbone.extra_tokens'
                )
            maps['group'] = F.interpolate(
                groups.transpose(1, 2).unflatten(2, (side, side)),
                size=patches.shape[-2:],
                mode='bilinear',
                align_corners=False,
            )
        joined = torch.cat([maps[part] for part in self.memory_parts], dim=1)
        memory = joined.flatten(2).transpose(1, 2)
        if self.memory_parts != ('patch',):
            memory = self.memory_proj(memory)
        if self.project_patches:
            memory = self.proj_norm(self.input_proj(memory))
        return memory

    def _described(
        self,
        patches: Tensor,
        queries: ClassQueries,
        image: Tensor | None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """Return the descriptors of all rows ``(N, Q * P, len(terms) * E)``.

        With ``query_context='groups'`` each row becomes one for each of ``R`` groups,
        side by side, and with an extra query its rows come last.
        """
        if image is None:
            if self.needs_global_token:
                raise ConfigError(
                    'ZegCLIPHead needs the global token of the image: set '
                    "model.backbone.out_global=True, or descriptor=('text',)"
                )
            image = patches.new_zeros(patches.shape[0], 1)  # only its length is read
        rows = queries.embeddings.to(patches.dtype)
        if rows.shape[1] != self.in_channels:
            raise ConfigError(
                f'class embeddings have {rows.shape[1]} values and model.decode_head.'
                f'in_channels is {self.in_channels}: ZegCLIPHead needs patches and '
                'class_embeddings of one CLIP'
            )
        if self.gives_gate:
            extra = self.trust_token.expand(queries.prompts_per_row, -1)
            rows = torch.cat([rows, extra.to(rows.dtype)])
        if self.query_context == 'image' or groups is None:
            return descriptor(self.terms, rows, image)
        parts = (groups + image.unsqueeze(1)).flatten(0, 1)  # (N * R, E)
        described = descriptor(self.terms, rows, parts)
        by_image = described.unflatten(0, groups.shape[:2])  # (N, R, Q * P, terms * E)
        return by_image.transpose(1, 2).flatten(1, 2)
