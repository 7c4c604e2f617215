"""Eigensegments: class-free parts of an image from the spectrum of its own patches.

Patches are the nodes of a graph whose edges say how alike their features are; the
eigenvectors of its Laplacian with the smallest eigenvalues change least between alike
patches, so their signs cut the image where it falls apart most easily. The recipe is
that of deep spectral segmentation (arXiv 2205.07839), from which SAZS takes its masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import eigh
from scipy.sparse.linalg import eigsh
from scipy.special import softmax
from torch import Tensor, nn

from mmseg.registry import MODELS

from zs3_mmseg.models.post_processors import PostProcessor
from zs3_mmseg.models.proposers import Proposer
from zs3_mmseg.models.proposers.proposer import weights_hash
from zs3_mmseg.utils.cache import cache_dir, content_hash
from zs3_mmseg.utils.config_keys import ConfigError
from zs3_mmseg.utils.names import choose

__all__ = ['EigenFusion', 'EigenSegmenter']

#: Graphs up to this many patches are decomposed as a whole; Lanczos iterations find the
#: few vectors that are needed of larger ones.
DENSE_LIMIT = 1024
#: Degrees below it would divide by nothing.
_TINY = 1e-12
#: Neighbours of a pixel in colour, and the weight of its place among them: many nearby
#: ones, and a few from anywhere.
COLOUR_NEIGHBOURS = ((20, 2.0), (10, 0.1))


def patch_affinity(features: Tensor, kind: str = 'relu') -> np.ndarray:
    """Return how alike patches are, (N, N) float64, of features ``(N, C)``.

    ``'relu'``: positive cosines, divided by the largest. ``'shifted'``:
    ``(1 + cosine) / 2``.
    """
    rows = F.normalize(features.double(), dim=1)
    cosines = (rows @ rows.T).cpu().numpy()
    if kind == 'shifted':
        return (1 + cosines) / 2
    positive = np.maximum(cosines, 0)
    return positive / max(positive.max(), _TINY)


def colour_affinity(picture: np.ndarray) -> np.ndarray:
    """Count how often pixels of (h, w, 3), 0..1, are neighbours in colour, (N, N).

    Neighbours of a pixel are the nearest ones, itself included, in RGB together with
    the weighted place in the image, see :data:`COLOUR_NEIGHBOURS`; each pair counts in
    both directions.
    """
    height, width = picture.shape[:2]
    y, x = np.meshgrid(
        np.linspace(0, 1, height), np.linspace(0, 1, width), indexing='ij'
    )
    place = np.stack([x, y], axis=-1).reshape(-1, 2)
    counts = np.zeros((len(place), len(place)))
    for number, weight in COLOUR_NEIGHBOURS:
        points = np.concatenate([picture.reshape(-1, 3), weight * place], axis=1)
        tensor = torch.from_numpy(points.astype(np.float32))
        near = torch.cdist(
            tensor, tensor, compute_mode='donot_use_mm_for_euclid_dist'
        ).argsort(dim=1, stable=True)
        chosen = np.zeros_like(counts)
        np.put_along_axis(chosen, near[:, :number].numpy(), 1, axis=1)
        counts += chosen + chosen.T
    return counts


def laplacian_vectors(
    affinity: np.ndarray, count: int, *, normalised: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the smallest eigenvalues (K,) and vectors (K, N) of a graph's Laplacian.

    With the diagonal :math:`D` of the row sums of :math:`W`, solves
    :math:`(D - W) v = \mu D v` with :math:`v^T D v = 1`, or :math:`(D - W) v = \mu v`
    with :math:`v^T v = 1` if not ``normalised``. The first vector is constant. Signs
    mean nothing.
    """
    degrees = affinity.sum(axis=1)
    degrees = np.where(degrees < _TINY, 1.0, degrees)
    scale = 1 / np.sqrt(degrees) if normalised else np.ones_like(degrees)
    matrix = (np.diag(degrees) - affinity) * scale[:, None] * scale[None]
    if len(matrix) <= DENSE_LIMIT:
        values, vectors = eigh(matrix, subset_by_index=[0, count - 1])
    else:
        # The largest pairs of what is left of a bound converge, the smallest don't.
        bound = 2.0 if normalised else 2 * degrees.max()
        turned = bound * np.eye(len(matrix)) - matrix
        start = np.cos(np.arange(len(matrix)))  # the same vectors every time
        values, vectors = eigsh(turned, k=count, which='LA', v0=start)
        values, vectors = bound - values[::-1], vectors[:, ::-1]
    return values, (vectors * scale[:, None]).T


