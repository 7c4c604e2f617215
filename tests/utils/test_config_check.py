import importlib.util
import re
from pathlib import Path

import pytest

from mmengine.config import Config

from zs3_mmseg.apis import shipped_configs
from zs3_mmseg.apis.init import load_config
from zs3_mmseg.utils.config_check import (
    READ_KEYS,
    ConfigError,
    missing_data,
    read_config,
    require_config_files,
    require_extras,
    run_name,
    stays_behind,
    walk,
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_options_are_merged(here: Path) -> None:
    (here / 'a.py').write_text('model = dict(depth=1)')
    assert read_config('a.py', {'model.depth': 2}).model.depth == 2


def test_a_variable_is_not_changed_in_vain(here: Path) -> None:
    (here / 'a.py').write_text(
        "split = 'x'\nmodel = dict(split=split)\ncustom_hooks = [dict(split=split)]\n"
    )
    named = r'instead: model\.split=z custom_hooks\.0\.split=z'
    with pytest.raises(ValueError, match=named):
        read_config('a.py', {'split': 'z'})
    both = {'split': 'z', 'model.split': 'z'}
    with pytest.raises(ValueError, match=r'instead: custom_hooks\.0\.split=z'):
        read_config('a.py', both)
    assert read_config('a.py', {**both, 'custom_hooks.0.split': 'z'}).split == 'z'


def keys_with(config: Config, value: object) -> set[str]:
    """The keys at which a config holds a value, without the first dot."""
    return {key[1:] for key, found in walk(dict(config), '') if found == value}


@pytest.mark.parametrize(
    ('text', 'option', 'changed'),
    [
        (
            "flips = [dict(type='RandomFlip', prob=0.5)]\n"
            'train_dataloader = dict(dataset=dict(pipeline=flips))\n',
            'flips.0.prob',
            {'flips.0.prob', 'train_dataloader.dataset.pipeline.0.prob'},
        ),
        (
            "files = dict(type='A', prefix=dict(img='a'))\n"
            'both = dict(datasets=[files, dict(times=3, dataset=files)])\n'
            'test_dataloader = dict(dataset=both)\n',
            'files.prefix.img',
            {
                'files.prefix.img',
                *(
                    f'{holder}.{place}.prefix.img'
                    for holder in ('both', 'test_dataloader.dataset')
                    for place in ('datasets.0', 'datasets.1.dataset')
                ),
            },
        ),
        (
            'size = (64, 64)\n'
            'model = dict(data_preprocessor=dict(size=size), test_cfg=dict(crop=size))',
            'model.test_cfg.crop',
            {'model.test_cfg.crop'},
        ),
    ],
    ids=['a pipeline', 'nested data sets', 'a place by itself'],
)
def test_options_inside_of_a_variable_follow_it(
    here: Path, text: str, option: str, changed: set[str]
) -> None:
    (here / 'a.py').write_text(text)
    assert keys_with(read_config('a.py', {option: 0.125}), 0.125) == changed


@pytest.mark.parametrize(
    ('text', 'option', 'message'),
    [
        ('lenght = 3', 'lenght', 'Set them there'),
        ('model = dict(a=1)', 'modle.a', "no modle in it. Did you mean 'model'"),
        ('model = dict(a=1)', 'trian_cfg', "Did you mean 'train_cfg' or"),
        (
            "common = dict(a=1)\nmodel = dict(type='X', **common)",
            'common.a',
            'common is a variable of it',
        ),
        (
            'flip = [dict(a=1)]\nturn = [dict(a=1)]\n'
            'model = dict(flip=flip, turn=turn)\n',
            'flip.0.a',
            'Set these instead: model.flip.0.a=7 model.turn.0.a=7',
        ),
        ('model = dict(a=[1])', 'model.a.5', '--cfg-options model.a.5'),
    ],
    ids=['lost', 'misspelt', 'absent', 'unpacked', 'two alike', 'out of range'],
)
def test_options_without_effect_are_refused(
    here: Path, text: str, option: str, message: str
) -> None:
    (here / 'a.py').write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_config('a.py', {option: 7})


def test_options_of_a_config_object_follow_variables_too() -> None:
    flips = [dict(type='RandomFlip', prob=0.5)]
    config = Config(dict(flips=flips, train_dataloader=dict(pipeline=flips)))
    changed = load_config(config, {'flips.0.prob': 0.125})
    assert changed.train_dataloader.pipeline[0].prob == 0.125
    assert config.train_dataloader.pipeline[0].prob == 0.5


@pytest.mark.parametrize(
    'name',
    [
        'baselines/own_folder_linear',
        'esda/pascal5i_vitb16_fold0',
        'zegclip/coco2voc_vitb16',
        'zegclip/voc_vitb16',
        'zs3net/shapes_clip',
        'zs3net/voc_r101_deeplabv3plus_2unseen_step2',
    ],
)
def test_options_of_the_variables_of_shipped_configs_have_effect(name: str) -> None:
    shipped = load_config(name)
    for variable in shipped.keys() - READ_KEYS:
        for key, old in walk(shipped[variable], variable):
            if not isinstance(old, str | int | float):
                continue
            new = 'changed' if isinstance(old, str) else 7654321
            try:
                config = load_config(shipped, {key: new})
            except ValueError:  # refused
                continue
            tops = {found.partition('.')[0] for found in keys_with(config, new)}
            assert tops & READ_KEYS or variable == 'test_pipeline', key


@pytest.mark.parametrize(
    ('path', 'name'),
    [
        ('configs/zegclip/shapes_tiny.py', 'zegclip/shapes_tiny'),
        ('/site/zs3_mmseg/.mim/configs/esda/shapes_tiny.py', 'esda/shapes_tiny'),
        ('/there/configs/shapes/ablations/no_bias.py', 'shapes/ablations/no_bias'),
        ('/configs/there/configs/a.py', 'a'),
        ('mine.py', 'mine'),
        ('first/mine.py', 'first/mine'),
        ('/elsewhere/first/mine.py', 'mine'),
    ],
)
def test_runs_of_methods_do_not_share_a_name(here: Path, path: str, name: str) -> None:
    assert run_name(path).as_posix() == name


def test_numbers_are_not_changed_in_vain_either(here: Path) -> None:
    (here / 'a.py').write_text(
        'length = 40\nfind_unused_parameters = True\n'
        'train_cfg = dict(max_iters=length, val_interval=length)\n'
        'other = dict(a=True)\n'
    )
    named = r'train_cfg\.max_iters=9 train_cfg\.val_interval=9'
    with pytest.raises(ValueError, match=named):
        read_config('a.py', {'length': 9})
    # This one is read where it stands.
    config = read_config('a.py', {'find_unused_parameters': False})
    assert config.find_unused_parameters is False


@pytest.mark.parametrize(
    'wrong', ['configs/zegclip/voc_vitb61.py', 'configs/zgclip/voc_vitb16.py']
)
def test_missing_config_names_the_closest(here: Path, wrong: str) -> None:
    file = here / 'configs/zegclip/voc_vitb16.py'
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(
        FileNotFoundError, match=r'Did you mean .*zegclip/voc_vitb16\.py'
    ):
        read_config(wrong)


def test_every_missing_file_is_named_with_its_key(here: Path) -> None:
    (here / 'data').mkdir()
    config = Config(
        {
            'load_from': 'best.pth',
            'model': {
                'backbone': {'pretrained': 'clip/ViT.pt', 'init_cfg': None},
                'embeddings': [{'path': '/nowhere/vectors.npy'}],
            },
            'test_dataloader': {
                'dataset': {
                    'dataset': {
                        'data_root': 'data',
                        'data_prefix': {'img_path': 'img', 'seg_map_path': None},
                        'ann_file': 'val.txt',
                    }
                }
            },
            'train_dataloader': {
                'dataset': {'data_root': 'absent', 'ann_file': 'train.txt'}
            },
        }
    )
    with pytest.raises(FileNotFoundError) as caught:
        require_config_files(config, ['test_dataloader', 'val_dataloader'])
    message = str(caught.value)
    inner = 'test_dataloader.dataset.dataset'
    for line in (
        "load_from = 'best.pth'",
        "model.backbone.pretrained = 'clip/ViT.pt'",
        "model.embeddings.0.path = '/nowhere/vectors.npy'",
        f"{inner}.data_prefix.img_path = 'data/img'",
        f"{inner}.ann_file = 'data/val.txt'",
        '--cfg-options load_from=PATH',
    ):
        assert line in message
    assert 'absent' not in message  # a loader that is not used


def with_rows(**model: object) -> Config:
    rows = {'source': {'type': 'tensor', 'path': 'rows.npy'}}
    return Config(
        {'load_from': 'best.pth', 'model': {'class_embeddings': rows, **model}}
    )


def test_rows_may_be_in_the_checkpoint_alone(here: Path) -> None:
    (here / 'best.pth').touch()
    require_config_files(with_rows(), [])
    wrapped = Config({'load_from': 'best.pth', 'model': {'module': with_rows().model}})
    require_config_files(wrapped, [])
    config = with_rows(test_split='voc12_15_5')
    with pytest.raises(FileNotFoundError, match=r'source\.path = .rows\.npy'):
        require_config_files(config, [])
    config = with_rows()
    config.load_from = None
    with pytest.raises(FileNotFoundError, match=r'source\.path = .rows\.npy'):
        require_config_files(config, [])


def test_vectors_of_a_hook_are_for_training_only(here: Path) -> None:
    (here / 'best.pth').touch()
    source = {'type': 'vectors', 'path': 'glove.6B.300d.txt'}
    config = Config(
        {
            'load_from': 'best.pth',
            'custom_hooks': [{'class_embeddings': {'source': source}}],
        }
    )
    require_config_files(config, [])
    with pytest.raises(FileNotFoundError, match=r'(?s)custom_hooks\.0.*nlp\.stanford'):
        require_config_files(config, [], training=True)


@pytest.mark.parametrize(
    'model',
    [
        {'pretrained': 'openai'},
        {'pretrained': 'https://example.org/w.pth'},
        {'pretrained': 'hf-hub:someone/clip.bin'},
        {'pretrained': 'w.pth'},
        {'pretrained': None},
    ],
)
def test_tags_addresses_and_present_files_pass(here: Path, model: dict) -> None:
    (here / 'w.pth').touch()
    require_config_files(Config({'model': model, 'load_from': None}), [])


@pytest.mark.parametrize(
    'dataset',
    [
        {'data_root': 'data/made_on_first_use'},
        {'data_root': 's3://bucket', 'data_prefix': {'img_path': 'img'}},
        {'data_root': 'x', 'ann_file': 'y', 'backend_args': {'backend': 'petrel'}},
    ],
    ids=['made', 'address', 'backend'],
)
def test_data_that_need_not_be_there_passes(here: Path, dataset: dict) -> None:
    loader = {'train_dataloader': {'dataset': dataset}}
    require_config_files(Config(loader), ['train_dataloader'])


@pytest.mark.parametrize(
    ('dataset', 'at_start', 'after_failure'),
    [
        (dict(data_root='no', ann_file='a'), ['data_root'], ['data_root']),
        (dict(data_root='no'), [], ['data_root']),
        (dict(data_root='.', ann_file='no'), ['ann_file'], ['ann_file']),
        (dict(ann_file='no', data_prefix={}), ['ann_file'], ['ann_file']),
        (
            dict(data_root='.', data_prefix={'img_path': 'no', 'seg_map_path': ''}),
            ['data_prefix.img_path'],
            ['data_prefix.img_path'],
        ),
        (
            dict(data_root='no', ann_file='a', backend_args={'backend': 'local'}),
            [],
            ['data_root'],
        ),
        (dict(data_root='.', data_prefix={'img_path': None}), [], []),
    ],
)
def test_more_is_looked_at_once_building_has_failed(
    here: Path, dataset: dict, at_start: list[str], after_failure: list[str]
) -> None:
    assert [option for option, _ in missing_data(dataset)] == at_start
    found = missing_data(dataset, failed=True)
    assert [option for option, _ in found] == after_failure


def test_missing_root_is_named_once(here: Path) -> None:
    dataset = {
        'data_root': 'VOC',
        'ann_file': 'a.txt',
        'data_prefix': {'img_path': 'i'},
    }
    with pytest.raises(
        FileNotFoundError, match=r"dataset\.data_root = 'VOC'"
    ) as caught:
        require_config_files(
            Config({'val_dataloader': {'dataset': dataset}}), ['val_dataloader']
        )
    assert 'ann_file' not in str(caught.value)


def test_tensorboard_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    backends = [{'type': 'LocalVisBackend'}, {'type': 'TensorboardVisBackend'}]
    config = Config({'visualizer': {'vis_backends': backends}})
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'this package with \[tensorboard\]'):
        require_extras(config)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: object())
    require_extras(config)


