"""Eigensegments: planted parts are found, and what corrects predictions by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmseg.registry import MODELS

from zs3_mmseg.models.eigen_segments import (
    DENSE_LIMIT,
    EigenFusion,
    EigenSegmenter,
    clusters,
    laplacian_vectors,
    mask_iou,
    patch_affinity,
    svd_vectors,
)
from zs3_mmseg.models.proposers import Proposer
from zs3_mmseg.utils.cache import CACHE_ENV


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_ENV, str(tmp_path))
    return tmp_path / 'proposals'


def parts(height: int = 64, width: int = 96) -> Tensor:
    """Labels of three parts: left, top right and bottom right, in whole patches."""
    labels = torch.zeros(height, width, dtype=torch.long)
    labels[:, 48:] = 1
    labels[32:, 48:] = 2
    return labels


COLOURS = torch.tensor([[200, 40, 30], [30, 190, 60], [40, 60, 210]])


def painted(labels: Tensor, noise: float = 6.0) -> Tensor:
    """Paint each part in its colour, with noise; (3, H, W) uint8."""
    generator = torch.Generator().manual_seed(0)
    picture = COLOURS[labels].permute(2, 0, 1).float()
    picture += noise * torch.randn(picture.shape, generator=generator)
    return picture.clamp(0, 255).to(torch.uint8)


SMALL: dict[str, Any] = dict(long_side=96, patch_size=8, num_vectors=2)


@pytest.mark.parametrize(
    'options',
    [
        dict(method='laplacian'),
        dict(method='laplacian', affinity='shifted'),
        dict(method='laplacian', colour_weight=10.0),
        dict(method='svd'),
        dict(method='features'),
    ],
    ids=str,
)
def test_planted_parts_are_recovered(options: dict[str, Any]) -> None:
    labels = parts()
    segmenter = EigenSegmenter(segments='clusters', num_segments=3, **SMALL, **options)
    masks = segmenter(painted(labels))
    assert masks.sum(dim=0).eq(1).all(), 'clusters cover the image once'
    found = [mask_iou(masks, labels == part).max() for part in range(3)]
    assert min(found) > 0.97, found


def test_signs_cut_the_image_where_it_falls_apart() -> None:
    labels = (parts() > 0).long()
    masks = EigenSegmenter(long_side=96, patch_size=8, num_vectors=1)(painted(labels))
    both = torch.cat([masks, ~masks])
    # The noise bends the border by less than a patch.
    assert mask_iou(both, labels == 1).max() > 0.9


@pytest.mark.parametrize('seed', range(3))
def test_svd_and_laplacian_agree(seed: int) -> None:
    features = torch.randn(60, 7, generator=torch.Generator().manual_seed(seed))
    values, vectors = laplacian_vectors(patch_affinity(features, 'shifted'), 5)
    thin_values, thin_vectors = svd_vectors(features, 5)
    np.testing.assert_allclose(thin_values, values, atol=1e-12)
    for one, other in zip(vectors, thin_vectors, strict=True):
        sign = np.sign(one @ other)
        np.testing.assert_allclose(sign * one, other, atol=1e-9)


@pytest.mark.parametrize('normalised', [True, False])
def test_large_graphs_have_the_same_vectors(
    normalised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
    weights = patch_affinity(features)
    values, vectors = laplacian_vectors(weights, 4, normalised=normalised)
    assert len(weights) <= DENSE_LIMIT
    monkeypatch.setattr('zs3_mmseg.models.eigen_segments.DENSE_LIMIT', 100)
    found, others = laplacian_vectors(weights, 4, normalised=normalised)
    np.testing.assert_allclose(found, values, atol=1e-8 * max(values.max(), 1))
    overlap = np.abs((vectors * others).sum(1)) / (
        np.linalg.norm(vectors, axis=1) * np.linalg.norm(others, axis=1)
    )
    np.testing.assert_allclose(overlap, 1, atol=1e-8)


def test_clusters_see_neither_signs_nor_rotations() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 3))
    points = centres[rng.integers(0, 4, 50)] + 0.01 * rng.normal(size=(50, 3))
    labels = clusters(points.T, 4)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    for changed in (points * [1, -1, -1], points @ turn):
        assert np.array_equal(clusters(changed.T, 4), labels)


def test_masks_do_not_depend_on_other_images() -> None:
    pictures = [painted(parts(), noise) for noise in (3.0, 30.0)]
    alone = [EigenSegmenter(**SMALL, cache=False)(picture) for picture in pictures]
    together = EigenSegmenter(**SMALL, cache=False)
    for picture, masks in zip(pictures[::-1], alone[::-1], strict=True):
        assert torch.equal(together(picture), masks)


def test_options_and_weights_are_part_of_the_fingerprint() -> None:
    network = dict(
        type='TIMMBackbone',
        model_name='vit_tiny_patch16_224',
        features_only=True,
        pretrained=False,
        img_size=32,
        depth=1,
        embed_dim=12,
        num_heads=2,
        dynamic_img_size=True,
        out_indices=[0],
    )
    made = [
        EigenSegmenter(**SMALL),
        EigenSegmenter(**SMALL, method='svd'),
        EigenSegmenter(**SMALL, centre=False),
        EigenSegmenter(network, **SMALL),
        EigenSegmenter(network, **SMALL),  # other random weights
    ]
    assert len({segmenter.fingerprint for segmenter in made}) == len(made)
    assert EigenSegmenter(**SMALL).fingerprint == made[0].fingerprint
    masks = EigenSegmenter(network, long_side=96)(painted(parts()))
    assert masks.shape == (5, 64, 96)


def test_features_of_clip() -> None:
    tower = dict(type='OpenCLIPViT', arch='zs3-shapes-tiny', pretrained='shapes')
    options: dict[str, Any] = dict(
        long_side=96,
        patch_size=8,
        num_vectors=2,
        segments='clusters',
        num_segments=3,
        mean=(122.8, 116.7, 104.1),
        std=(68.5, 66.6, 70.3),
    )
    labels = parts()
    masks = EigenSegmenter(tower, **options)(painted(labels))
    assert masks.sum(dim=0).eq(1).all()
    found = [mask_iou(masks, labels == part).max() for part in range(3)]
    assert min(found) > 0.5, found


def test_only_what_is_in_the_cache(cache: Path) -> None:
    picture = painted(parts())
    reader = EigenSegmenter(**SMALL, computes=False)
    with pytest.raises(FileNotFoundError, match='no eigensegments of this image'):
        reader(picture)
    masks = EigenSegmenter(**SMALL)(picture)
    assert torch.equal(reader(picture), masks)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(method='laplace'), "Did you mean 'laplacian'"),
        (dict(features='color'), "Did you mean 'colour'"),
        (dict(num_vectors=0), 'num_vectors >= 1'),
        (dict(method='svd', colour_weight=1.0), "method='laplacian' only"),
        (dict(computes=False, cache=False), 'leave out cache=False'),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EigenSegmenter(**options)


def test_images_with_too_few_patches() -> None:
    segmenter = EigenSegmenter(long_side=16, patch_size=16)
    with pytest.raises(
        ValueError, match='9 x 8 pixels has 1 patches, and num_vectors=5'
    ):
        segmenter(torch.zeros(3, 8, 9, dtype=torch.uint8))


# ---------------------------------------------------------------------------- fusion


class Given(Proposer):
    """Masks that are given."""

    def __init__(self, masks: Tensor) -> None:
        super().__init__(cache=False)
        self.masks = masks

    @property
    def fingerprint(self) -> str:
        return 'given'

    def propose(self, image: Tensor) -> Tensor:
        return self.masks


def square(top: int, left: int, side: int, size: int = 12) -> Tensor:
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


IMAGE = torch.zeros(3, 12, 12)
MASKS = torch.stack([square(2, 2, 6), square(0, 0, 2), ~square(6, 6, 6)])


@pytest.mark.parametrize(
    ('predicted', 'expected'),
    [
        (square(2, 2, 5), MASKS[0]),  # IoU 25/36 with the first mask
        (square(6, 6, 5), ~MASKS[2]),  # with the complement of the last
        (square(8, 0, 3), square(8, 0, 3)),  # with none
        (square(0, 0, 0), square(0, 0, 0)),  # nothing predicted
    ],
)
def test_the_mask_that_agrees_with_the_prediction(
    predicted: Tensor, expected: Tensor
) -> None:
    for masks in (MASKS, ~MASKS):  # the signs of vectors mean nothing
        fusion = EigenFusion(Given(masks))
        fused = fusion(predicted.long()[None], IMAGE)
        assert fused.dtype == torch.long
        assert torch.equal(fused[0] == 1, expected)


def test_votes_stay_within_cells() -> None:
    scores = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0))
    fusion = EigenFusion(Given(MASKS[:1]), rule='vote', weight=1.0)
    assert fusion.space == 'score'
    voted = fusion(scores, IMAGE)
    for cell in (MASKS[0], ~MASKS[0]):
        expected = scores[:, cell].mean(dim=1, keepdim=True)
        assert torch.allclose(voted[:, cell], expected.expand(-1, int(cell.sum())))
    half = EigenFusion(Given(MASKS[:1]), rule='vote', weight=0.0)
    assert torch.equal(half(scores, IMAGE), scores)


def test_maps_of_several_classes_are_no_foreground() -> None:
    labels = torch.full((1, 12, 12), 2)
    with pytest.raises(ValueError, match="set rule='vote'"):
        EigenFusion(Given(MASKS))(labels, IMAGE)


def test_it_is_built_from_a_config() -> None:
    fusion = MODELS.build(
        dict(type='EigenFusion', proposer=dict(type='EigenSegmenter'))
    )
    assert isinstance(fusion.proposer, EigenSegmenter)
