"""The inferencer around a segmentor: geometry, colours, files and names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from mmengine.config import Config
from mmengine.structures import PixelData

from zs3_mmseg.apis import OutputNames, ZeroShotInferencer
from zs3_mmseg.apis.segmentation import written_files
from zs3_mmseg.models.segmentors.vocabulary import ClassList
from zs3_mmseg.utils.cache import atomic_write
from zs3_mmseg.utils.image_io import ImageReadError
from zs3_mmseg.utils.palette import default_palette


class StrongestChannel(nn.Module):
    """A segmentor whose class is the strongest of red, green and blue.

    It takes BGR as mmcv reads it and returns maps at the original size, so that
    swapped channels, sides or sizes anywhere around it show in the result.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.patch_size = 8
        resize = {'type': 'Resize', 'scale': (400, 32), 'keep_ratio': True}
        self.cfg = Config({'test_pipeline': [resize, {'type': 'PackSegInputs'}]})
        self.set_classes(['red', 'green', 'blue|azure'], ['green'])

    def set_classes(self, names: list[str], unseen: list[str] | None) -> None:
        seen = tuple(name not in (unseen or names) for name in names)
        self.vocabulary = ClassList(tuple(names), seen, default_palette(len(names)))

    def test_step(self, data: dict) -> list:
        sample = data['data_samples'][0]
        rgb: Tensor = data['inputs'][0].flip(0).float()
        scores = F.interpolate(rgb[None], size=sample.ori_shape, mode='nearest')[0]
        if len(self.vocabulary.names) == 1:
            labels = (scores[:1] > 128).long()
        else:
            labels = scores.argmax(dim=0, keepdim=True)
        sample.pred_sem_seg = PixelData(data=labels)
        return [sample]


