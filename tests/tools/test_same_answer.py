"""One file and one config give one label map, whichever way it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmseg.apis import inference_model

from zs3_mmseg.apis import ZeroShotInferencer, init_segmentor

# Scores of the shipped model lie on both sides of it.
SCORE_THR = 7.0
NAMES = ('grass', 'water', 'star', 'boat')

WHOLE = ''
# Windows that overlap, at a size where a window is less than the picture.
SLIDE = "model['test_cfg'] = dict(mode='slide', crop_size=(96, 96), stride=(75, 75))"
# A resize that gives up the ratio, and pixels as floats.
OTHER = """
test_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    dict(type='Resize', scale=(200, 90), keep_ratio=False),
    dict(type='LoadFolderMasks'),
    dict(type='PackSegInputs'),
]
inner['pipeline'] = test_pipeline
"""


def scene(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width)
    noise = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def see_through(mode: str) -> Image.Image:
    picture = scene(96, 64).convert('RGBA')
    picture.putalpha(scene(64, 64).resize((96, 64)).convert('L'))
    return picture.convert(mode)


def turned() -> tuple[Image.Image, dict]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return scene(96, 64), {'exif': exif}


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.asarray(scene(90, 70).convert('L')).astype('u2') * 251)


#: File name -> what is in it, and how it is saved.
PICTURES: dict[str, Callable[[], tuple[Image.Image, dict]]] = {
    'small.png': lambda: (scene(60, 50), {}),
    'large.jpg': lambda: (scene(1500, 1000), {'quality': 80}),
    'tall.bmp': lambda: (scene(10, 700), {}),
    'strip.png': lambda: (scene(900, 2), {}),
    'dot.png': lambda: (scene(1, 1), {}),
    'turned.jpg': turned,
    'grey.png': lambda: (scene(70, 90).convert('L'), {}),
    'deep.png': lambda: (sixteen_bits(), {}),
    'alpha.png': lambda: (see_through('RGBA'), {}),
    'grey_alpha.png': lambda: (see_through('LA'), {}),
    'palette.gif': lambda: (scene(90, 70).quantize(16), {}),
    'print.jpg': lambda: (scene(90, 70).convert('CMYK'), {}),
    'photo.webp': lambda: (scene(300, 200), {}),
}


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder data set of all kinds of pictures."""
    root = tmp_path_factory.mktemp('data')
    for part in ('images', 'masks'):
        (root / part / 'val').mkdir(parents=True)
    (root / 'classes.txt').write_text('\n'.join(NAMES))
    for name, make in PICTURES.items():
        picture, options = make()
        path = root / 'images' / 'val' / name
        picture.save(path, **options)
        height, width = cv2.imread(str(path)).shape[:2]
        mask = Image.new('L', (width, height))
        mask.save((root / 'masks' / 'val' / name).with_suffix('.png'))
    return root


@pytest.mark.parametrize(
    'extra', [WHOLE, SLIDE, OTHER], ids=['whole', 'slide', 'other']
)
def test_four_ways_give_one_label_map(
    run_tool, data: Path, tmp_path: Path, extra: str
) -> None:
    config = tmp_path / 'config.py'
    config.write_text(
        "_base_ = 'zs3_mmseg::clip_dense/own_folder.py'\n"
        f'data_root = {str(data)!r}\n'
        'split = dict(folder=data_root)\n'
        'model = dict(split=split)\n'
        'inner = dict(split=split, dataset=dict(data_root=data_root))\n'
        f'{extra}\n'
        'test_dataloader = val_dataloader = dict(dataset=inner)\n'
    )
    folder = data / 'images' / 'val'
    for tool, flags in (
        ('test.py', [config, '--out', 'tested']),
        ('segment.py', [folder, '--config', config, '--out-dir', 'segmented']),
    ):
        finished = run_tool(tool, *flags, folder=tmp_path)
        assert finished.status == 0, finished.output
    model = init_segmentor(config)
    inferencer = ZeroShotInferencer(config)
    for name in PICTURES:
        path, stem = folder / name, Path(name).stem
        expected = inference_model(model, str(path)).pred_sem_seg.data[0].numpy()
        written = [f'segmented/{stem}_labels.png', f'tested/{stem}.png']
        found = {file: np.asarray(Image.open(tmp_path / file)) for file in written}
        found['inferencer'] = inferencer(path)['predictions'][0]['labels']
        for way, labels in found.items():
            np.testing.assert_array_equal(labels, expected, err_msg=f'{way}: {name}')


def test_arrays_are_bgr_in_mmseg_and_rgb_here_unless_said_otherwise() -> None:
    rgb = np.array(scene(150, 100))
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    inferencer = ZeroShotInferencer('clip_dense/shapes_tiny', classes=NAMES)
    expected = inference_model(inferencer.model, bgr).pred_sem_seg.data[0].numpy()
    swapped = inference_model(inferencer.model, rgb).pred_sem_seg.data[0].numpy()
    assert (expected != swapped).any()
    for pixels, order in ((rgb, 'rgb'), (bgr, 'bgr')):
        for array in (pixels, pixels.astype(np.float64) / 255, pixels.astype(np.int32)):
            tensor = torch.as_tensor(array).permute(2, 0, 1)
            for given in (array, tensor):
                found = inferencer(given, channel_order=order)['predictions'][0]
                np.testing.assert_array_equal(found['labels'], expected)
    for given in (Image.fromarray(rgb), Image.fromarray(rgb).convert('RGBA')):
        found = inferencer(given)['predictions'][0]['labels']
        np.testing.assert_array_equal(found, expected)
    # mmseg changes the config of the model that it was given an array for.
    again = ZeroShotInferencer(inferencer.model)
    np.testing.assert_array_equal(again(rgb)['predictions'][0]['labels'], expected)


def test_one_name_gives_its_mask_everywhere(tmp_path: Path) -> None:
    scene(90, 60).save(tmp_path / 'a.png')
    threshold = {'model.test_cfg.score_thr': SCORE_THR}
    inferencer = ZeroShotInferencer(
        'clip_dense/shapes_tiny', classes=['grass'], cfg_options=threshold
    )
    # A softmax over one class is 1 everywhere.
    inferencer.model.decode_head.score_kind = 'logit'
    sample = inference_model(inferencer.model, str(tmp_path / 'a.png'))
    mask = sample.pred_sem_seg.data[0].numpy()
    assert set(np.unique(mask)) == {0, 1}
    found = inferencer(tmp_path / 'a.png', tmp_path)['predictions'][0]
    np.testing.assert_array_equal(found['labels'], mask)
    written = np.asarray(Image.open(tmp_path / 'a_labels.png'))
    np.testing.assert_array_equal(written, mask)
    assert found['classes'][0]['label'] == 1
    assert found['classes'][0]['pixels'] == mask.sum()
    assert (found['void_label'], found['void_pixels']) == (0, (mask == 0).sum())