def svd_vectors(features: Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Return what :func:`laplacian_vectors` does of the ``'shifted'`` affinity.

    Without an (N, N) matrix: :math:`(1 + \cos)/2 = G G^T` with the rows
    :math:`g_i = (1, \hat f_i) / \sqrt 2`, so the left singular vectors of
    :math:`D^{-1/2} G` are the eigenvectors, with :math:`\mu = 1 - \sigma^2`.
    """
    rows = F.normalize(features.double(), dim=1).cpu().numpy()
    factor = np.concatenate([np.ones((len(rows), 1)), rows], axis=1) / np.sqrt(2)
    degrees = factor @ factor.sum(axis=0)
    scale = 1 / np.sqrt(np.where(degrees < _TINY, 1.0, degrees))
    vectors, singular, _ = np.linalg.svd(factor * scale[:, None], full_matrices=False)
    return 1 - singular[:count] ** 2, (vectors[:, :count] * scale[:, None]).T


def feature_vectors(features: Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest singular values (K,) and left vectors (K, N) of features."""
    rows = F.normalize(features.double(), dim=1).cpu().numpy()
    vectors, singular, _ = np.linalg.svd(rows, full_matrices=False)
    return singular[:count], vectors[:, :count].T


def smaller_side_up(vectors: np.ndarray) -> np.ndarray:
    """Turn vectors (K, N) that are positive on more than half of the patches."""
    share = (vectors > 0).mean(axis=1)
    turned = (share > 0.5) & (share < 1.0)
    return np.where(turned[:, None], -vectors, vectors)


def _grouped(vectors: np.ndarray, count: int, iterations: int) -> np.ndarray:
    """Return squared distances (N, M) of patches to the centres of their groups.

    k-means of the rows ``Y`` (N, K), each of length 1, from centres that are as far
    apart as possible. It reads distances only, so neither signs nor a rotation of the
    vectors, as equal eigenvalues allow it, change the groups.
    """
    rows = vectors.T / np.maximum(
        np.linalg.norm(vectors.T, axis=1, keepdims=True), _TINY
    )
    first = int(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).round(9).argmax())
    centres = rows[[first]]
    while len(centres) < min(count, len(rows)):
        distances = ((rows[:, None] - centres) ** 2).sum(-1).min(axis=1)
        centres = np.concatenate([centres, rows[[int(distances.round(9).argmax())]]])
    for _ in range(iterations):
        labels = ((rows[:, None] - centres) ** 2).sum(-1).argmin(axis=1)
        centres = np.stack(
            [
                rows[labels == k].mean(axis=0) if (labels == k).any() else centre
                for k, centre in enumerate(centres)
            ]
        )
    return ((rows[:, None] - centres) ** 2).sum(-1)


def clusters(vectors: np.ndarray, count: int, iterations: int = 10) -> np.ndarray:
    """Group patches by where they lie among eigenvectors (K, N); labels (N,)."""
    return _grouped(vectors, count, iterations).argmin(axis=1)


def soft_clusters(
    vectors: np.ndarray, count: int, temperature: float, iterations: int = 10
) -> np.ndarray:
    """Return how much each patch belongs to each group, (N, count).

    The softmax over groups of minus squared distance over ``temperature``; groups that
    a small image cannot have get nothing.
    """
    distances = _grouped(vectors, count, iterations)
    shares = softmax(-distances / temperature, axis=1)
    return np.pad(shares, ((0, 0), (0, count - shares.shape[1])))


METHODS = ('laplacian', 'svd', 'features')
AFFINITIES = ('relu', 'shifted')
SEGMENTS = ('signs', 'clusters')
COLOUR = 'colour'


