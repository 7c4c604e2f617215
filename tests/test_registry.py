"""The scope of the package: parts of inherited configs are built wherever they are."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry

from zs3_mmseg.apis import shipped_configs
from zs3_mmseg.datasets import ClassPromptDataset, ZeroShotDataset
from zs3_mmseg.models.calibrators import SeenShift
from zs3_mmseg.registry import SCOPE, find_class
from zs3_mmseg.utils import register_all_modules
from zs3_mmseg.utils.names import type_name

ROOTS = {
    name: registry
    for name, registry in vars(mmengine.registry).items()
    if isinstance(registry, Registry)
}
SCOPES = ('mmengine', 'mmseg', SCOPE, 'other_project')

OTHER_PROJECT = """
import mmengine.registry
from mmengine.registry import Registry
from torch import nn

MODELS = Registry('model', parent=mmengine.registry.MODELS, scope='other_project')

@MODELS.register_module()
class Doubled(nn.Module):
    def forward(self, x):
        return (2 * x,)

@MODELS.register_module()
class SeenShift(nn.Module):
    pass
"""


@pytest.fixture(scope='module', autouse=True)
def _other_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Another package with a registry, and a class with a name of ours."""
    folder = tmp_path_factory.mktemp('projects')
    package = folder / 'other_project'
    package.mkdir()
    (package / '__init__.py').touch()
    (package / 'registry.py').write_text(OTHER_PROJECT)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield
    for name in [name for name in sys.modules if name.startswith('other_project')]:
        del sys.modules[name]
    mmengine.registry.MODELS.children.pop('other_project', None)


@pytest.mark.parametrize('kind', ROOTS)
def test_every_name_is_found_in_the_scope(kind: str) -> None:
    root = ROOTS[kind]
    mmseg = root.children['mmseg']
    with root.switch_scope_and_registry(SCOPE) as registry:
        assert registry.scope == SCOPE
        for name in {*mmseg.module_dict, *root.module_dict}:
            expected = mmseg.get(name)
            assert registry.get(name) is expected
            assert registry.get(f'{SCOPE}.{name}') is expected
            assert mmseg.get(f'{SCOPE}.{name}') is expected
            assert root.get(f'{SCOPE}.{name}') is expected


@pytest.mark.parametrize('kind', ROOTS)
@pytest.mark.parametrize('scope', ['mmseg', SCOPE])
def test_no_registry_is_missed_with_a_warning(
    kind: str, scope: str, log: list[logging.LogRecord]
) -> None:
    with ROOTS[kind].switch_scope_and_registry(scope) as registry:
        assert registry.scope == scope
    assert log == []


@pytest.mark.parametrize('scope', SCOPES)
@pytest.mark.parametrize(
    'part',
    [
        dict(type='SeenShift', _scope_=SCOPE),
        dict(type='zs3_mmseg.SeenShift'),
        dict(type='zs3_mmseg.SeenShift', _scope_=SCOPE),
        dict(type='mmseg.SeenShift', _scope_=SCOPE),
        dict(type='zs3_mmseg.models.calibrators.SeenShift', _scope_=SCOPE),
        dict(type=SeenShift),
    ],
    ids=str,
)
def test_ours_is_built_while_any_scope_is_the_default(
    scope: str, part: dict[str, Any]
) -> None:
    with DefaultScope.overwrite_default_scope(scope):
        assert isinstance(mmengine.registry.MODELS.build(part), SeenShift)


@pytest.mark.parametrize('scope', SCOPES)
@pytest.mark.parametrize('kind', ['ReLU', 'mmseg.FCNHead', 'mmengine.ReLU'])
def test_stock_parts_of_an_inherited_config_are_found(scope: str, kind: str) -> None:
    with (
        DefaultScope.overwrite_default_scope(scope),
        mmengine.registry.MODELS.switch_scope_and_registry(SCOPE) as registry,
    ):
        assert registry.get(kind).__name__ == kind.rpartition('.')[2]


