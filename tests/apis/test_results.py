"""Results as polygons, COCO, files and streams."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib.path import Path as Polygon
from PIL import Image
from pycocotools import mask as coco

from zs3_mmseg.apis import Segmentation
from zs3_mmseg.apis.inputs import list_pictures
from zs3_mmseg.apis.regions import Ring, find_regions, run_lengths

MASKS = arrays.arrays(
    bool, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.booleans()
)


def inside(ring: Ring, shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels whose centres are inside a ring."""
    rows, columns = np.indices(shape)
    centres = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    return Polygon([*ring, ring[0]]).contains_points(centres).reshape(shape)


def signed_area(ring: Ring) -> float:
    x, y = np.array(ring, float).T
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


@given(MASKS)
def test_polygons_are_the_mask(mask: np.ndarray) -> None:
    regions = find_regions(mask)
    covered = np.zeros(mask.shape, int)
    area = 0.0
    for region in regions:
        rings = (region.outline, *region.holes)
        sides = [
            pair
            for ring in rings
            for pair in zip(ring, ring[1:] + ring[:1], strict=True)
        ]
        assert all(a[0] == b[0] or a[1] == b[1] for a, b in sides)
        area += signed_area(region.outline) - sum(map(signed_area, region.holes))
        covered += inside(region.outline, mask.shape)
        for hole in region.holes:
            covered -= inside(hole, mask.shape)
    assert area == mask.sum()
    np.testing.assert_array_equal(covered, mask)
    assert len(regions) == cv2.connectedComponents(mask.astype(np.uint8))[0] - 1


@given(MASKS)
def test_run_lengths_are_those_of_coco(mask: np.ndarray) -> None:
    height, width = mask.shape
    code = {'size': [height, width], 'counts': run_lengths(mask)}
    decoded = coco.decode(coco.frPyObjects(code, height, width))
    np.testing.assert_array_equal(decoded, mask)


def result(**changes: Any) -> Segmentation:
    labels = np.zeros((4, 6), np.uint8)
    labels[1:3, 2:5] = 1
    labels[3, 0] = 255
    given: dict[str, Any] = dict(
        image=np.full((4, 6, 3), 99, np.uint8),
        labels=labels,
        classes=('sea|water', 'boat', 'star'),
        palette=((0, 0, 9), (9, 0, 0), (9, 9, 0)),
        source='/somewhere/a.png',
    )
    return Segmentation(**(given | changes))


def test_coco_has_what_occurs() -> None:
    made = json.loads(json.dumps(result().to_coco(image_id=7)))
    assert [c['name'] for c in made['categories']] == ['sea', 'boat', 'star']
    sea, boat = made['annotations']
    assert (sea['category_id'], boat['category_id'], boat['image_id']) == (1, 2, 7)
    assert (boat['bbox'], boat['area'], sea['area']) == ([2, 1, 3, 2], 6, 17)


def test_polygons_carry_names() -> None:
    features = json.loads(json.dumps(result().to_geojson()))['features']
    sea, boat = features
    assert [f['properties']['name'] for f in features] == ['sea', 'boat']
    (ring,) = boat['geometry']['coordinates']
    assert sorted(map(tuple, ring[:-1])) == [(2, 1), (2, 3), (5, 1), (5, 3)]
    assert ring[0] == ring[-1]
    assert len(sea['geometry']['coordinates']) == 2  # with a hole


def test_a_mask_of_one_class_is_its_region() -> None:
    labels = np.zeros((4, 6), np.uint8)
    labels[0, 0] = 1
    alone = result(labels=labels, classes=('boat',), palette=((9, 0, 0),))
    (region,) = alone.regions()
    assert sorted(region.outline) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_files_are_named_by_the_source(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random((3, 4, 6), np.float32)
    made = result(scores=scores).save(tmp_path)
    assert sorted(path.name for path in made) == [
        *('a.json', 'a_heat.png', 'a_labels.png', 'a_overlay.png')
    ]
    assert all(path.is_file() for path in made)
    assert len(result(source=None).save(tmp_path)) == 3
    assert (tmp_path / 'picture_labels.png').is_file()


def test_notebooks_show_the_overlay() -> None:
    shown = Image.open(io.BytesIO(result()._repr_png_()))
    np.testing.assert_array_equal(np.asarray(shown), result().draw())


def test_heat_maps_need_scores() -> None:
    with pytest.raises(ValueError, match='return_scores=True'):
        result().draw_heat_maps()


def test_batches_are_taken_apart() -> None:
    batch = torch.rand(3, 3, 8, 9)
    listed = list_pictures([batch, np.zeros((2, 8, 9, 3), np.uint8)])
    assert [tuple(item.shape) for item in listed] == [(3, 8, 9)] * 3 + [(8, 9, 3)] * 2
