"""The smallest, the largest and other odd vocabularies, through every method."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RUNTIME = """
_base_ = ['zs3_mmseg::_base_/models/{model}.py',
          'zs3_mmseg::_base_/datasets/folder.py',
          'zs3_mmseg::_base_/schedules/schedule_320.py',
          'zs3_mmseg::_base_/default_runtime.py']
split = dict(folder='data')
loader = dict(num_workers=0, persistent_workers=False)
data = dict(split=split, dataset=dict(data_root='data'))
train_dataloader = dict(loader, batch_size=2, dataset=dict(data))
test_dataloader = dict(loader, dataset=dict(data))
val_dataloader = test_dataloader
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
preprocessor = dict(seg_pad_val={ignore})
train_dataloader['dataset']['pipeline'] = [
    dict(type='LoadImageFromFile'), dict(type='LoadFolderMasks'),
    dict(type='PackSegInputs')]
model = dict(split=split, setting={setting!r}, data_preprocessor=preprocessor)
train_dataloader['dataset']['setting'] = {setting!r}
"""
OURS = "model['decode_head'] = dict({head}, ignore_index={ignore})\n"
PAIRS = """
for part in (train_dataloader, test_dataloader):
    part['dataset'].update(
        type='ClassPromptDataset', min_pixels=1, unseen_policy='ignore')
test_dataloader['dataset'].update(
    sampling='exhaustive', prompts='all',
    pipeline=train_dataloader['dataset']['pipeline'])
val_dataloader = val_cfg = val_evaluator = None
train_cfg.update(val_interval=99)
test_evaluator = dict(_delete_=True, type='FoldIoUMetric')
"""
RETRAINING = """
model = dict(
    _delete_=True, type='EncoderDecoder', train_cfg=dict(), test_cfg=dict(mode='whole'),
    data_preprocessor=dict(
        type='SegDataPreProcessor', size_divisor=8, **preprocessor),
    backbone=dict(type='ResNet', depth=18, base_channels=8, out_indices=(0,),
                  num_stages=1, strides=(1,), dilations=(1,)),
    decode_head=dict(type='FCNHead', in_channels=8, channels=8, num_convs=0,
                     concat_input=False, in_index=0, ignore_index={ignore},
                     num_classes={number}))
custom_hooks = [dict(type='ProtocolCheckHook'), dict(
    type='GenerativeRetrainingHook', segmentor_iters=1, class_embeddings=dict(
        source=dict(type='clip_text', arch='zs3-shapes-tiny', pretrained='shapes')))]
