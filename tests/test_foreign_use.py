"""mmseg's and mmengine's own entries run our configs, from a wheel, in other folders.

Every run is a process of its own that knows the package only as the config or the
line at its top says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import mmseg

pytestmark = pytest.mark.slow

MMSEG_TOOLS = Path(mmseg.__file__).parent / '.mim' / 'tools'
#: What no run of ours may say: names of others, and scopes that are not found.
WRONG_WORDS = (
    'cityscapes',
    'Cityscapes',
    'Failed to search registry',
    'Failed to import',
    'is not installed',
    'Traceback',
)

INHERITED = "_base_ = 'zs3_mmseg::zegclip/shapes_tiny.py'"
#: The same for tools that import nothing of ours before they read a config.
IMPORTING = "_base_ = __import__('zs3_mmseg').__name__ + '::zegclip/shapes_tiny.py'"
SMALL = """
def loader(num_images):
    return dict(
        batch_size=2,
        num_workers=0,
        persistent_workers=False,
        dataset=dict(
            dataset=dict(data_root={data!r}, num_images=num_images, workers=1)
        ),
    )

train_dataloader = loader(6)
val_dataloader = loader(4)
test_dataloader = loader(4)
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2))
"""


@dataclass(frozen=True)
class Elsewhere:
    """A folder of somebody's, with the wheel installed in another one."""

    folder: Path
    site: Path

    def run(self, *arguments: str) -> str:
        """Run Python there; return what it said after checking that it went well."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                'PYTHONPATH': str(self.site),
                'ZS3_MMSEG_CACHE': str(self.folder / 'cache'),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        for words in WRONG_WORDS:
            assert words not in done.stdout, done.stdout
        return done.stdout

    def script(self, text: str, *arguments: str) -> Any:
        """Run a script, which writes its facts to ``facts.json``; return them."""
        (self.folder / 'script.py').write_text(text)
        self.run('script.py', *arguments)
        return json.loads((self.folder / 'facts.json').read_text())


PLAIN = """
import sys
import mmengine
import zs3_mmseg
from mmengine.config import Config
from mmseg.registry import MODELS, DATASETS, HOOKS, METRICS
from zs3_mmseg.apis.init import find_config

config = Config.fromfile(find_config('zegclip/shapes_tiny'))
config.merge_from_dict(Config.fromfile('small.py').to_dict())
config.dump('plain.py')
assert '_scope_' not in config.pretty_text

def prefix(node):
    if isinstance(node, dict):
        for registry in (MODELS, DATASETS, HOOKS, METRICS):
            kind = registry.module_dict.get(node.get('type'))
            if kind is not None and kind.__module__.startswith('zs3_mmseg.'):
                node['type'] = 'zs3_mmseg.' + kind.__name__
                break
    children = node.values() if isinstance(node, dict) else node
    for child in children if isinstance(node, (dict, list, tuple)) else ():
        prefix(child)

prefix(config._cfg_dict)
assert config.model.decode_head.type == 'zs3_mmseg.ZegCLIPHead'
config.dump('prefixed.py')
mmengine.dump({}, 'facts.json')
"""


@pytest.fixture(scope='module')
def elsewhere(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    folder = tmp_path_factory.mktemp('project')
    small = SMALL.format(data=str(folder / 'data'))
    (folder / 'small.py').write_text(small)
    (folder / 'inherited.py').write_text(INHERITED + small)
    (folder / 'importing.py').write_text(IMPORTING + small)
    found = Elsewhere(folder, installed)
    found.script(PLAIN)
    return found


RUN = """
import mmengine
{first}
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.runner._flexible_runner import FlexibleRunner

config = Config.fromfile('{config}.py')
config.merge_from_dict(dict(work_dir='{config}', **{options}))
runner = {runner}.from_cfg(config)
runner.train()
hooks = [type(hook).__name__ for hook in runner.hooks]
mmengine.dump(dict(runner.test(), hooks=hooks), 'facts.json')
"""
#: mmengine resolves the name of a package in ``_base_`` once that is imported.
FIRST = {'inherited': 'import zs3_mmseg'}


def train_with_runner(
    elsewhere: Elsewhere, config: str, runner: str = 'Runner', **options: str
) -> None:
    facts = elsewhere.script(
        RUN.format(
            first=FIRST.get(config, ''), config=config, runner=runner, options=options
        )
    )
    assert {'ProtocolCheckHook', 'RandomStateHook'} <= {*facts['hooks']}
    assert facts['mIoU'] > 0


def train_with_tools(elsewhere: Elsewhere, config: str) -> None:
    train, test = (str(MMSEG_TOOLS / f'{name}.py') for name in ('train', 'test'))
    folder = ['--work-dir', config]
    elsewhere.run(train, f'{config}.py', *folder)
    checkpoint = f'{config}/iter_2.pth'
    said = elsewhere.run(test, f'{config}.py', checkpoint, *folder, '--out', 'maps')
    assert 'ProtocolCheckHook: test_dataloader agrees with the model' in said
    assert len([*(elsewhere.folder / 'maps').glob('*.png')]) == 4


#: Config -> how it is trained for two iterations and tested.
WAYS: dict[str, Callable[[Elsewhere, str], None]] = {
    'inherited': train_with_runner,
    'plain': partial(train_with_runner, runner='FlexibleRunner'),
    'prefixed': partial(train_with_runner, default_scope='zs3_mmseg'),
    'importing': train_with_tools,
}


@pytest.fixture(scope='module', params=WAYS)
def trained(elsewhere: Elsewhere, request: pytest.FixtureRequest) -> str:
    """The name of a config that was trained; its checkpoint is in a folder so named."""
    WAYS[request.param](elsewhere, request.param)
    return request.param


APIS = """
import sys
import mmengine
{first}
from mmseg.apis import MMSegInferencer, inference_model, init_model

