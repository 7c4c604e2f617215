"""Region classifiers: names for masks that somebody else has found."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS

from zs3_mmseg.models.backbones.blocks import (
    embed,
    require_plain_vit,
    run_block,
    whole_patches,
)
from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank
from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.decode_heads.zero_shot_head import reduce_queries, single_rows
from zs3_mmseg.models.towers import load_clip, resolve_architecture
from zs3_mmseg.utils.names import choose

__all__ = [
    'CropClassifier',
    'LogitRegionClassifier',
    'MaskAttentionClassifier',
    'MaskPoolingClassifier',
    'RegionClassifier',
    'Regions',
]


@dataclass(frozen=True)
class Regions:
    """What a region classifier may look at.

    Attributes:
        masks: ``(N, M, H, W)`` bool at network input size; surplus masks of images
            with fewer than ``M`` are empty.
        image: the picture, see ``InputImage`` of the segmentors.
        maps: the maps ``(N, C, h, w)`` that the head reads, one per stage.
        global_token: ``(N, E)`` of the whole picture, if there is one.
        mask_logits: ``(N, M, h, w)`` at any resolution, that the masks were made of, if
            whoever found them has such.
    """

    masks: Tensor
    image: Any
    maps: tuple[Tensor, ...]
    global_token: Tensor | None = None
    mask_logits: Tensor | None = None


class RegionClassifier(nn.Module, ABC):
    """Scores each mask for each class."""

    @abstractmethod
    def forward(self, regions: Regions, queries: ClassQueries) -> Tensor:
        """Return scores of masks.

        Args:
            regions: masks and what is known of the picture.
            queries: rows of the ``K`` classes.

        Returns:
            ``(N, M, K)``, 0..1, finite for empty masks too. Synonyms are reduced, and
            softmaxes over classes are done, here.
        """


class LogitRegionClassifier(RegionClassifier):
    """A region classifier whose scores are the softmax of logits.

    Heads that have more to say about a mask, such as "no object", read the logits.
    """

    #: Whether it reads the image and masks of its size. If not, masks may come at any.
    needs_image: bool = True

    @abstractmethod
    def logits(self, regions: Regions, queries: ClassQueries) -> Tensor:
        """Return logits ``(N, M, K)``, finite for empty masks too.

        Args:
            regions: masks and what is known of the picture.
            queries: rows of the ``K`` classes; synonyms are reduced here.
        """

    def forward(self, regions: Regions, queries: ClassQueries) -> Tensor:
        """Return softmax scores ``(N, M, K)``; empty masks score 0."""
        scores = self.logits(regions, queries).softmax(dim=-1)
        there = regions.masks.flatten(2).any(dim=2, keepdim=True)
        return torch.where(there, scores, 0).float()


#: How many masks are pooled at once: at full resolution they are large.
POOLED_AT_ONCE = 16


@MODELS.register_module()
class MaskPoolingClassifier(LogitRegionClassifier):
    r"""Pools dense features below each mask and compares them with class rows.

    With features :math:`f_p`, the share :math:`m_p` of patch :math:`p` that a mask
    covers and rows :math:`t_q`,

    .. math:: s_q = \mathrm{softmax}_q\bigl(\tau\,
        \cos(\textstyle\sum_p m_p f_p / \sum_p m_p,\ t_q)\bigr),

    the pooling of FC-CLIP (arXiv 2308.02487, section 3.3) without its learnt parts. A
    class scores as its best synonym. Empty masks score 0.

    Args:
        scale: :math:`\tau`, factor on the cosines, > 0.
        in_index: which of the head's maps holds the features.

    Raises:
        ValueError: if ``scale`` is not positive.
    """

    def __init__(self, *, scale: float = 100.0, in_index: int = -1) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f'scale must be > 0, not {scale}')
        self.scale = scale
        self.in_index = in_index

    def logits(self, regions: Regions, queries: ClassQueries) -> Tensor:
        """Return scaled cosines ``(N, M, K)``."""
        features = regions.maps[self.in_index]  # (N, C, h, w)
        grid = (features.shape[2], features.shape[3])
        weights = torch.stack([mask_shares(m, grid) for m in regions.masks])
        pooled = weights @ features.flatten(2).transpose(1, 2)  # (N, M, C)
        rows = F.normalize(queries.embeddings, dim=-1)
        logits = self.scale * F.normalize(pooled, dim=-1) @ rows.T  # (N, M, Q)
        return reduce_queries(
            logits.transpose(1, 2), queries.queries_per_class, 'max'
        ).transpose(1, 2)


class _TowerClassifier(LogitRegionClassifier):
    """Compares what a frozen CLIP of its own sees in a region with class names."""

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        pretrained: str | Path | None,
        *,
        templates: str | list[str] | None,
        scale: float | None,
        trust: bool,
    ) -> None:
        super().__init__()
        if scale is not None and not scale > 0:
            raise ValueError(f'scale must be > 0, not {scale}')
        self.scale = scale
        self._load = dict(arch=arch, pretrained=pretrained, trust=trust, need='image')
        self._bank = None
        if templates is not None:
            source = dict(type='clip_text', arch=arch, pretrained=pretrained)
            self._bank = ClassEmbeddingBank(
                dict(source, trust=trust), templates=templates, reduce_synonyms=True
            )
        self._rows: tuple[tuple[str, ...], Tensor] = ((), torch.empty(0))
        # In a list, because a module in an attribute would be saved and trained.
        self._towers: list[ImageTower] = []

    @property
    def tower(self) -> ImageTower:
        """The image tower, built when first asked for."""
        if not self._towers:
            self._towers.append(ImageTower.load(**self._load))
        return self._towers[0]

    def logits(self, regions: Regions, queries: ClassQueries) -> Tensor:
        """Return scaled cosines ``(N, M, K)``, float64."""
        scale = self.tower.scale if self.scale is None else self.scale
        # In float32, logits of 100 would be off by 1e-5, and probabilities as much.
        features = self.features(regions).double()
        if self._bank is not None:
            rows, counts = self._encoded(queries.names), (1,) * queries.num_classes
        else:
            rows, counts = single_rows(queries, type(self).__name__), None
        logits = scale * features @ rows.to(features).T
        return reduce_queries(
            logits.flatten(0, 1), counts or queries.queries_per_class, 'max'
        ).unflatten(0, features.shape[:2])

    def _encoded(self, names: tuple[str, ...]) -> Tensor:
        """Return the rows ``(K, D)`` of names in this classifier's own sentences."""
        if self._rows[0] != names:
            assert self._bank is not None
            self._rows = names, self._bank.embed(names).embeddings
        return self._rows[1]

    @abstractmethod
    def features(self, regions: Regions) -> Tensor:
        """Return what CLIP sees in each region, unit vectors ``(N, M, D)``."""

    def _normalised(self, image: Any) -> Tensor:
        """Return pictures ``(N, 3, H, W)`` as CLIP wants them, 0 where they end."""
        pixels = self.tower.normalised(image.pixels)
        for index, (height, width) in enumerate(image.valid.tolist()):
            pixels[index, :, height:] = 0
            pixels[index, :, :, width:] = 0
        return pixels


