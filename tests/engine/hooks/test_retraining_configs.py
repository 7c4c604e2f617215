"""The configs of ZS3Net run from the first iteration to the last phase."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import retraining_runs  # noqa: F401  (registers the data set of stripes)

from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.datasets import PascalVOCDataset

from zs3_mmseg.apis import load_config
from zs3_mmseg.engine import SafeRunner
from zs3_mmseg.engine.hooks import GenerativeRetrainingHook
from zs3_mmseg.utils.checkpoint import safe_load


def run(config: Config, runner_class: type[Runner], folder: Path) -> dict[str, Any]:
    """Train three iterations, one per phase; return the checkpoint."""
    config.work_dir = str(folder)
    config.experiment_name = folder.name
    config.train_cfg.max_iters = 3
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.test_cfg = config.test_dataloader = config.test_evaluator = None
    config.default_hooks.checkpoint.interval = 3
    config.train_dataloader |= dict(
        batch_size=2, num_workers=0, persistent_workers=False
    )
    for hook in config.custom_hooks:
        if hook.type == GenerativeRetrainingHook.__name__:
            hook |= dict(segmentor_iters=1, generator_iters=1)
    runner_class.from_cfg(config).train()
    return safe_load(folder / 'iter_3.pth')


def test_mixing_example_on_mmsegs_own_runner(tmp_path: Path) -> None:
    config = load_config('zs3net/voc12_segformer_b0_mixing.py')
    hook = config.custom_hooks[0]
    classes = PascalVOCDataset.METAINFO['classes']
    names = [hook.vector_names.get(name, name) for name in classes]
    rng = np.random.default_rng(0)
    lines = [
        f'{word} {" ".join(map(str, rng.normal(size=4)))}\n'
        for word in sorted({word for name in names for word in name.split()})
    ]
    vectors = tmp_path / 'vectors.txt'
    vectors.write_text(''.join(lines))
    hook.class_embeddings.source.path = str(vectors)
    config.model.backbone.init_cfg = None
    # The images are smaller and padded: the backbone divides by 32.
    config.model.data_preprocessor.size = (32, 32)
    config.train_dataloader.dataset = dict(type='StripesDataset', classes=classes)
    state = run(config, Runner, tmp_path)['generative_retraining']
    assert [classes[label] for label in state['unseen']] == ['cow', 'motorbike']
    assert state['phase'] == 'classifier'


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'trains'),
    [
        ('shapes_convnet', 'decode_head.conv_seg.weight'),
        ('shapes_convnet_baseline', 'decode_head.conv_seg.weight'),
        ('shapes_convnet_cosine', 'decode_head.projection.weight'),
        ('shapes_clip', 'decode_head.conv_seg.weight'),
    ],
)
def test_shapes(tmp_path: Path, name: str, trains: str) -> None:
    config = load_config(f'zs3net/{name}.py')
    config.train_dataloader.dataset.dataset |= dict(
        data_root=str(tmp_path / 'shapes'), num_images=4
    )
    checkpoint = run(config, SafeRunner, tmp_path)
    assert checkpoint['state_dict'][trains].isfinite().all()
    assert ('generative_retraining' in checkpoint) == (
        name in ('shapes_convnet', 'shapes_clip')
    )
