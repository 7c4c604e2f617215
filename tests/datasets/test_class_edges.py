"""Targets of an edge head, and the PIL transforms beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zs3_mmseg.datasets.class_edges import GenerateClassEdges, class_edges
from zs3_mmseg.datasets.pil_transforms import PILRandomRotate, PILRandomScale


def near_other_side(
    labels: np.ndarray, label: int, radius: float, border: bool
) -> np.ndarray:
    """Where a label's mask and its complement are both near, pixel by pixel."""
    height, width = labels.shape
    out = np.zeros(labels.shape, bool)
    reach = int(radius)
    for y in range(height):
        for x in range(width):
            inside = labels[y, x] == label
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    if dy * dy + dx * dx > radius * radius:
                        continue
                    there = (y + dy, x + dx)
                    if 0 <= there[0] < height and 0 <= there[1] < width:
                        out[y, x] |= (labels[there] == label) != inside
                    elif border:
                        out[y, x] |= inside
    return out


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 1.5, 2, 3]),
    st.booleans(),
)
def test_edges_are_near_both_sides(seed: int, radius: float, border: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.repeat(rng.integers(0, 3, (3, 4)), 4, 0), 3, 1)
    expected = np.zeros(labels.shape, bool)
    for label in range(3):
        expected |= near_other_side(labels, label, radius, border)
    found = class_edges(labels, range(3), radius=radius, border=border)
    assert np.array_equal(found > 0, expected)


LABELS = np.zeros((12, 20), np.uint8)
LABELS[:, 6:] = 1
LABELS[:, 13:] = 255


def edges_of(**options: Any) -> np.ndarray:
    results = dict(gt_seg_map=LABELS.copy(), seg_fields=['gt_seg_map'])
    return GenerateClassEdges(**options).transform(results)['gt_edge_map']


@pytest.mark.parametrize(
    ('options', 'row'),
    [
        # The contour lies between columns 5 and 6, void begins at 13.
        ({}, '....1111...xxxxxxxxx'),
        (dict(void_edges='contour'), '....1111...1111.....'),
        (dict(void_edges='contour', unlisted=(1,)), '....1111............'),
        (dict(void_edges='contour', border=True), '11..1111...1111.....'),
    ],
)
def test_options_of_edges(options: dict[str, Any], row: str) -> None:
    values = {'.': 0, '1': 1, 'x': 255}
    assert edges_of(**options)[6].tolist() == [values[c] for c in row]


def test_classes_beside_the_mask_are_read_and_taken_away() -> None:
    classes = np.zeros((8, 8), np.uint8)
    classes[:, 4:] = 3
    results: dict[str, Any] = dict(
        # Padded by mmcv, which does not know the labels of classes.
        gt_seg_map=np.pad(np.zeros((8, 8), np.uint8), ((0, 2), (0, 0))),
        gt_class_map=classes,
        seg_fields=['gt_seg_map', 'gt_class_map'],
    )
    results = GenerateClassEdges().transform(results)
    assert results['seg_fields'] == ['gt_seg_map']
    assert 'gt_class_map' not in results
    edges = results['gt_edge_map']
    assert edges.shape == (10, 8)
    assert edges[2].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    assert (edges[6:] == 255).all()


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: GenerateClassEdges(radius=0.5), 'radius must be >= 1'),
        (lambda: GenerateClassEdges(void_edges='ignored'), "Did you mean 'ignore'"),
        (lambda: PILRandomRotate(60), 'degree must be in 0..45'),
        (lambda: PILRandomScale((2.0, 1.0)), 'two ascending factors'),
    ],
)
def test_options_that_make_no_sense(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_pil_transforms_change_all_label_maps_alike() -> None:
    labels = torch.randint(0, 5, (20, 31)).byte().numpy()
    results: dict[str, Any] = dict(
        img=np.repeat(labels[..., None] * 40, 3, axis=2),
        gt_seg_map=labels,
        gt_class_map=labels.copy(),
        seg_fields=['gt_seg_map', 'gt_class_map'],
    )
    results = PILRandomScale((1.5, 1.5))(PILRandomRotate(8)(results))
    assert results['img'].shape == (30, 46, 3)
    assert results['img_shape'] == (30, 46)
    assert np.array_equal(results['gt_seg_map'], results['gt_class_map'])