def test_a_backbone_of_another_project_stands_in_our_segmentor() -> None:
    model = mmengine.registry.MODELS.build(
        dict(
            type='ZeroShotEncoderDecoder',
            _scope_=SCOPE,
            split=dict(classes=['a', 'b'], unseen=['b']),
            setting='supervised',
            class_embeddings=None,
            backbone=dict(type='other_project.Doubled'),
            decode_head=dict(
                type='FCNHead', in_channels=3, channels=4, num_convs=1, num_classes=2
            ),
            calibrators=[dict(type='SeenShift')],
        )
    )
    assert type(model.backbone).__module__ == 'other_project.registry'
    assert type(model.calibrators[0]) is SeenShift


def test_scopes_take_turns_in_one_process() -> None:
    build = mmengine.registry.MODELS.build
    for _ in range(2):
        with DefaultScope.overwrite_default_scope('other_project'):
            assert type(build(dict(type='SeenShift'))) is not SeenShift
            assert type(build(dict(type='SeenShift', _scope_=SCOPE))) is SeenShift
        with DefaultScope.overwrite_default_scope(SCOPE):
            assert type(build(dict(type='SeenShift'))) is SeenShift


@pytest.mark.parametrize('use_scope', [True, False])
def test_the_hub_registers_in_the_scope_it_asks_for(use_scope: bool) -> None:
    with DefaultScope.overwrite_default_scope('mmseg'):
        register_all_modules(init_default_scope=use_scope)
        current = DefaultScope.get_current_instance()
        assert current is not None
        assert current.scope_name == (SCOPE if use_scope else 'mmseg')


@pytest.mark.parametrize(
    'kind',
    [
        'ZeroShotDataset',
        'zs3_mmseg.ZeroShotDataset',
        'zs3_mmseg.datasets.ZeroShotDataset',
        ZeroShotDataset,
    ],
    ids=str,
)
def test_a_type_is_known_in_every_spelling(kind: Any) -> None:
    assert type_name(kind) == 'ZeroShotDataset'
    found = find_class(mmengine.registry.DATASETS.children['mmseg'], kind)
    assert found is ZeroShotDataset


@pytest.mark.parametrize('kind', ['ZeroShotDataset', ZeroShotDataset], ids=str)
def test_pairs_take_over_an_inherited_data_set(kind: Any, tmp_path: Path) -> None:
    """``dataset=_base_.train_dataloader.dataset`` brings the scope along."""
    scenes = dict(
        type='ShapesDataset', data_root=str(tmp_path), num_images=2, workers=1
    )
    inner = dict(
        type=kind, phase='train', split='shapes_a', dataset=scenes, _scope_=SCOPE
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = ClassPromptDataset(dataset=inner, pipeline=[], lazy_init=True)
    assert dataset.metainfo['seen']


def test_variables_of_an_inherited_config_stay_plain(tmp_path: Path) -> None:
    path = tmp_path / 'own.py'
    path.write_text(
        "_base_ = 'zs3_mmseg::clip_dense/own_folder.py'\n"
        'split = _base_.split\nmodel = dict(split=split)\n'
    )
    config = Config.fromfile(path)
    assert config.model.split == dict(folder='data/own')
    assert config.model['_scope_'] == SCOPE


#: They have pipelines and no data set, which mmseg's inferencer asks for.
WITHOUT_DATA = (
    'clip_dense/photo_vitb16',
    'clip_dense/photo_vitb16_laion2b',
    'groupvit/photo',
    'sam3/photo',
    'two_stage/sam_clip_photo_vitb16',
    'two_stage/sam2_clip_photo_vitb16',
)


@pytest.mark.parametrize('name', sorted({*shipped_configs()} - {*WITHOUT_DATA}))
def test_mmsegs_inferencer_finds_what_it_reads_of_every_config(name: str) -> None:
    config = Config.fromfile(shipped_configs()[name])
    assert config.test_dataloader.dataset.pipeline == config.test_pipeline
    assert config.visualizer.type.endswith('LocalVisualizer')
    kinds = [type_name(step.type) for step in config.test_pipeline]
    assert kinds[0] == 'LoadImageFromFile'