#: What a picture of a region is made of.
STYLES = ('cropmask', 'crop', 'mask')


@MODELS.register_module()
class CropClassifier(_TowerClassifier):
    r"""Shows a frozen CLIP a picture of each region and compares it with class names.

    Pictures are normalised as CLIP wants them before anything is masked, so that what
    is hidden has CLIP's mean colour:

    - ``'cropmask'``: the region alone, cut to its box;
    - ``'crop'``: the box with all that is in it;
    - ``'mask'``: the region alone, in the whole picture.

    A box runs from the first to the last column and row of the mask and is resampled to
    the size of the tower (RoIAlign of arXiv 1703.06870, aligned, as many samples as
    there are pixels). A mask without extent in one direction, and an empty one, get the
    whole picture with its padding, as in the code of ZegFormer (arXiv 2112.07910). The
    logit of a class is :math:`\tau\, v \cdot t_k`, with rows of length 1 as banks make
    them; a class scores as its best synonym.

    The tower may be any that open_clip has. It is loaded on first use and is no part of
    any checkpoint.

    Args:
        arch: see :func:`~zs3_mmseg.models.towers.load_clip`.
        pretrained: the same.
        style: ``'cropmask'``, ``'crop'`` or ``'mask'``.
        expand: factor on the sides of a box, about its middle, >= 1; boxes end at the
            border of the picture.
        templates: sentences about the names, encoded by the same CLIP; synonyms of a
            class are averaged. None: the rows that the segmentor has, which have to be
            of this CLIP.
        scale: :math:`\tau`; None: the one that the CLIP learned.
        batch_size: how many pictures run through the tower at once.
        trust: open a TorchScript archive of unknown origin.

    Raises:
        ValueError: for an unknown style or set of templates, or numbers out of range.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        pretrained: str | Path | None = None,
        *,
        style: str = 'cropmask',
        expand: float = 1.0,
        templates: str | list[str] | None = None,
        scale: float | None = None,
        batch_size: int = 32,
        trust: bool = False,
    ) -> None:
        super().__init__(
            arch, pretrained, templates=templates, scale=scale, trust=trust
        )
        self.style = choose('style', style, STYLES)
        if batch_size < 1:
            raise ValueError(f'batch_size must be >= 1, not {batch_size}')
        if expand < 1 or (expand > 1 and style == 'mask'):
            raise ValueError(
                f'expand={expand} must be >= 1, and grows the boxes of '
                "style='cropmask' and 'crop' only"
            )
        self.expand = expand
        self.batch_size = batch_size

    @torch.no_grad()
    def features(self, regions: Regions) -> Tensor:
        """Return what CLIP sees in each region, unit vectors ``(N, M, D)``."""
        masks = regions.masks
        tower, pictures = self.tower.on(masks.device), self.pictures(regions)
        found = [torch.zeros(0, tower.dim, device=masks.device)]
        while batch := [*islice(pictures, self.batch_size)]:
            found.append(tower(torch.stack(batch)))
        return torch.cat(found).view(*masks.shape[:2], tower.dim)

    def pictures(self, regions: Regions) -> Iterator[Tensor]:
        """Yield what CLIP gets of each region of each image, ``(3, h, w)``."""
        tower, pixels = self.tower, self._normalised(regions.image)
        for index, (picture, masks) in enumerate(
            zip(pixels, regions.masks, strict=True)
        ):
            if self.style == 'mask':
                picture = _resized(picture[None], tower.size)[0]
            for number, mask in enumerate(masks):
                if self.style == 'mask':
                    yield picture * self._small_mask(regions, index, number)
                    continue
                box = expanded_box(mask_box(mask), self.expand, mask.shape)
                shown = picture * mask if self.style == 'cropmask' else picture
                yield roi_align(shown, box, tower.size)

    def _small_mask(self, regions: Regions, image: int, number: int) -> Tensor:
        """Return a mask at the size of the tower, ``(h, w)`` bool."""
        mask, size = regions.masks[image, number], self.tower.size
        if regions.mask_logits is None:
            return _resized(mask[None, None].float(), size)[0, 0] > 0.5
        logits = regions.mask_logits[image, number][None, None].float()
        full = _resized(logits, (mask.shape[0], mask.shape[1]))
        return _resized(full, size)[0, 0].sigmoid() > 0.5


@MODELS.register_module()
class MaskAttentionClassifier(_TowerClassifier):
    r"""Lets a frozen CLIP look at the whole picture through each mask's attention.

    Up to the last blocks the tower runs as it is. Then each mask gets a copy of the
    class token, which attends to itself and to the patches, while patches and class
    token go on as if it were not there. With the share :math:`m_p` of patch :math:`p`
    that the mask covers, the copy's attention is

    .. math:: \mathrm{softmax}_p\bigl(q \cdot k_p / \sqrt d + \log m_p\bigr),

    so that a mask of the whole picture sees what CLIP sees, and the surroundings of a
    small one are in the patches themselves; the attention bias of SAN (arXiv
    2302.12242) with masks in the place of what is learned there. Empty masks get the
    whole picture.

    A tower that pools its patches has no token to copy: there all patches attend by
    that formula in the last blocks, mask by mask, and the mean is weighted by
    :math:`m_p`, which takes a run of these blocks for each mask.

    The logit of a class is :math:`\tau\, v \cdot t_k`, as in
    :class:`CropClassifier`; the tower is loaded on first use, too.

    Args:
        arch: see :func:`~zs3_mmseg.models.towers.load_clip`; a vision transformer of
            open_clip.
        pretrained: the same.
        num_blocks: how many blocks, from the last one, look through masks, >= 1.
        templates: see :class:`CropClassifier`.
        scale: see :class:`CropClassifier`.
        trust: see :class:`CropClassifier`.

    Raises:
        ValueError: for towers of another kind, or numbers out of range.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        pretrained: str | Path | None = None,
        *,
        num_blocks: int = 3,
        templates: str | list[str] | None = None,
        scale: float | None = None,
        trust: bool = False,
    ) -> None:
        super().__init__(
            arch, pretrained, templates=templates, scale=scale, trust=trust
        )
        architecture = resolve_architecture(arch)
        vision = architecture.config['vision_cfg']
        try:
            require_plain_vit(architecture)
        except ValueError as error:
            raise ValueError(
                f'{error} Or use CropClassifier, which takes any tower'
            ) from error
        if not 1 <= num_blocks <= vision['layers']:
            raise ValueError(
                f'num_blocks must be in 1..{vision["layers"]}, not {num_blocks}'
            )
        self.num_blocks = num_blocks

    @torch.no_grad()
    def features(self, regions: Regions) -> Tensor:
        """Return what CLIP sees through masks, unit vectors ``(N, M, D)``."""
        self.tower.on(regions.masks.device)
        pixels = self._normalised(regions.image)
        return torch.stack(
            [self._of_image(*pair) for pair in zip(pixels, regions.masks, strict=True)]
        )

    def _of_image(self, picture: Tensor, masks: Tensor) -> Tensor:
        """Return vectors ``(M, D)`` of one picture ``(3, H, W)``."""
        visual: Any = self.tower.visual
        patch = int(visual.patch_size[0])
        tokens, grid = embed(
            visual,
            whole_patches(picture[None], patch, 'pad'),
            pos_interp='bicubic',
            cls_embed_twice=False,
        )
        shares = mask_shares(whole_patches(masks, patch, 'pad'), grid)  # (M, hw)
        shares = torch.where(shares.any(dim=1, keepdim=True), shares, 1)
        for block in visual.transformer.resblocks[: -self.num_blocks]:
            tokens = run_block(block, tokens)
        looks = self._by_token if visual.pool_type == 'tok' else self._by_patches
        return F.normalize(looks(visual, tokens, shares) @ visual.proj, dim=-1)

    def _by_token(self, visual: Any, tokens: Tensor, shares: Tensor) -> Tensor:
        """Return what copies of the class token end as, ``(M, width)``."""
        own, count = tokens.shape[1], len(shares)
        bias = tokens.new_zeros(own + count, own + count)
        bias[:, own:] = -math.inf
        bias[own:, 0] = -math.inf
        bias[own:, 1:own] = shares.log()
        bias[own:, own:].fill_diagonal_(0)
        copies = tokens[:, :1].expand(-1, count, -1)
        tokens = torch.cat([tokens, copies], dim=1)
        for block in visual.transformer.resblocks[-self.num_blocks :]:
            tokens = run_block(block, tokens, bias)
        return visual.ln_post(tokens[0, own:])

    def _by_patches(self, visual: Any, tokens: Tensor, shares: Tensor) -> Tensor:
        """Return means of patches that attend by each mask, ``(M, width)``."""
        found = [tokens.new_zeros(0, tokens.shape[2])]
        for some in shares.split(POOLED_AT_ONCE):
            bias = F.pad(some.log(), (1, 0))[:, None, None]  # (M', 1, 1, 1 + hw)
            seen = tokens.expand(len(some), -1, -1)
            for block in visual.transformer.resblocks[-self.num_blocks :]:
                seen = run_block(block, seen, bias)
            patches = seen[:, 1:]
            if not visual.final_ln_after_pool:
                patches = visual.ln_post(patches)
            weights = some / some.sum(dim=1, keepdim=True)
            mean = (weights[:, None] @ patches)[:, 0]
            found.append(visual.ln_post(mean) if visual.final_ln_after_pool else mean)
        return torch.cat(found)


