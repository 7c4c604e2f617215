"""Exported graphs say what the model says, for any size, batch and vocabulary."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from zs3_mmseg.apis import ZeroShotInferencer, init_segmentor, load_config
from zs3_mmseg.apis.export import (
    INPUTS,
    ScoreGraph,
    export_onnx,
    export_program,
    write_classes,
)

ROOT = Path(__file__).resolve().parents[2]
#: A tower of two blocks whose own grid is 4 x 4.
TOWER = dict(
    _delete_=True,  # of the name that stands in the config
    embed_dim=16,
    vision_cfg=dict(image_size=32, layers=2, width=32, patch_size=8, head_width=16),
    text_cfg=dict(context_length=16, vocab_size=49408, width=16, heads=2, layers=1),
)
SMALL = {
    'model.backbone.arch': TOWER,
    'model.backbone.pretrained': None,
    'model.class_embeddings.source.arch': TOWER,
    'model.class_embeddings.source.pretrained': None,
}
METHODS: dict[str, dict[str, Any]] = {
    'clip_dense/shapes_tiny_gate': SMALL,
    'zegclip/shapes_tiny': {**SMALL, 'model.backbone.prompts.depth': 1},
    'zegformer/shapes_tiny_seg': {},
}
#: Images and sizes: the tower's own, one side of it, and no whole patches.
SHAPES = ((1, 32, 32), (3, 32, 48), (1, 56, 32), (3, 45, 77), (2, 31, 129))


def build(name: str, **options: Any) -> Any:
    config = load_config(name, METHODS.get(name, {}) | options)
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build({**config.model, 'train_cfg': None})
    model.init_weights()
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize('name', METHODS)
def test_graphs_say_what_the_model_says(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip('onnxruntime')
    model = build(name)
    program = export_program(model)
    export_onnx(model, tmp_path / 'model.onnx', program)
    follow = program.module()
    session = onnxruntime.InferenceSession(tmp_path / 'model.onnx')
    graph, width = ScoreGraph(model), model.vocabulary.dim
    for batch, *size in SHAPES:
        for num_classes in (1, 4, 9):
            images = 255 * torch.rand(batch, 3, *size)
            rows = torch.nn.functional.normalize(torch.randn(num_classes, width))
            names = [f'class {index}' for index in range(num_classes)]
            model.set_classes(names, unseen=names[::3], embeddings=rows)
            seen = model.current_queries().seen_mask
            metas = [dict(ori_shape=size, img_shape=size)] * batch
            with torch.no_grad():
                wanted = model.encode_decode(graph.prepared(images), metas)
                wanted = wanted[..., : size[0], : size[1]]
                followed = follow(images, rows, seen)
            feed = zip(INPUTS, (images, rows, seen), strict=True)
            (found,) = session.run(None, {key: part.numpy() for key, part in feed})
            assert wanted.shape == (batch, num_classes, *size)
            torch.testing.assert_close(followed, wanted, rtol=0, atol=1e-4)
            np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ('name', 'options', 'complaint'),
    [
        (
            'clip_dense/shapes_tiny_gate',
            {
                'model.test_cfg.mode': 'slide',
                'model.test_cfg.crop_size': 32,
                'model.test_cfg.stride': 32,
            },
            "test_cfg.mode is 'slide'",
        ),
        (
            'zegformer/shapes_tiny',
            {},
            'region_classifier .CropClassifier. goes through the pictures',
        ),
        ('guided/shapes_tiny', {}, "'GuidedHead', which reads pictures"),
    ],
)
def test_what_no_graph_can_hold_is_refused(
    name: str, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        ScoreGraph(build(name, **options))


def test_classes_are_written_as_plain_arrays(tmp_path: Path) -> None:
    model = init_segmentor('clip_dense/shapes_tiny')
    model.set_classes(['star', 'moon lamp'])
    write_classes(model, tmp_path / 'words.npz')
    written = np.load(tmp_path / 'words.npz', allow_pickle=False)
    queries = model.current_queries()
    np.testing.assert_array_equal(written['embeddings'], queries.embeddings.numpy())
    assert written['names'].tolist() == ['star', 'moon lamp']
    assert written['seen'].tolist() == list(model.vocabulary.seen)
    assert written['scale'].tolist() == [2048, 112]
    model.set_classes(['star', 'cup|mug'])
    with pytest.raises(ValueError, match=r"'cup\|mug' has several"):
        write_classes(model, tmp_path / 'words.npz')


@pytest.mark.slow
def test_a_picture_is_segmented_without_torch(tmp_path: Path) -> None:
    pytest.importorskip('onnxruntime')

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (112, 131, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / 'noise.png')
    names = ['star', 'grass', 'boat']
    tool = str(ROOT / 'tools/export.py')
    flags = ['clip_dense/shapes_tiny', '--out', 'tiny.onnx', '--classes', *names]
    assert 'Largest difference' in run(tool, *flags)
    script = ROOT / 'projects/onnx_picture/segment_onnx.py'
    code = (
        'import sys, runpy\nsys.modules["torch"] = None\n'
        f'runpy.run_path({str(script)!r}, run_name="__main__")'
    )
    files = ['tiny.onnx', 'tiny.npz', 'noise.png', 'labels.png']
    run('-c', code, *files)
    model = init_segmentor('clip_dense/shapes_tiny')
    wanted = ZeroShotInferencer(model, classes=names)(noise)['predictions'][0]['labels']
    found = np.asarray(Image.open(tmp_path / 'labels.png'))
    assert np.mean(found == wanted) > 0.999
