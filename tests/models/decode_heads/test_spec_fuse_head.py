"""SpecFuse: what each box does, and that an untrained head is the training-free one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads import DenseTextHead, SpecFuseHead
from zs3_mmseg.models.decode_heads.spec_fuse_head import (
    edge_target,
    intervening_contours,
)
from zs3_mmseg.models.eigen_segments import soft_clusters
from zs3_mmseg.models.segmentors.input_image import InputImage

WIDTHS = (6, 6, 6, 6, 5)
OPTIONS = dict(
    in_index=[0, 1, 2, 3, 4],
    channels=16,
    affinity_channels=4,
    num_vectors=3,
    num_segments=4,
    scale=20.0,
    pairs=64,
)
FREE = dict(delineator=None, fusion=None, train_affinity=False)


def head_with(**changes):
    torch.manual_seed(0)
    options = {**OPTIONS, 'delineator': dict(channels=8, stem_channels=4), **changes}
    return SpecFuseHead(WIDTHS, **options).eval()


def maps_of(size=(6, 8), images=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(images, c, *size, generator=generator) for c in WIDTHS)


def image_of(size=(48, 64), images=2, valid=None, seed=1):
    generator = torch.Generator().manual_seed(seed)
    pixels = 255 * torch.rand(images, 3, *size, generator=generator)
    sizes = torch.tensor([size] * images if valid is None else valid)
    return InputImage(pixels, sizes, pixels, sizes, (None,), ({},) * images)


@pytest.fixture
def queries():
    return ClassQueries(
        torch.randn(4, 5, generator=torch.Generator().manual_seed(2)),
        torch.tensor([0, 1, 1, 2]),
        torch.tensor([True, True, False]),
    )


def logits_of(head, queries, maps=None, image=None):
    token = torch.ones(2, 5)
    with torch.no_grad():
        return head.query_logits(
            maps or maps_of(),
            queries=queries,
            global_token=token,
            image=image or image_of(),
        )


@pytest.mark.parametrize('spectral', ['laplacian', 'svd'])
@pytest.mark.parametrize('fusion', ['residual', 'score'])
def test_an_untrained_head_is_the_training_free_one(queries, spectral, fusion):
    free = logits_of(head_with(spectral=spectral, **FREE), queries)
    full = logits_of(head_with(spectral=spectral, fusion=fusion), queries)
    assert torch.equal(full, free)


def test_without_boxes_it_is_dense_clip(queries):
    bare = head_with(spectral=None, fusion=None, vote=0, delineator=None)
    dense = DenseTextHead(5, scale=20.0)
    expected = dense.query_logits(maps_of(), queries=queries)
    assert torch.equal(logits_of(bare, queries), expected)


@pytest.mark.parametrize(
    'off',
    [
        dict(delineator=None),
        dict(spectral=None, vote=0),
        dict(fusion=None),
        dict(vote=0.0),
        dict(kappa=0.0),
        dict(train_affinity=False),
        dict(shuffle_segments=True),
    ],
    ids=str,
)
def test_each_box_makes_a_difference_once_trained(queries, off):
    def trained(**changes):
        head = head_with(**changes)
        state = head.state_dict()
        for key, value in state.items():
            if value.is_floating_point():
                seed = sum(map(ord, key))
                generator = torch.Generator().manual_seed(seed)
                value.copy_(torch.randn(value.shape, generator=generator))
        return head

    assert not torch.equal(
        logits_of(trained(), queries), logits_of(trained(**off), queries)
    )


def test_the_vote_averages_within_segments(queries):
    head = head_with(vote=0.25, **FREE)
    outputs, segments = head.compute(maps_of(), queries, None, image_of())
    shares = outputs.logits.softmax(dim=1)
    expected = torch.zeros_like(shares)
    for n, q in itertools.product(range(2), range(4)):
        for m in range(4):
            part = segments[n, m]
            mean = (part * shares[n, q]).sum() / part.sum()
            expected[n, q] += part * mean
    expected = 0.75 * shares + 0.25 * expected
    torch.testing.assert_close(logits_of(head, queries).exp(), expected)


# ------------------------------------------------------------------------- segments


def test_neither_signs_nor_rotations_of_vectors_matter():
    vectors = np.random.default_rng(0).normal(size=(4, 60))
    found = soft_clusters(vectors, 5, 0.1)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    turned = ortho_group(4, seed=1).rvs() @ vectors
    for others in (-vectors, vectors[::-1], turned):
        np.testing.assert_allclose(soft_clusters(others, 5, 0.1), found, atol=1e-6)


@pytest.mark.parametrize('spectral', ['laplacian', 'svd'])
def test_planted_regions_are_recovered(spectral):
    head = head_with(spectral=spectral, num_vectors=2, num_segments=3, **FREE)
    regions = torch.zeros(9, 12, dtype=torch.long)
    regions[:4, 6:], regions[5:, 2:9] = 1, 2
    generator = torch.Generator().manual_seed(0)
    colours = torch.eye(6)[:3] + 0.05 * torch.randn(3, 6, generator=generator)
    features = colours[regions].permute(2, 0, 1)[None]
    features = features + 0.1 * torch.randn(features.shape, generator=generator)
    valid = torch.ones(1, 9, 12, dtype=torch.bool)
    affine = head.affinity_features([features] * 4, valid)
    found = head.segments(affine, None, valid)[0].argmax(dim=0)
    pairs = set(zip(found.flatten().tolist(), regions.flatten().tolist(), strict=True))
    assert len(pairs) == 3


def test_an_edge_parts_what_looks_alike():
    head = head_with(num_vectors=1, num_segments=2)
    affine = torch.ones(1, 6, 6, 9) / 6**0.5
    strength = torch.zeros(1, 1, 6, 9)
    strength[..., 4] = 1
    valid = torch.ones(1, 6, 9, dtype=torch.bool)
    found = head.segments(affine, strength, valid)[0].argmax(dim=0)
    assert (found[:, :4] == found[0, 0]).all()
    assert (found[:, 5:] == 1 - found[0, 0]).all()


def test_contours_are_the_strongest_edge_in_between():
    strength = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    found = intervening_contours(strength, radius=2)
    places = list(itertools.product(range(4), range(5)))
    for (i, a), (j, b) in itertools.product(enumerate(places), repeat=2):
        if max(abs(a[0] - b[0]), abs(a[1] - b[1])) > 2:
            assert found[i, j] == 0
            continue
        values = []
        for step in np.linspace(0, 1, 5):
            y, x = (p + step * (q - p) for p, q in zip(a, b, strict=True))
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, 3), min(x0 + 1, 4)
            top = strength[y0, x0] * (1 - x + x0) + strength[y0, x1] * (x - x0)
            low = strength[y1, x0] * (1 - x + x0) + strength[y1, x1] * (x - x0)
            values.append(float(top * (1 - y + y0) + low * (y - y0)))
        assert found[i, j] == pytest.approx(max(values), abs=1e-5)


def test_padding_and_other_images_change_nothing(queries):
    """An image alone, beside another one, and with padding below and to the right."""
    head = head_with()
    maps, image = maps_of(), image_of()
    alone = logits_of(head, queries, tuple(m[:1] for m in maps), image_of(images=1))
    both = logits_of(head, queries, maps, image)
    torch.testing.assert_close(alone, both[:1])
    padded = tuple(torch.nn.functional.pad(m, (0, 2, 0, 3)) for m in maps)
    pixels = torch.nn.functional.pad(image.pixels, (0, 16, 0, 24))
    larger = InputImage(pixels, image.valid, pixels, image.valid, (None,), ({}, {}))
    found = logits_of(head, queries, padded, larger)[..., :6, :8]
    torch.testing.assert_close(found, both)


# --------------------------------------------------------------------------- losses


def samples(labels):
    return [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in labels]


def outputs_of(head, queries):
    token = torch.ones(2, 5)
    return head.training_outputs(
        maps_of(), queries=queries, image=image_of(), global_token=token
    )


def test_every_part_learns(queries):
    head = head_with().train()
    labels = torch.zeros(2, 48, 64, dtype=torch.long)
    labels[:, 20:, 30:] = 1
    outputs = outputs_of(head, queries)
    assert outputs.logits.shape[1] == 3
    losses = head.loss_by_feat(outputs, samples(labels))
    assert losses['loss_anchor'].item() == pytest.approx(0, abs=1e-6)
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    for layer in (head.delineator.edge, head.affinity[1], head.mlp[-1]):
        assert layer.weight.grad.abs().sum() > 0


def test_images_without_labels_are_no_accident(queries):
    head = head_with().train()
    labels = torch.full((2, 48, 64), 255)
    losses = head.loss_by_feat(outputs_of(head, queries), samples(labels))
    assert all(torch.isfinite(value).all() for value in losses.values())


def test_edges_and_affinity_come_first(queries):
    head = head_with(warmup_iters=1).train()
    labels = torch.zeros(2, 48, 64, dtype=torch.long)
    labels[:, 20:, 30:] = 1
    first, second = (
        head.loss_by_feat(outputs_of(head, queries), samples(labels)) for _ in range(2)
    )
    assert first['loss_ce'] == 0 < second['loss_ce']
    assert first['loss_edge'] > 0 < first['loss_pair']


def test_edges_are_where_labels_change():
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    labels[..., 8:] = 1
    found = edge_target(labels, (16, 16), 255)
    assert found[0, 0].tolist() == [0] * 5 + [1] * 6 + [0] * 5
    labels[..., 15] = 255
    found = edge_target(labels, (16, 16), 255)
    assert found[0, 0, 13:].tolist() == [255] * 3
    assert edge_target(labels, (4, 4), 255)[0, 0].tolist() == [0, 1, 1, 255]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(spectral='eig'), 'spectral must be one of'),
        (dict(fusion='mlp'), 'fusion must be one of'),
        (dict(vote=1.5), 'vote and kappa must be in 0..1'),
        (dict(num_segments=1), 'num_segments >= 2'),
        (dict(spectral=None), 'there is no vote'),
        (dict(fusion=None, vote=0), 'nothing reads the segments'),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        head_with(**options)


def test_scores_need_the_token_of_the_image(queries):
    with pytest.raises(ValueError, match='out_global=True'):
        head_with(fusion='score').compute(maps_of(), queries, None, image_of())
