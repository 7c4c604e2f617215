"""Every two-stage config builds, without weights and without data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

CONFIGS = Path(__file__).parents[1] / 'configs/two_stage'


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.py')), ids=lambda p: p.stem)
def test_parts_of_a_config_fit(path: Path, tmp_path: Path) -> None:
    config = Config.fromfile(path)
    init_default_scope('mmseg')
    model = config.model
    for key in ('pretrained', 'weights'):  # weights are files, or are fetched
        model.backbone.pop(key, None)
    proposer = model.decode_head.get('proposer')
    if proposer is not None and proposer.type == 'MaskFileProposer':
        proposer.root = str(tmp_path)
    with torch.device('meta'):
        built = MODELS.build(model)
    if 'test_dataloader' in config:
        assert model.split == config.test_dataloader.dataset.split
        assert config.test_dataloader.dataset.pipeline == config.test_pipeline
        assert config.train_dataloader is None
    kinds = [proposer] + [p.get('proposer') for p in model.get('post_processors', ())]
    names = [kind.type for kind in kinds if kind is not None]
    for word, kind in (('sam', 'SAM'), ('superpixel', 'Super'), ('eigen', 'Eigen')):
        if path.stem.startswith(word) and not path.stem.endswith('_files'):
            assert names[0].startswith(kind)
    scored = [p for p in built.post_processors if p.space == 'score']
    assert not scored or built.test_cfg.get('return_scores', True)