def mask_shares(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return how much of each patch masks ``(M, H, W)`` cover, ``(M, hw)`` in 0..1."""
    blocks = [masks.new_zeros(0, *grid, dtype=torch.float32)]
    blocks += [
        F.adaptive_avg_pool2d(some.float(), grid)
        for some in masks.split(POOLED_AT_ONCE)
        if len(some)
    ]
    return torch.cat(blocks).flatten(1)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode='bilinear', align_corners=False)


@dataclass
class ImageTower:
    """The image half of a CLIP, frozen.

    Attributes:
        visual: open_clip's module, from ``(B, 3, h, w)`` to ``(B, D)``.
        dim: ``D``, length of what it gives.
        size: height and width that it takes.
        mean: of RGB values in 0..255.
        std: like ``mean``.
        scale: the factor on cosines that the CLIP learned.
    """

    visual: nn.Module
    dim: int
    size: tuple[int, int]
    mean: Tensor
    std: Tensor
    scale: float

    @classmethod
    def load(cls, **which: Any) -> ImageTower:
        """Load one, see :func:`~zs3_mmseg.models.towers.load_clip`."""
        clip = load_clip(**which)
        visual = copy.deepcopy(clip.model.visual).eval().requires_grad_(False)
        side = visual.image_size
        height, width = (side, side) if isinstance(side, int) else side
        mean, std = (255 * torch.tensor(values) for values in (clip.mean, clip.std))
        scale = float(clip.model.logit_scale.detach().exp())
        return cls(
            visual, clip.architecture.embed_dim, (height, width), mean, std, scale
        )

    def on(self, device: torch.device) -> ImageTower:
        """Move it, and return it."""
        self.visual.to(device)
        return self

    def normalised(self, pixels: Tensor) -> Tensor:
        """Normalise pictures ``(..., 3, H, W)`` of RGB values in 0..255."""
        mean, std = (v.to(pixels)[:, None, None] for v in (self.mean, self.std))
        return (pixels - mean) / std

    def __call__(self, pictures: Tensor) -> Tensor:
        """Return unit vectors ``(B, D)``."""
        return F.normalize(self.visual(pictures), dim=-1)


def mask_box(mask: Tensor) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a mask ``(H, W)``.

    The indices of its first and last column and row, so that it ends where the last
    one begins; the whole picture if that has no area.
    """
    rows, columns = (mask.any(dim=dim).nonzero().flatten() for dim in (1, 0))
    if len(rows):
        left, right = int(columns[0]), int(columns[-1])
        top, bottom = int(rows[0]), int(rows[-1])
        if left < right and top < bottom:
            return left, top, right, bottom
    return 0, 0, mask.shape[1], mask.shape[0]


def expanded_box(
    box: tuple[int, int, int, int], factor: float, size: Sequence[int]
) -> tuple[int, int, int, int]:
    """Return a box with longer sides about the same middle, cut to a picture."""
    left, top, right, bottom = box
    across = round((right - left) * (factor - 1) / 2)
    down = round((bottom - top) * (factor - 1) / 2)
    return (
        max(left - across, 0),
        max(top - down, 0),
        min(right + across, size[1]),
        min(bottom + down, size[0]),
    )


def roi_align(
    picture: Tensor, box: tuple[int, int, int, int], size: tuple[int, int]
) -> Tensor:
    """Resample a box of a picture ``(C, H, W)`` to ``(C, *size)``.

    Each new pixel is the mean of a grid of bilinear samples, one for each pixel that it
    covers, which is a product of two matrices with the picture between them.
    """
    left, top, right, bottom = box
    # One more pixel than the box on either side is all that samples touch.
    rows = slice(max(top - 1, 0), bottom + 2)
    columns = slice(max(left - 1, 0), right + 2)
    part = picture[:, rows, columns]
    down = _samples(top, bottom, size[0], picture.shape[1]).to(part)[:, rows]
    across = _samples(left, right, size[1], picture.shape[2]).to(part)[:, columns]
    return down @ part @ across.T


def _samples(first: int, last: int, size: int, length: int) -> Tensor:
    """Return the weights ``(size, length)`` of the pixels of one axis."""
    step = (last - first) / size
    grid = math.ceil(step)
    offsets = (torch.arange(grid, dtype=torch.float64) + 0.5) / grid
    starts = torch.arange(size, dtype=torch.float64)[:, None]
    places = first - 0.5 + (starts + offsets) * step  # (size, grid)
    inside = (places >= -1) & (places <= length)
    places = places.clamp(0, length - 1)
    low = places.floor().long()
    high = (low + 1).clamp(max=length - 1)
    share = places - low
    weights = torch.zeros(size, length, dtype=torch.float64)
    for index, part in ((low, 1 - share), (high, share)):
        weights.scatter_add_(1, index, part * inside / grid)
    return weights.float()
