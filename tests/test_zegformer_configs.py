"""Every config of ZegFormer builds, without weights and without data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

CONFIGS = Path(__file__).parents[1] / 'configs/zegformer'


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.py')), ids=lambda p: p.stem)
def test_parts_of_a_config_fit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.fromfile(path)
    init_default_scope('mmseg')
    model = config.model
    # Weights are files, or are fetched.
    for key in ('init_cfg', 'pretrained'):
        model.backbone.pop(key, None)
    own = 'folder' in path.stem
    if own:
        model.test_split = dict(classes=['cat', 'unicorn'], unseen=['unicorn'])
    source = model.class_embeddings.source
    if source.type == 'concat':
        monkeypatch.setattr(
            'zs3_mmseg.models.class_embeddings.sources.WordVectorSource.dim', 300
        )
    with torch.device('meta'):
        built = MODELS.build(model)
    width = 600 if source.type == 'concat' else built.vocabulary.bank.dim
    assert built.decode_head.embed_dim == width
    look = built.decode_head.region_classifier
    assert (look is None) == ('_seg' in path.stem or '_words' in path.stem)
    tested = config.test_dataloader.dataset
    if own:
        assert built.class_names == ('cat', 'unicorn')
        assert built.vocabulary.seen == (True, False)
        return
    assert model.split == tested.split
    if config.get('train_dataloader') is not None:
        trained = config.train_dataloader.dataset
        assert trained.split == model.split
        pipelines = [
            part.pipeline
            for part in trained.dataset.get('datasets', [trained.dataset])
            if 'pipeline' in part
        ]
        assert all(steps == config.train_pipeline for steps in pipelines)
    for loader in (config.val_dataloader, config.test_dataloader):
        assert loader.dataset.pipeline == config.test_pipeline
