"""A backbone of somebody else that must not move."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from zs3_mmseg.utils import hub
from zs3_mmseg.utils.config_check import drop_timm_weights, require_config_files

TIMM = dict(
    type='TIMMBackbone',
    model_name='tf_efficientnet_lite0',
    features_only=True,
    pretrained=False,
    out_indices=(1, 2),
)
NORM = dict(type='BN', requires_grad=True)
BACKBONES = {
    'timm': TIMM,
    'mmseg': dict(
        type='ResNet', depth=18, base_channels=4, stem_channels=4, norm_cfg=NORM
    ),
}


@pytest.mark.parametrize('kind', BACKBONES)
def test_nothing_of_it_learns_or_moves(kind: str) -> None:
    frozen = MODELS.build(dict(type='FrozenBackbone', backbone=BACKBONES[kind]))
    before = {key: value.clone() for key, value in frozen.state_dict().items()}
    frozen.train()
    maps = frozen(torch.randn(2, 3, 32, 48))
    assert isinstance(maps, tuple)
    assert not any(one.requires_grad for one in maps)
    assert frozen.training
    assert not any(part.training for part in frozen.backbone.modules())
    after = frozen.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_weights_of_timm_come_from_a_local_file(tmp_path: Path) -> None:
    file = tmp_path / 'weights.pth'
    source = MODELS.build(TIMM).timm_model
    torch.save(source.state_dict(), file)
    local = dict(TIMM, pretrained=True, pretrained_cfg_overlay=dict(file=str(file)))
    loaded = MODELS.build(dict(type='FrozenBackbone', backbone=local))
    kernel = loaded.state_dict()['backbone.timm_model.conv_stem.weight']
    assert torch.equal(kernel, source.conv_stem.weight)
    require_config_files(Config(dict(model=dict(backbone=local))), [])
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r'pretrained_cfg_overlay\.file = '):
        require_config_files(Config(dict(model=dict(backbone=local))), [])


def test_weights_of_timm_out_of_reach_are_told_at_once() -> None:
    backbone = dict(type='FrozenBackbone', backbone=dict(TIMM, pretrained=True))
    config = Config(dict(model=dict(backbone=backbone)))
    address = r'bring https://\S+/tf_efficientnet_lite0\S+ here and set '
    key = r'model\.backbone\.backbone\.pretrained_cfg_overlay\.file='
    with pytest.raises(ConnectionError, match=f'{address}{key}'):
        require_config_files(config, [])
    drop_timm_weights(config)
    require_config_files(config, [])


@pytest.mark.parametrize(
    'options',
    [
        dict(type='TIMMBackbone', pretrained=False),
        dict(type='TIMMBackbone', checkpoint_path='weights.pth'),
        dict(type='mmpretrain.TIMMBackbone'),
    ],
)
def test_weights_that_nobody_wants_are_not_asked_for(
    options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, 'require_hub', pytest.fail)
    hub.require_timm_weights(dict(options, model_name='resnet18'), 'model.backbone')


def test_weights_of_timm_in_the_cache_ask_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, 'require_hub', pytest.fail)
    monkeypatch.setattr(hub, 'cached_file', lambda *_: tmp_path)
    hub.require_timm_weights(dict(TIMM, pretrained=True), 'model.backbone')


def test_a_frozen_norm_is_a_norm_in_evaluation() -> None:
    init_default_scope('mmseg')
    torch.manual_seed(0)
    plain = torch.nn.BatchNorm2d(4)
    for value in (plain.weight, plain.bias, plain.running_mean, plain.running_var):
        value.data.uniform_(0.5, 2)
    backbone = MODELS.build(dict(BACKBONES['mmseg'], norm_cfg=dict(type='FrozenBN')))
    frozen = backbone.bn1.train()
    state = {k: v for k, v in plain.state_dict().items() if 'num_batches' not in k}
    frozen.load_state_dict(state)
    maps = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(frozen(maps), plain.eval()(maps))
    assert not [*frozen.parameters()]