"""
METHODS = {
    'dense': ('clip_shapes_tiny', OURS.replace('{head}, ', '')),
    'linear': (
        'clip_shapes_tiny',
        OURS.replace('{head}', "_delete_=True, type='TextPixelHead'"),
    ),
    'zegclip': ('zegclip_shapes_tiny', OURS.replace('{head}, ', '')),
    'zegclip ce': (
        'zegclip_shapes_tiny',
        OURS.replace('{head}', 'loss_decode=None, mask_bias=None'),
    ),
    'cosine': (
        'clip_shapes_tiny',
        OURS.replace('{head}', "_delete_=True, type='CosineRegressionHead'"),
    ),
    'esda': ('esda_shapes_tiny', OURS.replace('{head}, ', '') + PAIRS),
    'zs3': ('clip_shapes_tiny', RETRAINING),
}


@dataclass
class Vocabulary:
    """Class names, those unseen, and those that val images hold."""

    classes: list[str]
    unseen: list[str]
    shown: list[str]
    setting: str = 'inductive'


FOUR = ['star', 'boat', 'car', 'house']
MANY = [f'thing {index}' for index in range(300)]
VOCABULARIES = {
    'one class': Vocabulary(['star'], [], ['star'], 'supervised'),
    'nothing seen': Vocabulary(FOUR, FOUR, FOUR),
    'all seen': Vocabulary(FOUR, [], FOUR, 'supervised'),
    'two classes': Vocabulary(FOUR[:2], ['boat'], FOUR[:2]),
    'background': Vocabulary(['background', *FOUR], ['boat'], ['background', 'boat']),
    'no unseen in val': Vocabulary(FOUR, ['boat'], ['star', 'car']),
    'no seen in val': Vocabulary(FOUR, ['boat'], ['boat']),
    '254 classes': Vocabulary(MANY[:254], MANY[250:254], MANY[249:254]),
    '255 classes': Vocabulary(MANY[:255], MANY[250:255], MANY[249:255]),
    '256 classes': Vocabulary(MANY[:256], MANY[250:256], MANY[249:256]),
    '300 classes': Vocabulary(MANY, MANY[280:], MANY[275:]),
}


def write_folder(root: Path, vocabulary: Vocabulary) -> int:
    """Write three train and two val images; return the label that is ignored."""
    ignore = 255 if len(vocabulary.classes) <= 254 else 65535
    for subset, count in (('train', 3), ('val', 2)):
        names = vocabulary.shown if subset == 'val' else vocabulary.classes
        labels = [vocabulary.classes.index(name) for name in names]
        for number in range(count):
            rng = np.random.default_rng((number, len(labels)))
            mask = np.full((32, 32), ignore, np.uint16)
            mask[:28] = np.repeat(np.repeat(rng.choice(labels, (7, 8)), 4, 0), 4, 1)
            mask[0, : len(labels)] = labels[:32]
            for kind, picture in (
                ('images', rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)),
                ('masks', mask if ignore > 255 else mask.astype(np.uint8)),
            ):
                path = root / kind / subset / f'{number}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)
    (root / 'classes.txt').write_text('\n'.join(vocabulary.classes))
    if vocabulary.unseen:
        (root / 'unseen.txt').write_text('\n'.join(vocabulary.unseen))
    return ignore


ONE = "has one class, 'star'"
NOTHING = 'has no seen class to '
NOT_LEARNT = "trains one class, 'star', and a softmax over one class is 1 everywhere"
#: What training refuses, by vocabulary and method.
REFUSED = {
    **{('one class', method): ONE for method in METHODS if method != 'esda'},
    **{('nothing seen', method): NOTHING for method in METHODS},
    ('two classes', 'linear'): NOT_LEARNT,
    ('two classes', 'zegclip ce'): NOT_LEARNT,
    ('all seen', 'zs3'): '0 of 4 classes are unseen',
}
del REFUSED['nothing seen', 'dense']  # it is not trained


def write_run(root: Path, name: str, method: str) -> Vocabulary:
    """Write data and the config ``run.py``."""
    vocabulary = VOCABULARIES[name]
    model, text = METHODS[method]
    text = (RUNTIME + text).format(
        model=model,
        ignore=write_folder(root / 'data', vocabulary),
        setting=vocabulary.setting,
        number=len(vocabulary.classes),
    )
    if method == 'dense':
        text += 'train_dataloader = train_cfg = optim_wrapper = None\n'
        text += 'param_scheduler = val_dataloader = val_cfg = val_evaluator = None\n'
    (root / 'run.py').write_text(text)
    return vocabulary


def refuses(finished, message: str) -> bool:
    """Whether a tool ended with one line, which holds the message."""
    lines = [line for line in finished.output.splitlines() if message in line]
    traceback = 'Traceback (most recent call last)' in finished.output
    return finished.status == 2 and bool(lines) and not traceback


@pytest.mark.slow
@pytest.mark.parametrize('method', [method for method in METHODS if method != 'dense'])
@pytest.mark.parametrize('name', VOCABULARIES)
def test_it_is_trained_and_tested_or_refused(
    run_tool, tmp_path: Path, name: str, method: str
) -> None:
    write_run(tmp_path, name, method)
    trained = run_tool('train.py', 'run.py', folder=tmp_path)
    message = REFUSED.get((name, method))
    if message is not None:
        assert refuses(trained, message), trained.output
        return
    assert trained.status == 0, trained.output
    flags = ['work_dirs/run/iter_2.pth', '--out', 'maps']
    tested = run_tool('test.py', 'run.py', *flags, folder=tmp_path)
    assert tested.status == 0, tested.output


@pytest.mark.slow
@pytest.mark.parametrize('name', VOCABULARIES)
def test_without_training_it_is_tested_and_reported(
    run_tool, tmp_path: Path, name: str
) -> None:
    vocabulary = write_run(tmp_path, name, 'dense')
    finished = run_tool(
        'test.py', 'run.py', '--out', 'maps', '--report', folder=tmp_path
    )
    if name == 'one class':
        assert refuses(finished, ONE), finished.output
        return
    assert finished.status == 0, finished.output
    work_dir = tmp_path / 'work_dirs/run'
    scores = json.loads((work_dir / 'metrics.json').read_text())
    seen = {*vocabulary.classes} - {*vocabulary.unseen}
    shown = {*vocabulary.shown}
    # Accuracies are of the classes in the truth.
    assert (scores['mAcc_seen'] is None) == (not seen & shown)
    assert (scores['mAcc_unseen'] is None) == (not {*vocabulary.unseen} & shown)
    harmonic = scores['mAcc_seen'] is not None and scores['mAcc_unseen'] is not None
    assert (scores['hAcc'] is None) == (not harmonic)
    assert (work_dir / 'report/confusion.png').is_file()
    labels = np.asarray(Image.open(tmp_path / 'maps/0.png'))
    assert labels.max() < len(vocabulary.classes)


@pytest.mark.parametrize('name', ['one class', 'nothing seen', '256 classes'])
def test_data_are_checked(run_tool, tmp_path: Path, name: str) -> None:
    write_run(tmp_path, name, 'dense')
    finished = run_tool('check_data.py', 'run.py', folder=tmp_path)
    assert 'Traceback' not in finished.output
    assert finished.status == (name == 'one class'), finished.output
    if name == 'one class':
        report = tmp_path / 'work_dirs/check_data/run/report.json'
        assert ONE in report.read_text()


@pytest.mark.parametrize('number', [1, 2, 257])
def test_any_number_of_own_words(run_tool, tmp_path: Path, number: int) -> None:
    write_folder(tmp_path / 'data', VOCABULARIES['two classes'])
    names = [f'star {index}' for index in range(number)]
    picture = 'data/images/val/0.png'
    finished = run_tool(
        *('segment.py', picture, '--classes', *names, '--out-dir', 'out'),
        folder=tmp_path,
    )
    assert finished.status == 0, finished.output
    record = json.loads((tmp_path / 'out/0.json').read_text())
    assert len(record['classes']) == number
