"""Region classifiers: names for masks that somebody else has found."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS

from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank
from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.decode_heads.zero_shot_head import reduce_queries, single_rows
from zs3_mmseg.models.towers import load_clip
from zs3_mmseg.utils.names import choose

__all__ = [
    'CropClassifier',
    'LogitRegionClassifier',
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
        shares = [
            F.adaptive_avg_pool2d(some.float(), grid)
            for some in regions.masks.split(POOLED_AT_ONCE, dim=1)
        ]
        weights = torch.cat(shares, dim=1).flatten(2)  # (N, M, hw)
        pooled = weights @ features.flatten(2).transpose(1, 2)  # (N, M, C)
        rows = F.normalize(queries.embeddings, dim=-1)
        logits = self.scale * F.normalize(pooled, dim=-1) @ rows.T  # (N, M, Q)
        return reduce_queries(
            logits.transpose(1, 2), queries.queries_per_class, 'max'
        ).transpose(1, 2)


#: What a picture of a region is made of.
STYLES = ('cropmask', 'crop', 'mask')


@MODELS.register_module()
class CropClassifier(LogitRegionClassifier):
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

    The tower is loaded on first use and is no part of any checkpoint.

    Args:
        arch: see :func:`~zs3_mmseg.models.towers.load_clip`.
        pretrained: the same.
        style: ``'cropmask'``, ``'crop'`` or ``'mask'``.
        templates: sentences about the names, encoded by the same CLIP; synonyms of a
            class are averaged. None: the rows that the segmentor has, which have to be
            of this CLIP.
        scale: :math:`\tau`; None: the one that the CLIP learned.
        batch_size: how many pictures run through the tower at once.
        trust: open a TorchScript archive of unknown origin.

    Raises:
        ValueError: for an unknown style or set of templates, or a size below 1.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        pretrained: str | Path | None = None,
        *,
        style: str = 'cropmask',
        templates: str | list[str] | None = None,
        scale: float | None = None,
        batch_size: int = 32,
        trust: bool = False,
    ) -> None:
        super().__init__()
        self.style = choose('style', style, STYLES)
        if batch_size < 1:
            raise ValueError(f'batch_size must be >= 1, not {batch_size}')
        if scale is not None and not scale > 0:
            raise ValueError(f'scale must be > 0, not {scale}')
        self.scale = scale
        self.batch_size = batch_size
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
            rows, counts = single_rows(queries, 'CropClassifier'), None
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
        tower, image = self.tower, regions.image
        pixels = tower.normalised(image.pixels)
        for index, (height, width) in enumerate(image.valid.tolist()):
            pixels[index, :, height:] = 0
            pixels[index, :, :, width:] = 0
        for index, (picture, masks) in enumerate(
            zip(pixels, regions.masks, strict=True)
        ):
            if self.style == 'mask':
                picture = _resized(picture[None], tower.size)[0]
            for number, mask in enumerate(masks):
                if self.style == 'mask':
                    yield picture * self._small_mask(regions, index, number)
                    continue
                box = mask_box(mask)
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