def test_the_home_folder_is_put_in_everywhere(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('HOME', str(here))
    (here / 'a.py').write_text(
        "data_root = '~/data'\nload_from = '~/a.pth'\n"
        "model = dict(class_embeddings=dict(source=dict(path='~/rows.npy')))\n"
        "test_dataloader = dict(dataset=dict(type='X', data_root=data_root,\n"
        "    data_prefix=dict(img_path='~/x'), files=['a', ('~/b', 3)]))\n"
        "kept = ['a~b', '~5 %', 'C$', '$x$']\nhome = '{{$HOME:}}/x'\n"
    )
    config = read_config('a.py', {'work_dir': '~/runs'})
    dataset = config.test_dataloader.dataset
    assert [
        config.load_from,
        config.work_dir,
        config.home,
        config.model.class_embeddings.source.path,
        dataset.data_root,
        dataset.data_prefix.img_path,
        dataset.files[1][0],
    ] == [
        f'{here}/{name}'
        for name in ('a.pth', 'runs', 'x', 'rows.npy', 'data', 'x', 'b')
    ]
    assert config.kept == ['a~b', '~5 %', 'C$', '$x$']


@pytest.mark.parametrize('path', ['$DATA/x', '${DATA}/x', '$DATA'])
def test_variables_of_the_shell_are_refused_with_the_way_out(
    here: Path, path: str
) -> None:
    (here / 'a.py').write_text(f'model = dict(path={path!r})')
    with pytest.raises(ValueError, match=r"model\.path = .*'\{\{\$DATA:\}\}"):
        read_config('a.py')


BASE = """
crop_size = (8, 8)
root = 'here'
length = 40
num_classes = 2
def_pipeline = []
test_pipeline = [dict(type='Resize', scale=crop_size), dict(type='Pack')]
tta_pipeline = [dict(type='TestTimeAug', scale=crop_size)]
split = dict(folder=root)
model = dict(split=split, test_cfg=dict(crop_size=crop_size), layers=2)
test_dataloader = dict(dataset=dict(split=split, pipeline=test_pipeline))
val_dataloader = test_dataloader
train_cfg = dict(max_iters=length, val_interval=length)
"""
IN_VAIN = {
    "root = 'there'": ['model.split.folder', 'test_dataloader.dataset.split.folder'],
    "split = dict(folder='there', _delete_=True)": ['model.split'],
    "test_pipeline = [dict(type='Pack')]": [
        'test_dataloader.dataset.pipeline',
        'val_dataloader.dataset.pipeline',
    ],
    'crop_size = (9, 9)': ['model.test_cfg.crop_size'],
    'length = 9': ['train_cfg.max_iters', 'train_cfg.val_interval'],
}
IN_EFFECT = [
    '',
    "root = 'there'\nsplit = dict(folder=root)\nmodel = dict(split=split)\n"
    'val_dataloader = test_dataloader = dict(dataset=dict(split=split))',
    "test_pipeline = [dict(type='Pack')]\n"
    'val_dataloader = test_dataloader = dict(dataset=dict(pipeline=test_pipeline))',
    # The loaders alone, one of two, and what only equals a number of the base.
    "test_dataloader = dict(dataset=dict(pipeline=[dict(type='Pack')]))",
    "test_pipeline = [dict(type='Pack')]\n"
    'test_dataloader = dict(dataset=dict(pipeline=test_pipeline))',
    'num_classes = 2\nmodel = dict(layers=3)',
    'length = 9\ntrain_cfg = dict(max_iters=length)',
    'def_pipeline = [dict()]',
]


@pytest.mark.parametrize('change', IN_VAIN)
@pytest.mark.parametrize('levels', [1, 2])
def test_a_file_changes_no_variable_of_its_base_in_vain(
    change: str, levels: int, here: Path
) -> None:
    (here / 'base.py').write_text(BASE)
    (here / 'mine.py').write_text(f"_base_ = 'base.py'\n{change}\n")
    (here / 'leaf.py').write_text("_base_ = 'mine.py'\n")
    with pytest.raises(ValueError, match=r'base\.py has already put into') as raised:
        read_config('mine.py' if levels == 1 else 'leaf.py')
    assert all(place in str(raised.value) for place in IN_VAIN[change])


@pytest.mark.parametrize('change', IN_EFFECT)
def test_a_file_may_change_what_it_changes_everywhere(change: str, here: Path) -> None:
    (here / 'base.py').write_text(BASE)
    (here / 'mine.py').write_text(f"_base_ = 'base.py'\n{change}\n")
    read_config('mine.py')


# Those for own data, and some that change variables of a base of another kind.
SHIPPED = [
    *(name for name in shipped_configs() if 'own_folder' in name or 'photo' in name),
    *('zegclip/voc_vitl14', 'zegclip/coco2voc_vitb16', 'esda/coco20i_vitb16_fold1'),
    *('zs3net/shapes_clip', 'zs3net/voc_r101_deeplabv3plus_4unseen_step2'),
]


@pytest.mark.parametrize('name', SHIPPED)
def test_shipped_configs_change_no_variable_in_vain(name: str) -> None:
    read_config(shipped_configs()[name])


def test_a_pipeline_is_left_behind_by_the_one_it_was_made_for(here: Path) -> None:
    (here / 'base.py').write_text(BASE)
    test = "_base_ = 'base.py'\ntest_pipeline = [dict(type='Pack')]\n"
    (here / 'one.py').write_text(test)
    (here / 'both.py').write_text(f'{test}tta_pipeline = [dict()]\n')
    found = {
        name: stays_behind(
            Config.fromfile(f'{name}.py'), 'tta_pipeline', 'test_pipeline'
        )
        for name in ('base', 'one', 'both')
    }
    assert found == {'base': False, 'one': True, 'both': False}


@pytest.mark.parametrize(
    ('written', 'meant'),
    [('modle', 'model'), ('work_dirr', 'work_dir'), ('trian_cfg', 'train_cfg')],
)
def test_slips_of_the_pen_in_keys_are_refused(
    tmp_path: Path, written: str, meant: str
) -> None:
    file = tmp_path / 'config.py'
    file.write_text(f'{written} = dict(a=1)\n')
    with pytest.raises(ConfigError, match=f"'{written}'. Did you mean '{meant}'"):
        read_config(file)


def test_variables_may_be_called_anything(tmp_path: Path) -> None:
    file = tmp_path / 'config.py'
    text = 'modle = dict(type="A")\nmodel = modle\nmax_iters = 3\nevaluator = {}\n'
    file.write_text(text)
    assert read_config(file).model.type == 'A'
