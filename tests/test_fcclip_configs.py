"""Every config of FC-CLIP builds, without weights and without data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from zs3_mmseg.models.decode_heads.deformable import DeformablePixelDecoder

CONFIGS = Path(__file__).parents[1] / 'configs/fcclip'


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.py')), ids=lambda p: p.stem)
def test_parts_of_a_config_fit(path: Path) -> None:
    config = Config.fromfile(path)
    init_default_scope('mmseg')
    model = config.model
    look = model.decode_head.region_classifier
    # Weights are files, or are fetched.
    for part in (model.backbone, look or {}, model.class_embeddings.source):
        part.pop('pretrained', None)
    own = 'folder' in path.stem
    if own:
        model.test_split = dict(classes=['cat', 'unicorn'], unseen=['unicorn'])
    with torch.device('meta'):
        built = MODELS.build(model)
    head = built.decode_head
    assert head.embed_dim == built.vocabulary.bank.dim
    assert [*head.in_channels] == [*built.backbone.out_channels][:4]
    is_published = isinstance(head.pixel_decoder, DeformablePixelDecoder)
    assert is_published != ('lite' in path.stem)
    # The published exponents, in every config.
    assert (head.seen_weight, head.unseen_weight) == (0.4, 0.8)
    if own:
        assert built.class_names == ('cat', 'unicorn')
        assert len(built.vocabulary.split.classes) == 133
        return
    assert model.split == config.test_dataloader.dataset.split
    trained = config.train_dataloader.dataset
    assert (trained.split, trained.setting) == (model.split, model.setting)
    for loader in (config.val_dataloader, config.test_dataloader):
        assert loader.dataset.pipeline == config.test_pipeline