@MODELS.register_module()
class EigenSegmenter(Proposer):
    r"""Proposes eigensegments: masks from eigenvectors of an image's patch graph.

    The image is resized so that its long side is ``long_side`` and both sides are whole
    patches; a network that knows no classes, or its colours, give features
    :math:`f_i` of its ``N`` patches, and these vectors over the patches:

    - ``'laplacian'``: the smallest eigenvectors of :math:`(D - W) v = \mu D v` with
      :math:`W_{ij} = \max(\cos(f_i, f_j), 0) / \max W` (``affinity='relu'``) or
      :math:`(1 + \cos)/2` (``'shifted'``), plus ``colour_weight`` times how often
      patches are neighbours in colour. The first vector, which is constant, is left
      out.
    - ``'svd'``: the same of the ``'shifted'`` affinity by a thin SVD, without an
      (N, N) matrix, for large grids. There is no colour term.
    - ``'features'``: the left singular vectors of the features.

    With ``segments='signs'`` each vector makes one mask: where it is positive, the
    smaller side of it. A mask and its complement are equally valid; who reads them has
    to try both. With ``'clusters'`` the vectors make ``num_segments`` masks that cover
    the image, which depend neither on signs nor on rotations of the vectors.

    Args:
        features: ``'colour'``, or the config of a backbone whose last map is read, such
            as ``dict(type='TIMMBackbone', model_name='vit_small_patch16_224.dino',
            features_only=True, pretrained=True, dynamic_img_size=True)`` or
            ``dict(type='OpenCLIPViT', ...)``. It stays as it is and reaches no
            checkpoint.
        method: ``'laplacian'``, ``'svd'`` or ``'features'``.
        affinity: ``'relu'`` or ``'shifted'``.
        num_vectors: how many vectors, >= 1.
        colour_weight: of the colour term; 0 by default, as in the released code.
        segments: ``'signs'`` or ``'clusters'``.
        num_segments: number of clusters, >= 2.
        centre: whether the mean of the image is taken from the features first. Cosines
            of CLIP's patches are all high, and make one blob without it.
        long_side: long side of the resized image in pixels.
        patch_size: sides of the resized image are multiples of it; with ``'colour'``
            it is the size of a patch.
        mean: what is taken from the pixels of the resized image, RGB, 0..255.
        std: what they are divided by.
        computes: False refuses to compute masks that are not in the cache, for machines
            without the weights, or to be sure that none is computed.
        cache: see :class:`Proposer`.
        kept_images: see :class:`Proposer`.

    Raises:
        ValueError: for options out of range, or that have no effect together; in use,
            if an image has fewer patches than vectors are asked for.
        FileNotFoundError: with ``computes=False``, if an image is not in the cache.
    """

    def __init__(
        self,
        features: str | Mapping[str, Any] = COLOUR,
        *,
        method: str = 'laplacian',
        affinity: str = 'relu',
        num_vectors: int = 5,
        colour_weight: float = 0.0,
        segments: str = 'signs',
        num_segments: int = 12,
        centre: bool = True,
        long_side: int = 448,
        patch_size: int = 16,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        computes: bool = True,
        cache: bool = True,
        kept_images: int = 8,
    ) -> None:
        super().__init__(cache=cache, kept_images=kept_images)
        self.method = choose('method', method, METHODS)
        self.affinity = choose('affinity', affinity, AFFINITIES)
        self.segments = choose('segments', segments, SEGMENTS)
        if min(num_vectors, num_segments - 1, patch_size) < 1 or long_side < patch_size:
            raise ValueError(
                'EigenSegmenter needs num_vectors >= 1, num_segments >= 2, patch_size '
                f'>= 1 and long_side >= patch_size, got {num_vectors}, {num_segments}, '
                f'{patch_size} and {long_side}'
            )
        if colour_weight < 0 or (colour_weight and method != 'laplacian'):
            raise ValueError(
                f'colour_weight={colour_weight} must be >= 0, and has an effect with '
                f"method='laplacian' only, not {method!r}"
            )
        if isinstance(features, str):
            choose('features', features, (COLOUR,))
        if not (computes or cache):
            raise ValueError('computes=False reads the cache: leave out cache=False')
        self.num_vectors = num_vectors
        self.num_segments = num_segments
        self.colour_weight = colour_weight
        self.centre = centre
        self.long_side = long_side
        self.patch_size = patch_size
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.computes = computes
        self.network = None if isinstance(features, str) else _network(features)
        self._fingerprint = content_hash(
            *(
                repr((key, value))
                for key, value in sorted(vars(self).items())
                if isinstance(value, str | int | float | tuple)
                and key not in ('computes', 'cache', 'kept_images')
            ),
            COLOUR if self.network is None else weights_hash(self.network),
        )

    @property
    def fingerprint(self) -> str:
        """Hash of the options and of the network's weights."""
        return self._fingerprint

    def propose(self, image: Tensor) -> Tensor:
        """Return masks ``(M, H, W)`` bool of an image ``(3, H, W)`` uint8, RGB."""
        if not self.computes:
            raise FileNotFoundError(
                f'{cache_dir() / "proposals"} has no eigensegments of this image with '
                'these options: set EigenSegmenter.computes=True, or copy the cache '
                'there (ZS3_MMSEG_CACHE)'
            )
        vectors = self.vectors(image)  # (K, h, w)
        size = (image.shape[1], image.shape[2])
        if self.segments == 'signs':
            return _resized(torch.from_numpy(vectors), size) > 0
        grid = vectors.shape[1:]
        labels = clusters(vectors.reshape(len(vectors), -1), self.num_segments)
        groups = torch.from_numpy(labels).view(grid)
        shares = F.one_hot(groups, self.num_segments).permute(2, 0, 1).double()
        best = _resized(shares, size).argmax(dim=0)
        masks = F.one_hot(best, self.num_segments).permute(2, 0, 1).bool()
        return masks[masks.flatten(1).any(dim=1)]

    @torch.no_grad()
    def vectors(self, image: Tensor) -> np.ndarray:
        """Return the vectors over the patches of an image, (K, h, w) float64."""
        small = self._resized_image(image)
        maps = self._features(small)  # (C, h, w)
        grid = (maps.shape[1], maps.shape[2])
        num_patches, wanted = maps[0].numel(), self.num_vectors + 1
        if num_patches < wanted:
            raise ValueError(
                f'an image of {image.shape[2]} x {image.shape[1]} pixels has '
                f'{num_patches} patches, and num_vectors={self.num_vectors} needs '
                f'{wanted}: set EigenSegmenter.long_side or num_vectors'
            )
        rows = maps.flatten(1).T.double()
        if self.centre:
            rows = rows - rows.mean(dim=0)
        if self.method == 'features':
            found = feature_vectors(rows, self.num_vectors)[1]
        elif self.method == 'svd':
            found = svd_vectors(rows, wanted)[1][1:]
        else:
            weights = patch_affinity(rows, self.affinity)
            if self.colour_weight:
                cells = F.adaptive_avg_pool2d(small / 255, grid)
                picture = cells.permute(1, 2, 0).double().cpu().numpy()
                weights = weights + self.colour_weight * colour_affinity(picture)
            found = laplacian_vectors(weights, wanted)[1][1:]
        return smaller_side_up(found).reshape(-1, *grid)

    def _resized_image(self, image: Tensor) -> Tensor:
        """Return the image ``(3, h, w)``, 0..255, with whole patches."""
        height, width = image.shape[1:]
        factor = self.long_side / max(height, width)
        patch = self.patch_size
        size = [max(round(s * factor / patch), 1) * patch for s in (height, width)]
        resized = F.interpolate(
            image[None].float(),
            size=size,
            mode='bilinear',
            align_corners=False,
            antialias=True,
        )
        return resized[0]

    def _features(self, picture: Tensor) -> Tensor:
        """Return features ``(C, h, w)`` of a picture ``(3, h', w')``, 0..255."""
        mean = picture.new_tensor(self.mean).view(3, 1, 1)
        std = picture.new_tensor(self.std).view(3, 1, 1)
        inputs = (picture - mean) / std
        if self.network is None:
            return F.avg_pool2d(inputs, self.patch_size)
        outputs = self.network.to(picture.device)(inputs[None])
        maps = [part for part in _listed(outputs) if part.ndim == 4]
        return maps[-1][0].cpu()


