"""The visualizer that mmseg's hooks and tools call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmengine.structures import PixelData
from mmseg.registry import VISUALIZERS
from mmseg.structures import SegDataSample

from zs3_mmseg.utils.image_io import read_image
from zs3_mmseg.visualization import ZeroShotLocalVisualizer

META = {'classes': ('cat', 'dog'), 'palette': [[250, 0, 0], [0, 120, 0]]}


def sample(*keys: str, size: tuple[int, int] = (30, 40)) -> SegDataSample:
    labels = torch.zeros(1, *size, dtype=torch.long)
    labels[:, : size[0] // 2] = 1
    labels[:, 0, 0] = 255
    return SegDataSample(**{key: PixelData(data=labels) for key in keys})


@pytest.fixture
def visualizer(request: pytest.FixtureRequest) -> ZeroShotLocalVisualizer:
    # Visualizers are global, one for each name.
    built = VISUALIZERS.build(
        {'type': 'ZeroShotLocalVisualizer', 'name': request.node.name}
    )
    built.dataset_meta = META
    return built


def test_truth_and_prediction_stand_side_by_side(
    visualizer: ZeroShotLocalVisualizer, tmp_path: Path
) -> None:
    image = np.full((300, 400, 3), 90, dtype=np.uint8)
    both = sample('gt_sem_seg', 'pred_sem_seg', size=(300, 400))
    target = tmp_path / 'a.png'
    visualizer.add_datasample(
        'one', image, both, out_file=str(target), with_labels=False
    )
    drawn = read_image(target)
    assert drawn.shape == (300, 2 * 400 + 8, 3)
    np.testing.assert_array_equal(drawn[:, :400], drawn[:, 408:])
    np.testing.assert_array_equal(drawn, visualizer.get_image())


def test_unseen_classes_of_the_data_set_are_hatched(
    visualizer: ZeroShotLocalVisualizer, tmp_path: Path
) -> None:
    image = np.full((300, 400, 3), 90, dtype=np.uint8)
    pictures = []
    for unseen in ((), (1,)):
        visualizer.dataset_meta = {**META, 'unseen': unseen}
        visualizer.add_datasample(
            'one',
            image,
            sample('pred_sem_seg', size=(300, 400)),
            out_file=str(tmp_path / 'a.png'),
            with_labels=False,
        )
        pictures.append(visualizer.get_image())
    changed = (pictures[0] != pictures[1]).any(axis=2)
    assert changed[:150].mean() > 0.1
    assert not changed[152:].any()


def test_without_names_a_picture_keeps_its_size(
    visualizer: ZeroShotLocalVisualizer, tmp_path: Path
) -> None:
    image = np.zeros((30, 40, 3), dtype=np.uint8)
    target = str(tmp_path / 'a.png')
    visualizer.add_datasample(
        'one', image, sample('pred_sem_seg'), out_file=target, with_labels=False
    )
    assert visualizer.get_image().shape == (30, 40, 3)
    visualizer.add_datasample('one', image, sample('pred_sem_seg'), out_file=target)
    assert visualizer.get_image().shape[1] == 9 * 40


def test_titles_and_legend_stand_around_the_pictures(
    visualizer: ZeroShotLocalVisualizer, tmp_path: Path
) -> None:
    image = np.full((300, 400, 3), 90, dtype=np.uint8)
    both = sample('gt_sem_seg', 'pred_sem_seg', size=(300, 400))
    target = str(tmp_path / 'a.png')
    visualizer.add_datasample('one', image, both, out_file=target, with_image=True)
    drawn = visualizer.get_image()
    assert drawn.shape[1] == 3 * 400 + 2 * 8
    top = int(np.flatnonzero((drawn[:, 0] == 90).all(axis=1))[0])
    np.testing.assert_array_equal(drawn[top : top + 300, :400], image)
    for strip in (drawn[:top], drawn[top + 300 :]):
        assert strip.min() < 60  # there is text


def test_without_labels_the_picture_itself_is_saved(
    visualizer: ZeroShotLocalVisualizer, tmp_path: Path
) -> None:
    image = np.full((300, 400, 3), 90, dtype=np.uint8)
    target = tmp_path / 'a.png'
    visualizer.add_datasample('one', image, SegDataSample(), out_file=str(target))
    np.testing.assert_array_equal(read_image(target), image)


def test_masks_of_a_named_class_have_its_colour(
    visualizer: ZeroShotLocalVisualizer,
) -> None:
    image = np.full((300, 400, 3), 90, dtype=np.uint8)
    mask = sample('pred_sem_seg', size=(300, 400))
    mask.set_metainfo(dict(prompt_class=0))
    visualizer.alpha = 1.0
    visualizer.add_datasample('mask', image, mask, with_labels=False)
    drawn = visualizer.get_image()
    np.testing.assert_array_equal(drawn[75, 200], META['palette'][0])
    np.testing.assert_array_equal(drawn[225, 200], [0, 0, 0])


def test_the_mask_of_a_single_class_wears_its_colour(
    visualizer: ZeroShotLocalVisualizer, tmp_path: Path
) -> None:
    visualizer.dataset_meta = {'classes': ('cat',), 'palette': [[250, 0, 0]]}
    visualizer.alpha = 1
    image = np.full((30, 40, 3), 90, dtype=np.uint8)
    target = tmp_path / 'a.png'
    visualizer.add_datasample(
        'one', image, sample('pred_sem_seg'), out_file=str(target), with_labels=False
    )
    drawn = read_image(target)
    assert (drawn[5, 20] == [250, 0, 0]).all()  # where the mask is 1
    assert not (drawn[25, 20] == [250, 0, 0]).all()


def test_pictures_of_long_names_are_kept(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    built = VISUALIZERS.build(
        {
            'type': 'ZeroShotLocalVisualizer',
            'name': request.node.name,
            'vis_backends': [{'type': 'LocalVisBackend'}],
            'save_dir': str(tmp_path),
        }
    )
    built.dataset_meta = META
    image = np.full((30, 40, 3), 90, dtype=np.uint8)
    # What mmseg's hook makes of a file name of 255 letters.
    built.add_datasample('test_' + 'x' * 251 + '.png', image, sample('pred_sem_seg'))
    (kept,) = tmp_path.rglob('*.png')
    assert kept.name.startswith('test_xxx')
