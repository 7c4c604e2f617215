"""SpecFuse: frozen CLIP, a boundary branch, eigensegments and a residual MLP.

The method that a project report by Kumar et al. proposed, "visual encoder and shape
delineator, SVD, CLIP, MLP", and that was not built. The report draws boxes; what is in
them was decided here, and no published number exists.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.models.losses import BoundaryLoss
from mmseg.registry import MODELS
from mmseg.utils import SampleList

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.eigen_segments import (
    laplacian_vectors,
    soft_clusters,
    svd_vectors,
)
from zs3_mmseg.models.losses import pixel_cross_entropy
from zs3_mmseg.utils.names import choose

from .text_heads import cosine_maps
from .zero_shot_head import (
    ZeroShotHead,
    pixel_accuracy,
    reduce_queries,
    single_rows,
)

if TYPE_CHECKING:
    from zs3_mmseg.models.segmentors.input_image import InputImage

#: Patches whose feature is longer than the mean by so many deviations stand for no
#: place of the image.
_OUTLIER = 4.0
#: Share of nearness in the affinity, so that no patch is on its own, and its reach in
#: patches.
_NEARNESS, _REACH = 0.05, 1.5
_TINY = 1e-6


def _start_at_zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class ShapeDelineator(nn.Module):
    """Edge logits from shallow maps of the encoder and the image itself.

    Each map goes through a 1x1 convolution and is resized to a quarter of the image;
    two 3x3 convolutions of stride 2 bring the image there. Of all of them together a
    3x3 convolution makes shape features, and a 1x1 convolution, which starts at zero,
    the edge logit.

    Args:
        in_channels: channels of each map.
        channels: width of every branch, and of the shape features.
        stem_channels: width of the image's branch.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int = 128, stem_channels: int = 64
    ) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem_channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(stem_channels, stem_channels, 3, stride=2, padding=1),
        )
        joined = channels * len(in_channels) + stem_channels
        self.fuse = nn.Sequential(nn.Conv2d(joined, channels, 3, padding=1), nn.ReLU())
        self.edge = nn.Conv2d(channels, 1, 1)
        _start_at_zero(self.edge)

    def forward(self, maps: Sequence[Tensor], pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return shape features ``(N, C, H/4, W/4)`` and edge logits ``(N, 1, ...)``.

        Args:
            maps: ``(N, C_i, h, w)`` each.
            pixels: ``(N, 3, H, W)``, 0..255.
        """
        image = self.stem(pixels / 127.5 - 1)
        size = image.shape[2:]
        parts = [image]
        for lateral, one in zip(self.laterals, maps, strict=True):
            parts.append(
                F.interpolate(
                    lateral(one), size=size, mode='bilinear', align_corners=False
                )
            )
        shape = self.fuse(F.relu(torch.cat(parts, dim=1)))
        return shape, self.edge(shape)


def edge_strength(edge_logits: Tensor) -> Tensor:
    """Return how sure an edge is, 0..1; 0 where it is as likely as not, or less."""
    return (2 * edge_logits.sigmoid() - 1).clamp(min=0)


def intervening_contours(strength: Tensor, radius: int = 5) -> Tensor:
    """Return the strongest edge between patches, ``(N, N)``, of ``(h, w)`` strengths.

    The largest of five points of the line from one patch to the other (the intervening
    contour of Leung and Malik 1998), for patches at most ``radius`` apart in both
    directions; 0 for others.
    """
    height, width = strength.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=strength.device),
        torch.arange(width, device=strength.device),
        indexing='ij',
    )
    y, x = y.flatten(), x.flatten()
    dy, dx = y[None] - y[:, None], x[None] - x[:, None]  # (N, N)
    first, second = ((dy.abs() <= radius) & (dx.abs() <= radius)).nonzero(as_tuple=True)
    steps = torch.linspace(0, 1, 5, device=strength.device)[:, None]
    rows = y[first] + steps * dy[first, second]  # (5, pairs)
    columns = x[first] + steps * dx[first, second]
    scale = strength.new_tensor([max(width - 1, 1), max(height - 1, 1)])
    places = 2 * torch.stack([columns, rows], dim=-1) / scale - 1
    found = F.grid_sample(
        strength[None, None], places[None], mode='bilinear', align_corners=True
    )[0, 0]
    contours = strength.new_zeros(height * width, height * width)
    contours[first, second] = found.amax(dim=0)
    return contours


@dataclass(frozen=True)
class SpecFuseOutputs:
    """What :class:`SpecFuseHead` computes of a batch, for its losses.

    Attributes:
        logits: ``(N, K, h, w)``.
        dense: CLIP's tokens ``(N, D, h, w)``.
        fused: the same after the MLP.
        affine: features of the affinity ``(N, C, h, w)``; None without segments.
        edge_logits: ``(N, 1, H/4, W/4)``; None without a delineator.
    """

    logits: Tensor
    dense: Tensor
    fused: Tensor
    affine: Tensor | None
    edge_logits: Tensor | None


@MODELS.register_module()
class SpecFuseHead(ZeroShotHead):
    r"""Dense CLIP, corrected by eigensegments that an edge detector helps to cut.

    With CLIP's dense tokens :math:`V`, text rows :math:`T` and ``scale`` :math:`s`:

    1. *Delineator*: edge logits :math:`e` of shallow maps and the image; strength
       :math:`b = \max(2\sigma(e) - 1, 0)`.
    2. *Affinity* of deep maps :math:`R`, each of length 1, averaged, their image mean
       taken away: :math:`a = R + B A R` with trained :math:`A` and :math:`B`, each of
       length 1. ``spectral='laplacian'``: :math:`W_{ij} = \max(a_i a_j, 0)^2
       (1 - \kappa c_{ij})` with the intervening contour :math:`c` of :math:`b`.
       ``'svd'``: the affinity :math:`(1 + a_i a_j) / 2` without an (N, N) matrix,
       :math:`a` being lengthened by :math:`\kappa b` times the place of the patch.
    3. *SVD*: the first ``num_vectors`` eigenvectors of the normalised Laplacian after
       the constant one, which are singular vectors of the affinity (2. in its second
       form is computed so); k-means makes ``num_segments`` soft segments :math:`P` of
       them, which depend on distances only and so on neither signs nor rotations.
    4. *MLP* in CLIP's space: with :math:`\bar z_i = \sum_m P_{im} z_m`, :math:`z_m` the
       mean of :math:`V` in segment :math:`m`, ``fusion='residual'`` is
       :math:`F = V + W_2\,\mathrm{gelu}(W_1 \mathrm{LN}[V, \bar z, shape, \max_m P,
       H(P), b])` and :math:`z = s\cos(F, T)`; ``'score'`` adds to :math:`s\cos(V, T)`
       an MLP of :math:`\cos(V, T), \cos(\bar z, T), \cos(g, T), b`, with the image's
       token :math:`g`, which all classes share, so that it can memorise no direction.
    5. *Vote*, in testing: :math:`p \leftarrow (1 - w) p + w \sum_m P_m \bar p_m`.

    What is trained starts at zero, so that an untrained head is the training-free one
    bit by bit. No gradient passes through 3. Losses: ``L = CE + w_edge BoundaryLoss +
    w_pair L_pair + w_anchor mean(1 - cos(F, V))``, the last over all patches, also
    those without labels; :math:`L_{pair}` is the binary cross-entropy of
    ``(1 + a_i a_j) / 2`` against "same class" for pairs of labelled patches, half of
    them of one class.

    Args:
        in_channels: channels of the maps in ``in_index``, the dense tokens last.
        edge_maps: which of the maps the delineator reads, by place in ``in_index``.
        structure_maps: which of them the affinity reads.
        delineator: options of :class:`ShapeDelineator`; None: box 1 is off.
        spectral: ``'laplacian'``, ``'svd'``, or None: boxes 2 and 3 are off.
        fusion: ``'residual'``, ``'score'``, or None: box 4 is off.
        vote: weight of box 5, 0..1; 0 is off.
        train_affinity: whether :math:`A, B` are there.
        channels: width of the MLP of ``'residual'``.
        affinity_channels: rank of :math:`B A`.
        num_vectors: eigenvectors.
        num_segments: segments.
        kappa: how much a certain edge cuts, 0..1.
        temperature: of the soft segments, in squared distances.
        scale: factor on the cosines.
        edge_weight: of the boundary loss.
        pair_weight: of the pair loss.
        anchor_weight: of the anchor loss.
        pairs: number of pairs per image.
        warmup_iters: for so many iterations only boundary and pair loss count.
        shuffle_segments: a control for experiments: patches swap their segments at
            random, in the same way every time.
        **kwargs: see :class:`ZeroShotHead`.

    Raises:
        ValueError: for options out of range, and for segments or votes that nothing
            reads or makes.
    """

    score_kind = 'softmax'
    needs_image = True

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        edge_maps: Sequence[int] = (0, 1),
        structure_maps: Sequence[int] = (2, 3),
        delineator: dict[str, Any] | None = None,
        spectral: str | None = 'laplacian',
        fusion: str | None = 'residual',
        vote: float = 0.5,
        train_affinity: bool = True,
        channels: int = 512,
        affinity_channels: int = 64,
        num_vectors: int = 8,
        num_segments: int = 12,
        kappa: float = 0.9,
        temperature: float = 0.1,
        scale: float = 100.0,
        edge_weight: float = 0.3,
        pair_weight: float = 0.1,
        anchor_weight: float = 0.05,
        pairs: int = 4096,
        warmup_iters: int = 0,
        shuffle_segments: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            list(in_channels), channels, input_transform='multiple_select', **kwargs
        )
        choose('SpecFuseHead.spectral', spectral, ('laplacian', 'svd', None))
        choose('SpecFuseHead.fusion', fusion, ('residual', 'score', None))
        if not (0 <= vote <= 1 and 0 <= kappa <= 1):
            raise ValueError(
                f'SpecFuseHead.vote and kappa must be in 0..1, got {vote} and {kappa}'
            )
        if min(num_vectors, num_segments - 1, pairs // 2) < 1 or temperature <= 0:
            raise ValueError(
                'SpecFuseHead needs num_vectors >= 1, num_segments >= 2, pairs >= 2 '
                f'and temperature > 0, got {num_vectors}, {num_segments}, {pairs} and '
                f'{temperature}'
            )
        if spectral is None and (vote or shuffle_segments):
            raise ValueError(
                'without segments (SpecFuseHead.spectral=None) there is no vote and '
                'nothing to shuffle: set vote=0 and shuffle_segments=False'
            )
        if spectral is not None and fusion is None and not vote:
            raise ValueError(
                'SpecFuseHead: nothing reads the segments with fusion=None and vote=0: '
                'set spectral=None'
            )
        self.edge_maps = tuple(edge_maps)
        self.structure_maps = tuple(structure_maps)
        self.spectral = spectral
        self.fusion = fusion
        self.vote = vote
        self.num_vectors = num_vectors
        self.num_segments = num_segments
        self.kappa = kappa
        self.temperature = temperature
        self.scale = scale
        self.edge_weight = edge_weight
        self.pair_weight = pair_weight
        self.anchor_weight = anchor_weight
        self.pairs = pairs
        self.warmup_iters = warmup_iters
        self.shuffle_segments = shuffle_segments
        self.boundary_loss = BoundaryLoss(loss_weight=edge_weight)
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))
        width = in_channels[-1]
        self.delineator = None
        shape_channels = 0
        if delineator is not None:
            widths = [in_channels[i] for i in self.edge_maps]
            self.delineator = ShapeDelineator(widths, **delineator)
            shape_channels = self.delineator.edge.in_channels
        self.affinity: nn.Sequential | None = None
        if spectral is not None and train_affinity:
            deep = in_channels[self.structure_maps[0]]
            self.affinity = nn.Sequential(
                nn.Conv2d(deep, affinity_channels, 1, bias=False),
                nn.Conv2d(affinity_channels, deep, 1, bias=False),
            )
            _start_at_zero(self.affinity[1])
        self.mlp: nn.Sequential | None = None
        if fusion == 'residual':
            read = width + (width + 2 if spectral else 0)
            read += shape_channels + 1 if delineator is not None else 0
            self.mlp = nn.Sequential(
                nn.LayerNorm(read),
                nn.Linear(read, channels),
                nn.GELU(),
                nn.Linear(channels, width),
            )
        elif fusion == 'score':
            self.mlp = nn.Sequential(nn.Linear(4, 32), nn.GELU(), nn.Linear(32, 1))
        if self.mlp is not None:
            _start_at_zero(self.mlp[-1])

    # -- boxes ---------------------------------------------------------------------

    def affinity_features(self, maps: Sequence[Tensor], valid: Tensor) -> Tensor:
        """Return :math:`a`, each patch of length 1, ``(N, C, h, w)``; 0 in padding."""
        chosen = [F.normalize(maps[i].float(), dim=1) for i in self.structure_maps]
        mean = torch.stack(chosen).mean(dim=0)
        inside = valid[:, None].float()
        count = inside.sum((2, 3), keepdim=True)
        length = maps[self.structure_maps[-1]].float().norm(dim=1, keepdim=True)
        middle = (length * inside).sum((2, 3), keepdim=True) / count
        spread = ((length - middle).square() * inside).sum((2, 3), True) / count
        kept = inside * (length <= middle + _OUTLIER * spread.sqrt())
        centre = (mean * inside).sum((2, 3), keepdim=True) / count
        structure = (mean - centre) * kept
        if self.affinity is not None:
            structure = structure + self.affinity(structure)
        return F.normalize(structure, dim=1)

    @torch.no_grad()
    def segments(
        self, affine: Tensor, strength: Tensor | None, valid: Tensor
    ) -> Tensor:
        """Return the soft segments of each image, ``(N, M, h, w)``; 0 in padding.

        Args:
            affine: ``(N, C, h, w)``, of length 1.
            strength: of edges, ``(N, 1, h, w)``, if there is a delineator.
            valid: ``(N, h, w)`` bool, False in padding.
        """
        found = affine.new_zeros(len(affine), self.num_segments, *affine.shape[2:])
        for image, (features, inside) in enumerate(zip(affine, valid, strict=True)):
            rows, columns = int(inside[:, 0].sum()), int(inside[0].sum())
            edges = None if strength is None else strength[image, 0, :rows, :columns]
            part = self._segments_of(features[:, :rows, :columns], edges)
            found[image, :, :rows, :columns] = part
        return found

    def _segments_of(self, features: Tensor, edges: Tensor | None) -> Tensor:
        grid = features.shape[1:]
        rows = features.flatten(1).T
        wanted = min(self.num_vectors + 1, len(rows))
        if self.spectral == 'svd':
            if edges is not None and self.kappa:
                place = _places(grid, rows)
                rows = torch.cat([rows, self.kappa * edges.reshape(-1, 1) * place], 1)
            _, vectors = svd_vectors(rows, wanted)
        else:
            weights = (rows @ rows.T).clamp(min=0).square()
            if edges is not None and self.kappa and edges.any():
                weights = weights * (1 - self.kappa * intervening_contours(edges))
            distance = torch.cdist(_places(grid, rows), _places(grid, rows))
            near = (-(distance**2) / (2 * _REACH**2)).exp()
            weights = (1 - _NEARNESS) * weights + _NEARNESS * near
            weights.fill_diagonal_(0)
            _, vectors = laplacian_vectors(weights.double().cpu().numpy(), wanted)
        shares = soft_clusters(vectors[1:], self.num_segments, self.temperature)
        if self.shuffle_segments:
            shares = shares[np.random.default_rng(0).permutation(len(shares))]
        return torch.from_numpy(shares.T).to(features).unflatten(1, grid)

    def compute(
        self,
        inputs: Sequence[Tensor],
        queries: ClassQueries,
        global_token: Tensor | None,
        image: InputImage | None,
    ) -> tuple[SpecFuseOutputs, Tensor | None]:
        """Return outputs, with logits per query, and segments ``(N, M, h, w)``."""
        assert image is not None  # segmentors give what a head declares
        maps = self._transform_inputs(inputs)
        dense, grid = maps[-1], maps[-1].shape[2:]
        shape = edge_logits = strength = None
        if self.delineator is not None:
            shallow = [maps[i] for i in self.edge_maps]
            shape, edge_logits = self.delineator(shallow, image.pixels)
            strength = F.adaptive_max_pool2d(edge_strength(edge_logits), grid)
        affine = segments = pooled = None
        with torch.autocast(dense.device.type, enabled=False):
            if self.spectral is not None:
                valid = _valid(image, grid)
                affine = self.affinity_features(maps, valid)
                segments = self.segments(affine, strength, valid)
                pooled = _pooled(segments, dense.float())
        fused = dense
        if self.fusion == 'residual':
            parts = [dense]
            if segments is not None and pooled is not None:
                sure = segments.amax(dim=1, keepdim=True)
                parts += [pooled, sure, _entropy(segments)]
            if shape is not None and strength is not None:
                parts += [F.adaptive_avg_pool2d(shape, grid), strength]
            read = torch.cat([part.to(dense) for part in parts], dim=1)
            assert self.mlp is not None
            fused = dense + self.mlp(read.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        rows = single_rows(queries, 'SpecFuseHead')
        logits = self.scale * cosine_maps(fused, rows)
        if self.fusion == 'score':
            logits = logits + self.scale * self._score_change(
                dense, pooled, global_token, strength, rows
            )
        return SpecFuseOutputs(logits, dense, fused, affine, edge_logits), segments

    def _score_change(
        self,
        dense: Tensor,
        pooled: Tensor | None,
        token: Tensor | None,
        strength: Tensor | None,
        rows: Tensor,
    ) -> Tensor:
        if token is None:
            raise ValueError(
                "SpecFuseHead(fusion='score') reads the token of the image: set "
                'model.backbone.out_global=True'
            )
        assert self.mlp is not None
        own = cosine_maps(dense, rows)
        whole = cosine_maps(token[:, :, None, None], rows).expand_as(own)
        segment = torch.zeros_like(own) if pooled is None else cosine_maps(pooled, rows)
        edge = torch.zeros_like(own) if strength is None else strength.expand_as(own)
        read = torch.stack([own, segment, whole, edge.to(own)], dim=-1)
        return self.mlp(read)[..., 0]

    # -- entry points --------------------------------------------------------------

    def query_logits(
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        image: InputImage | None = None,
    ) -> Tensor:
        """Return logits ``(N, Q, h, w)``; in testing of what is left after the vote."""
        outputs, segments = self.compute(inputs, queries, global_token, image)
        if segments is None or not self.vote:
            return outputs.logits
        shares = outputs.logits.float().softmax(dim=1)
        voted = torch.einsum(
            'nmhw,nqm->nqhw', segments, _means(segments, shares).transpose(1, 2)
        )
        mixed = (1 - self.vote) * shares + self.vote * voted
        return mixed.clamp(min=_TINY**2).log()

    def training_outputs(
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        image: InputImage | None = None,
        **given: Any,
    ) -> SpecFuseOutputs:
        """Return logits per class, before any vote, and what else losses read."""
        outputs, _ = self.compute(inputs, queries, global_token, image)
        logits = reduce_queries(
            outputs.logits, queries.queries_per_class, self.query_reduce
        )
        return SpecFuseOutputs(
            logits, outputs.dense, outputs.fused, outputs.affine, outputs.edge_logits
        )

    def class_logits(self, outputs: SpecFuseOutputs) -> Tensor:
        """Return the logits among the outputs, ``(N, K, h, w)``."""
        return outputs.logits

    def loss_by_feat(
        self, outputs: SpecFuseOutputs, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Return the four losses, see the class, and ``acc_seg`` in percent.

        Args:
            outputs: what :meth:`training_outputs` returned.
            batch_data_samples: samples with ``gt_sem_seg`` ``(1, H, W)``.
        """
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        late = float(int(self.steps) >= self.warmup_iters)
        if self.training:
            self.steps += 1
        options = self._label_options
        losses = {
            'loss_ce': late * pixel_cross_entropy(outputs.logits, labels, **options),
            'acc_seg': pixel_accuracy(outputs.logits, labels, **options),
        }
        if self.fusion == 'residual':
            away = 1 - F.cosine_similarity(
                outputs.fused.float(), outputs.dense.float().detach(), dim=1
            )
            losses['loss_anchor'] = late * self.anchor_weight * away.mean()
        if outputs.edge_logits is not None:
            height, width = outputs.edge_logits.shape[2:]
            target = edge_target(labels, (height, width), self.ignore_index)
            losses['loss_edge'] = self.boundary_loss(
                outputs.edge_logits.float(), target
            )
        if outputs.affine is not None and self.affinity is not None:
            losses['loss_pair'] = self.pair_weight * self._pair_loss(
                outputs.affine, labels
            )
        return losses

    def _pair_loss(self, affine: Tensor, labels: Tensor) -> Tensor:
        small = F.interpolate(
            labels[:, None].float(), size=affine.shape[2:], mode='nearest-exact'
        ).long()
        total = affine.sum() * 0
        for features, truth in zip(affine, small.flatten(1), strict=True):
            first, second = _pairs(truth, self.pairs, self.ignore_index)
            if not len(first):
                continue
            rows = features.flatten(1).T
            alike = (1 + (rows[first] * rows[second]).sum(dim=1)) / 2
            same = (truth[first] == truth[second]).float()
            alike = alike.clamp(_TINY, 1 - _TINY)
            total = total + F.binary_cross_entropy(alike, same)
        return total / len(affine)


def _places(grid: Sequence[int], like: Tensor) -> Tensor:
    """Return row and column of each patch, ``(N, 2)``."""
    y, x = torch.meshgrid(
        *(torch.arange(side, device=like.device) for side in grid), indexing='ij'
    )
    return torch.stack([y, x], dim=-1).reshape(-1, 2).to(like)


def _valid(image: InputImage, grid: Sequence[int]) -> Tensor:
    """Return which patches begin inside their image, ``(N, h, w)``."""
    height, width = image.pixels.shape[2:]
    device = image.pixels.device
    y = torch.arange(grid[0], device=device) * height / grid[0]
    x = torch.arange(grid[1], device=device) * width / grid[1]
    sizes = image.valid.to(device)
    return (y < sizes[:, :1])[:, :, None] & (x < sizes[:, 1:])[:, None]


def _means(segments: Tensor, maps: Tensor) -> Tensor:
    """Return the mean of maps ``(N, C, h, w)`` in each segment, ``(N, M, C)``."""
    sums = torch.einsum('nmhw,nchw->nmc', segments, maps)
    return sums / segments.sum((2, 3)).clamp(min=_TINY)[..., None]


def _pooled(segments: Tensor, maps: Tensor) -> Tensor:
    """Return for each patch the means of its segments, ``(N, C, h, w)``."""
    return torch.einsum('nmhw,nmc->nchw', segments, _means(segments, maps))


def _entropy(segments: Tensor) -> Tensor:
    """Return the entropy of each patch's segments, 0..1, ``(N, 1, h, w)``."""
    logs = segments.clamp(min=_TINY).log()
    return -(segments * logs).sum(1, keepdim=True) / math.log(segments.shape[1])


def edge_target(
    labels: Tensor, size: tuple[int, int], ignore_index: int, width: int = 2
) -> Tensor:
    """Return where labels change, ``(N, h, w)``: 1 edge, 0 none, 255 not known.

    Edges of ``labels`` ``(N, H, W)`` are ``width`` pixels wide on either side; what is
    within ``width`` of a pixel without label is not known.
    """
    values = labels[:, None].float()
    void = (labels == ignore_index)[:, None].float()
    near = 2 * width + 1
    high = F.max_pool2d(values, 3, stride=1, padding=1)
    low = -F.max_pool2d(-values, 3, stride=1, padding=1)
    edges = F.max_pool2d((high != low).float(), near, stride=1, padding=width)
    unknown = F.max_pool2d(void, near, stride=1, padding=width)
    edges, unknown = (F.adaptive_max_pool2d(part, size) for part in (edges, unknown))
    return torch.where(unknown > 0, 255.0, edges)[:, 0]


def _pairs(truth: Tensor, count: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Draw pairs of labelled patches, half of one class and half of two."""
    places = (truth != ignore_index).nonzero()[:, 0]
    if len(places) < 2:
        return places[:0], places[:0]
    draws = torch.randint(len(places), (2, 8 * count), device=truth.device)
    first, second = places[draws]
    same = truth[first] == truth[second]
    kept = [
        group.nonzero()[: count // 2, 0] for group in (same & (first != second), ~same)
    ]
    chosen = torch.cat(kept)
    return first[chosen], second[chosen]
