"""Masks of COCO's format against pixels that are asked one by one."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from zs3_mmseg.datasets.preparation import PreparationError
from zs3_mmseg.datasets.preparation.labels import decode_mask, image_size


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_run_lengths_of_both_kinds(
    height: int, width: int, data: st.DataObject
) -> None:
    flat = data.draw(st.lists(st.booleans(), min_size=height * width).map(tuple))
    mask = np.array(flat[: height * width]).reshape(height, width)
    compressed = coco.encode(np.asfortranarray(mask, np.uint8))
    changes = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False, append=True))
    borders = [0, *changes.tolist()]
    if mask.T.flat[-1]:
        borders.append(mask.size)
    plain = dict(size=[height, width], counts=np.diff(borders).tolist())
    text = dict(size=[height, width], counts=compressed['counts'].decode())
    for runs in (text, plain):
        assert (decode_mask(runs, height, width, '') == mask).all()


def test_polygons_are_joined() -> None:
    line = [0, 3, 6, 3]  # two corners are no polygon, nor corner and size of a box
    two = [line, [0, 0, 2, 0, 2, 2, 0, 2], [4, 1, 6, 1, 6, 3, 4, 3]]
    expected = np.zeros((4, 7), bool)
    expected[0:2, 0:2] = expected[1:3, 4:6] = True
    assert (decode_mask(two, 4, 7, '') == expected).all()
    assert not decode_mask([line], 4, 7, '').any()


@pytest.mark.parametrize(
    'segmentation',
    [
        dict(size=[3, 4], counts=[20]),
        dict(size=[5, 4], counts=[5, 40]),
        dict(counts=[20]),
        dict(size=[5, 4], counts='\x7f' * 9),
        [[0, 0, 3, 0, 3]],
        [[0, 0, 3, 0, 3, float('nan')]],
        [[0, 0, 3, 0, 1e5, 2]],
        [['a', 'b', 'c', 'd', 'e', 'f']],
        'abc',
        3,
    ],
    ids=str,
)
def test_what_is_no_mask_is_named(segmentation: object) -> None:
    with pytest.raises(PreparationError, match='image 7'):
        decode_mask(segmentation, 5, 4, 'image 7')


@given(
    st.text(st.characters(min_codepoint=40, max_codepoint=125)),
    *[st.integers(1, 20)] * 2,
)
def test_damaged_strings_never_crash(counts: str, height: int, width: int) -> None:
    runs = dict(size=[height, width], counts=counts)
    with contextlib.suppress(PreparationError):
        assert decode_mask(runs, height, width, '').shape == (height, width)


@pytest.mark.parametrize(
    'size', [(10**6, 10**6), (0, 5), (5, -1), (None, 5), ('5', 5)], ids=str
)
def test_sizes_that_no_image_has_are_refused(size: tuple) -> None:
    with pytest.raises(PreparationError, match='image 7'):
        image_size(dict(height=size[0], width=size[1]), 'image 7')