def _listed(outputs: Any) -> Sequence[Tensor]:
    """Return the outputs of a backbone as a sequence of tensors."""
    outputs = getattr(outputs, 'maps', outputs)
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _network(config: Mapping[str, Any]) -> nn.Module:
    network = MODELS.build(dict(config))
    if getattr(network, 'init_cfg', None):  # weights that its config names
        network.init_weights()
    return network.eval().requires_grad_(False)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring maps ``(M, h, w)`` to a size bilinearly."""
    return F.interpolate(
        maps[None], size=size, mode='bilinear', align_corners=False
    ).squeeze(0)


def mask_iou(masks: Tensor, reference: Tensor) -> Tensor:
    """Return the IoU ``(M,)`` of masks ``(M, H, W)`` with one ``(H, W)``; 0/0 is 0."""
    flat, other = masks.flatten(1), reference.flatten()
    overlap = (flat & other).sum(dim=1)
    union = (flat | other).sum(dim=1)
    return overlap / union.clamp(min=1)


RULES = ('foreground', 'vote')


@MODELS.register_module()
class EigenFusion(PostProcessor):
    r"""Corrects a prediction by eigensegments, without any ground truth.

    ``rule='foreground'``, for predictions of one class against the rest: among all
    masks and their complements the one with the largest IoU with the predicted
    foreground takes its place, if that IoU is at least ``tau``. Otherwise the
    prediction stays. ``rule='vote'``, for scores of any classes: the masks cut the
    image into cells, and a pixel scores the mean of its cell,
    ``(1 - weight) s + weight mean(s)``.

    The released code of SAZS takes the mask with the largest IoU with the *ground
    truth* instead. That is ``FoldIoUMetric(oracle=True)`` here, and no prediction.

    Args:
        proposer: config of a proposer, such as ``dict(type='EigenSegmenter')``, or one.
        rule: ``'foreground'`` or ``'vote'``; the latter needs
            ``test_cfg.return_scores=True``.
        tau: least IoU of ``'foreground'``, in 0..1.
        weight: share of the mean of ``'vote'``, in 0..1.

    Raises:
        ValueError: for an unknown rule or numbers out of range; in a segmentor, if
            ``'foreground'`` meets labels other than 0 and 1.
    """

    def __init__(
        self,
        proposer: Mapping[str, Any] | Proposer,
        *,
        rule: str = 'foreground',
        tau: float = 0.5,
        weight: float = 0.5,
    ) -> None:
        choose('rule', rule, RULES)
        super().__init__('label' if rule == 'foreground' else 'score')
        if not (0 <= tau <= 1 and 0 <= weight <= 1):
            raise ValueError(
                f'EigenFusion.tau and weight must be in 0..1, got {tau} and {weight}'
            )
        self.rule = rule
        self.tau = tau
        self.weight = weight
        built = (
            MODELS.build(dict(proposer)) if isinstance(proposer, Mapping) else proposer
        )
        self.proposer: Proposer = built
        self.needs_meta = built.needs_meta

    def require_classes(self, num_classes: int) -> None:
        """Refuse more than a foreground and a background, unless it votes."""
        if self.rule == 'foreground' and num_classes > 2:
            raise ConfigError(
                "EigenFusion(rule='foreground') of model.post_processors is for masks "
                f"of one class, and gets labels of {num_classes}: set rule='vote' and "
                'model.test_cfg.return_scores=True, or use ClassPromptedSegmentor'
            )

    def forward(
        self,
        prediction: Tensor,
        image: Tensor,
        meta: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Return the label map ``(1, H, W)``, or scores ``(K, H, W)``, corrected."""
        masks = self.proposer(image, meta).to(prediction.device)
        if self.rule == 'vote':
            return self._voted(prediction, masks)
        self.require_classes(int(prediction.max()) + 1)
        best, found = agreeing_mask(masks, prediction[0] == 1, self.tau)
        return prediction if best < 0 else found.to(prediction.dtype)[None]

    def _voted(self, scores: Tensor, masks: Tensor) -> Tensor:
        powers = 2 ** torch.arange(len(masks), device=masks.device)
        cells = (masks.flatten(1).long() * powers[:, None]).sum(dim=0)
        _, cells, sizes = cells.unique(return_inverse=True, return_counts=True)
        flat = scores.flatten(1)
        sums = flat.new_zeros(len(flat), len(sizes)).index_add_(1, cells, flat)
        means = (sums / sizes)[:, cells]
        return ((1 - self.weight) * flat + self.weight * means).view_as(scores)


def agreeing_mask(masks: Tensor, foreground: Tensor, tau: float) -> tuple[int, Tensor]:
    """Choose the mask that agrees best with a predicted foreground.

    Args:
        masks: ``(M, H, W)`` bool; complements are tried as well.
        foreground: ``(H, W)`` bool.
        tau: least IoU.

    Returns:
        the place of the mask among masks and then complements, -1 if none is close
        enough; and what the foreground is then, ``(H, W)`` bool.
    """
    if not len(masks):
        return -1, foreground
    both = torch.cat([masks, ~masks])
    agreement = mask_iou(both, foreground)
    best = int(agreement.argmax())
    if not foreground.any() or agreement[best] < tau:
        return -1, foreground
    return best, both[best]