def quarters(height: int = 40, width: int = 60) -> np.ndarray:
    """Return red on the left, green at the top right, blue below it."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[:, : width // 2, 0] = 255
    image[: height // 2, width // 2 :, 1] = 255
    image[height // 2 :, width // 2 :, 2] = 255
    return image


def expected(height: int = 40, width: int = 60) -> np.ndarray:
    return quarters(height, width).argmax(axis=2)


@pytest.fixture
def inferencer() -> ZeroShotInferencer:
    return ZeroShotInferencer(StrongestChannel())


def test_labels_have_the_original_size_and_place(
    inferencer: ZeroShotInferencer, tmp_path: Path
) -> None:
    for size in ((40, 60), (400, 600), (40, 8)):
        Image.fromarray(quarters(*size)).save(tmp_path / 'a.png')
        result = inferencer(tmp_path / 'a.png')
        assert result['visualization'] == []
        np.testing.assert_array_equal(
            result['predictions'][0]['labels'], expected(*size)
        )


def test_arrays_give_what_their_files_give(inferencer: ZeroShotInferencer) -> None:
    rgb = inferencer(quarters())['predictions'][0]['labels']
    bgr = inferencer(quarters()[..., ::-1], channel_order='bgr')
    np.testing.assert_array_equal(rgb, expected())
    np.testing.assert_array_equal(bgr['predictions'][0]['labels'], expected())


def test_predictions_name_classes_and_shares(inferencer: ZeroShotInferencer) -> None:
    first, second, third = inferencer(quarters())['predictions'][0]['classes']
    assert (first['name'], first['seen'], first['share']) == ('red', True, 0.5)
    assert (second['seen'], second['pixels']) == (False, 600)
    assert (third['name'], third['synonyms']) == ('blue', ['blue', 'azure'])


def test_lists_keep_their_order(inferencer: ZeroShotInferencer) -> None:
    result = inferencer([quarters(), quarters(9, 9)], return_vis=True)
    shapes = [found['labels'].shape for found in result['predictions']]
    assert shapes == [(40, 60), (9, 9)]
    assert len(result['visualization']) == 2


def test_data_samples_are_given_on_request(inferencer: ZeroShotInferencer) -> None:
    sample = inferencer(quarters(), return_datasamples=True)['predictions'][0]
    assert sample.pred_sem_seg.shape == (40, 60)


def test_three_files_are_written_for_a_picture(
    inferencer: ZeroShotInferencer, tmp_path: Path
) -> None:
    source = tmp_path / 'photo.jpg'
    Image.fromarray(quarters()).save(source, quality=100, subsampling=0)
    out = tmp_path / 'out'
    inferencer(source, out)
    overlay, labels, record, heat = written_files(out, 'photo')
    assert not heat.exists()
    assert Image.open(overlay).mode == 'RGB'
    with Image.open(labels) as picture:
        assert picture.mode == 'P'
        np.testing.assert_array_equal(np.asarray(picture), expected())
        assert picture.getpalette()[:9] == np.ravel(default_palette(3)).tolist()
    content = json.loads(record.read_text())
    assert content['file'] == str(source)
    assert [entry['share'] for entry in content['classes']] == [0.5, 0.25, 0.25]
    assert (content['labels'], content['overlay']) == (labels.name, overlay.name)


def test_more_than_255_classes_give_a_16_bit_label_map(
    inferencer: ZeroShotInferencer, tmp_path: Path
) -> None:
    inferencer.set_classes([f'class {index}' for index in range(256)])
    inferencer(quarters(), tmp_path)
    with Image.open(tmp_path / 'array_0_labels.png') as picture:
        assert picture.mode.startswith('I;16')
        np.testing.assert_array_equal(np.asarray(picture), expected())
    inferencer.set_classes([f'class {index}' for index in range(255)])
    assert inferencer(quarters())['predictions'][0]['labels'].dtype == np.uint8


def test_of_one_class_the_labels_are_its_mask(inferencer: ZeroShotInferencer) -> None:
    inferencer.set_classes(['red'])
    found = inferencer(quarters())['predictions'][0]
    np.testing.assert_array_equal(found['labels'], expected() == 0)
    assert (found['classes'][0]['share'], found['void_pixels']) == (0.5, 1200)
    assert (found['classes'][0]['label'], found['void_label']) == (1, 0)


def test_the_first_broken_file_ends_the_call(
    inferencer: ZeroShotInferencer, tmp_path: Path
) -> None:
    (tmp_path / 'bad.png').write_bytes(b'\x89PNG')
    with pytest.raises(ImageReadError, match=r'bad\.png'):
        inferencer(tmp_path)


def test_a_model_without_set_classes_has_a_fixed_vocabulary() -> None:
    class Stock(nn.Module):
        dataset_meta = {'classes': ('a', 'b')}
        backbone = nn.Identity()
        cfg = StrongestChannel().cfg

    with pytest.raises(ValueError, match='a Stock knows its own 2 classes'):
        ZeroShotInferencer(Stock(), classes=['cat'])


def test_a_built_segmentor_takes_no_weights() -> None:
    with pytest.raises(ValueError, match='takes no weights'):
        ZeroShotInferencer(StrongestChannel(), 'weights.pth')


def test_output_names_are_unique_and_spare_the_inputs(tmp_path: Path) -> None:
    inputs = [tmp_path / 'a.png', tmp_path / 'b_overlay.png']
    names = OutputNames(tmp_path, inputs)
    assert [names.claim(stem) for stem in ('a', 'a', 'A', 'b', 'a_2')] == [
        'a',
        'a_2',
        'A_3',
        'b_2',
        'a_2_2',
    ]


def test_long_names_are_cut_to_what_a_file_system_takes(tmp_path: Path) -> None:
    for stem in ('a' * 251, 'ü' * 125):
        names = OutputNames(tmp_path, [])
        first, second = names.claim(stem), names.claim(stem)
        assert first != second
        for path in (*written_files(tmp_path, first), *written_files(tmp_path, second)):
            atomic_write(path, lambda stream: stream.write(b'x'))