config, checkpoint, picture = sys.argv[1:]
maps = dict()
model = init_model(config, checkpoint, device='cpu')
maps['inference_model'] = inference_model(model, picture).pred_sem_seg.data[0].numpy()
inferencer = MMSegInferencer(config, checkpoint, device='cpu', show_progress=False)
found = inferencer(picture, out_dir='drawn')
maps['MMSegInferencer'] = found['predictions']

from zs3_mmseg.apis import init_segmentor

ours = init_segmentor(config, checkpoint)
expected = inference_model(ours, picture).pred_sem_seg.data[0].numpy()
facts = dict(
    equal={{way: bool((labels == expected).all()) for way, labels in maps.items()}},
    varied=len(set(expected.flatten().tolist())),
    drawn=dict(inferencer.visualizer.dataset_meta),
    known=dict(ours.dataset_meta),
    kind=type(model).__name__,
)
mmengine.dump(facts, 'facts.json')
"""


def test_training_leaves_a_checkpoint(elsewhere: Elsewhere, trained: str) -> None:
    checkpoint = torch.load(
        elsewhere.folder / trained / 'iter_2.pth', weights_only=False
    )
    assert checkpoint['meta']['iter'] == 2
    assert checkpoint['random_state']['ranks'][0] is not None


def test_the_apis_of_mmseg_predict_what_ours_predict(
    elsewhere: Elsewhere, trained: str
) -> None:
    picture = next((elsewhere.folder / 'data').glob('test-*/images/*.png'))
    text = APIS.format(first=FIRST.get(trained, ''))
    checkpoint = f'{trained}/iter_2.pth'
    facts = elsewhere.script(text, f'{trained}.py', checkpoint, str(picture))
    assert facts['equal'] == dict(inference_model=True, MMSegInferencer=True)
    assert facts['varied'] > 1
    assert facts['kind'] == 'ZeroShotEncoderDecoder'
    assert facts['drawn'] == facts['known']
    assert facts['drawn']['classes'][0] == 'star'
    assert (elsewhere.folder / 'drawn/vis' / picture.name).is_file()


HUB = """
import mmengine
import zs3_mmseg
from mmengine.hub import get_config, get_model
from mmengine.infer import BaseInferencer
from mmengine.registry import DefaultScope
from mmseg.apis import MMSegInferencer

before = DefaultScope.get_current_instance()
trained = get_model('zs3_mmseg::zegclip/shapes_tiny.py')
dense = get_model('zs3_mmseg::clip_dense/shapes_tiny.py')
assert DefaultScope.get_current_instance() is before
named = MMSegInferencer(
    'zegclip/shapes_tiny', 'inherited/iter_2.pth', device='cpu', scope='zs3_mmseg'
)
facts = dict(
    kinds=[type(model).__name__ for model in (trained, dense, named.model)],
    heads=[type(model.decode_head).__name__ for model in (trained, dense, named.model)],
    classes=[model.dataset_meta['classes'] for model in (trained, dense)],
    config=get_config('zs3_mmseg::zegclip/shapes_tiny.py').model.type,
    listed=BaseInferencer.list_models('zs3_mmseg', 'zegclip/shapes_tiny$'),
)
mmengine.dump(facts, 'facts.json')
"""


def test_hub_and_metafiles(elsewhere: Elsewhere) -> None:
    if not (elsewhere.folder / 'inherited/iter_2.pth').is_file():
        train_with_runner(elsewhere, 'inherited')
    facts = elsewhere.script(HUB)
    assert facts['kinds'] == ['ZeroShotEncoderDecoder'] * 3
    assert facts['heads'] == ['ZegCLIPHead', 'DenseTextHead', 'ZegCLIPHead']
    assert [len(classes) for classes in facts['classes']] == [20, 20]
    assert facts['config'] == 'ZeroShotEncoderDecoder'
    assert facts['listed'] == ['zegclip/shapes_tiny']


BY_SCOPE = """
import sys
import mmengine
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope, MODELS

assert 'zs3_mmseg' not in sys.modules and 'mmseg' not in sys.modules
part = dict(type='SeenShift', _scope_='zs3_mmseg')
with DefaultScope.overwrite_default_scope(sys.argv[1]):
    shift = MODELS.build(part)
mmengine.dump(dict(kind=type(shift).__name__), 'facts.json')
"""


@pytest.mark.parametrize('scope', ['mmengine', 'zs3_mmseg'])
def test_a_scope_alone_imports_the_package(elsewhere: Elsewhere, scope: str) -> None:
    """As in configs that mmengine has written down flat, without custom_imports."""
    assert elsewhere.script(BY_SCOPE, scope) == dict(kind='SeenShift')
