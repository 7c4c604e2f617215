"""tools/convert_checkpoint.py zegclip, on weights and scores of the official code."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from mmseg.apis import inference_model

from zs3_mmseg.apis import init_segmentor
from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank
from zs3_mmseg.models.towers import release_towers

GOLDEN = Path(__file__).parents[1] / 'data/golden'
NAMES = ['ant', 'bee', 'cat', 'dog', 'eel', 'fox']
Convert = Callable[..., Any]

# What somebody else's project would write: nothing of ours but custom_imports.
FOREIGN = """
custom_imports = dict(imports=['zs3_mmseg'])
default_scope = 'mmseg'
model = dict(
    type='ZeroShotEncoderDecoder',
    split={split!r},
    setting={setting!r},
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.5] * 3, std=[64.0] * 3, bgr_to_rgb=True
    ),
    backbone=dict(
        type='OpenCLIPViT', arch={arch!r}, image_size={image_size}, out_global=True,
        grid='floor', pos_interp='bilinear', cls_embed_twice=True, normalize=True,
        prompts=dict(num_tokens={tokens}, depth={depth}), {tower}
    ),
    decode_head=dict(
        type='ZegCLIPHead', num_layers={layers}, num_heads={heads}, {head}
    ),
    # There is no such file: the rows must come out of the checkpoint.
    class_embeddings=dict(
        type='ClassEmbeddingBank',
        source=dict(type='tensor', path='not_there.npy'{rows}),
    ),
    calibrators={calibrators!r},
    test_cfg=dict(mode='whole', mask_size={image_size}),
)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset', img_suffix='.png', reduce_zero_label=False,
        metainfo=dict(classes={names!r}, palette=[[i, i, i] for i in range(6)]),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        pipeline=test_pipeline,
    ),
)
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_cfg = dict(type='TestLoop')
"""


class Official:
    """A recording of the official code, laid out as the files of a release."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        self.tensors = load_file(GOLDEN / f'{name}.safetensors')
        described = json.loads((GOLDEN / f'{name}.json').read_text())
        self.config = described['config']
        self.names = described.get('class_names', NAMES)
        unseen = [self.names[i] for i in self.config['novel_class']]
        self.split = dict(classes=self.names, unseen=unseen)
        (folder / 'split.json').write_text(json.dumps(self.split))
        (folder / 'arch.json').write_text(json.dumps(self.arch()))
        np.save(folder / 'rows.npy', self.tensors['text_feat'].numpy())
        self.meta: dict[str, Any] = {'mmcv_version': '1.4.4', 'CLASSES': self.names}
        self.state = {
            key.removeprefix('state.'): value
            for key, value in self.tensors.items()
            if key.startswith('state.')
        }

    def arch(self) -> dict[str, Any]:
        image, text = self.config['backbone'], self.config['text_encoder']
        return dict(
            embed_dim=image['output_dim'],
            quick_gelu=True,
            vision_cfg=dict(
                image_size=32,  # the checkpoint has positions for more
                patch_size=image['patch_size'],
                width=image['width'],
                head_width=image['width'] // image['heads'],
                layers=image['layers'],
            ),
            text_cfg=dict(
                context_length=text['context_length'],
                vocab_size=text['vocab_size'],
                width=text['transformer_width'],
                heads=text['transformer_heads'],
                layers=text['transformer_layers'],
            ),
        )

    def save(self) -> None:
        """Write ``official.pth`` as torch 1.5 and NumPy 1 did."""
        meta = self.meta | {'iter': np.int64(20000), 'mIoU': np.float64(0.5)}
        state = {f'module.{key}': value for key, value in self.state.items()}
        content = dict(meta=meta, state_dict=state, optimizer=dict(param_groups=[]))
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=False)
        raw = stream.getvalue().replace(
            b'numpy._core.multiarray', b'numpy.core.multiarray'
        )
        (self.folder / 'official.pth').write_bytes(raw)

    def foreign_config(
        self, setting: str, tower: str = '', head: str = '', rows: str = ''
    ) -> Path:
        image, sizes = self.config['backbone'], self.config['decode_head']
        shift = [dict(type='SeenShift', shift=0.1)]
        text = FOREIGN.format(
            split=self.split,
            setting=setting,
            arch=self.arch(),
            image_size=image['input_resolution'],
            tokens=image['num_tokens'],
            depth=image['total_d_layer'],
            layers=sizes['num_layers'],
            heads=sizes['num_heads'],
            calibrators=[] if setting == 'transductive' else shift,
            names=NAMES,
            tower=tower,
            head=head,
            rows=rows,
        )
        path = self.folder / 'foreign.py'
        path.write_text(text)
        return path


@pytest.fixture
def convert(run_tool, tmp_path: Path) -> Convert:
    """Return a function that saves a recording and runs the tool on it."""

    def run(official: Official, *flags: object, method: str = 'zegclip') -> Any:
        official.save()
        arguments: list[object] = [method, 'official.pth', 'out.pth']
        arguments += ['--split', 'split.json', '--arch', 'arch.json']
        arguments += ['--text-rows', 'rows.npy', *flags]
        return run_tool('convert_checkpoint.py', *arguments, folder=tmp_path)

    return run


@pytest.fixture
def inductive(tmp_path: Path) -> Official:
    return Official('zegclip_inductive', tmp_path)


def assert_close(ours: Tensor, official: Tensor) -> None:
    atol = 1e-5 * official.abs().max().item()
    torch.testing.assert_close(ours, official, rtol=0, atol=atol)


@pytest.mark.parametrize('setting', ['inductive', 'transductive', 'supervised'])
def test_scores_are_the_official_ones_in_a_foreign_config(
    convert, tmp_path: Path, setting: str
) -> None:
    official = Official(f'zegclip_{setting}', tmp_path)
    said = ['--setting', setting] if setting == 'transductive' else []
    finished = convert(official, *said)
    assert finished.status == 0, finished.output
    model = init_segmentor(official.foreign_config(setting), tmp_path / 'out.pth')
    assert model.class_names == tuple(NAMES)
    image = official.tensors['img']
    with torch.no_grad():
        scores = model.encode_decode(image, [{}] * len(image))
    assert_close(scores, official.tensors['eval.logits'])


#: What a config of each other method of the family adds, as the converter reports it.
FAMILY = {
    'otseg': dict(
        head="attention='sinkhorn', mask_from='plan', merge_layers='gate', "
        "score_path='sinkhorn'",
        rows=', prompts_per_row=6',
    ),
    'cascade_clip': dict(
        tower="out_indices=(0, 1, 2, 3, 4, 5, -1), tap_projection='frozen_random'",
        head='tap_groups=((0, 1, 2), (3, 4, 5))',
    ),
    'spt_seg': dict(tower='spectral=dict(blocks=(0, 1))', head="attention='hilo'"),
    'clip_rc': dict(
        tower="extra_tokens=dict(type='RegionTokens', num_tokens=16)",
        head="query_context='groups', memory=('group', 'image', 'patch'), "
        "two_way=True, mask_from='dot', recovery=dict(num_layers=1)",
    ),
    'tagclip': dict(head="self_attn_layers=(0,), extra_query='trust'"),
}
#: Those whose recordings are called otherwise, and what has to be said of some files.
RECORDED = {'cascade_clip': 'cascade', 'spt_seg': 'spt', 'clip_rc': 'cliprc'}
SAID = {'clip_rc': ['--setting', 'inductive']}


@pytest.mark.parametrize('method', FAMILY)
def test_the_family_is_converted_as_well(convert, tmp_path: Path, method: str) -> None:
    official = Official(f'{RECORDED.get(method, method)}_inductive', tmp_path)
    finished = convert(official, *SAID.get(method, ()), method=method)
    assert finished.status == 0, finished.output
    for value in re.findall(r"'\w+'", ' '.join(FAMILY[method].values())):
        assert value in finished.output
    leaks = method == 'tagclip'
    assert ("setting='unseen_location'" in finished.output) == leaks
    setting = 'unseen_location' if leaks else 'inductive'
    config = official.foreign_config(setting, **FAMILY[method])
    model = init_segmentor(config, tmp_path / 'out.pth')
    image = official.tensors['img']
    with torch.no_grad():
        scores = model.encode_decode(image, [{}] * len(image))
    assert_close(scores, official.tensors['eval.logits'])


@pytest.mark.parametrize(
    ('recording', 'method', 'message'),
    [
        ('otseg', 'zegclip', 'has 6 rows for each class.* convert it with otseg'),
        ('cascade', 'zegclip', 'its .*cascade_decoders.* with cascade_clip'),
        ('zegclip', 'cascade_clip', 'no .*cascade_decoders.* with zegclip'),
        ('spt', 'zegclip', 'its backbone.complex_weight .* with spt_seg'),
        ('cliprc', 'tagclip', 'its backbone.region_level_bridge .* with clip_rc'),
        ('zegclip', 'tagclip', 'no .*discriptor.* of TagCLIP; .* with zegclip'),
    ],
)
def test_another_method_of_the_family_is_named(
    convert, tmp_path: Path, recording: str, method: str, message: str
) -> None:
    refused = convert(Official(f'{recording}_inductive', tmp_path), method=method)
    assert refused.status == 2
    assert re.search(message, ' '.join(refused.output.split()))


@pytest.mark.slow
def test_the_test_tool_takes_it(convert, run_tool, inductive, tmp_path: Path) -> None:
    assert convert(inductive).status == 0
    config = inductive.foreign_config('inductive')
    for name in ('images', 'labels'):
        (tmp_path / name).mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (80, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'images/a.png')
    model = init_segmentor(config, tmp_path / 'out.pth')
    model.cfg.test_pipeline = [model.cfg.test_pipeline[0], model.cfg.test_pipeline[2]]
    labels = inference_model(model, str(tmp_path / 'images/a.png')).pred_sem_seg.data
    assert len(labels.unique()) > 1
    Image.fromarray(labels[0].byte().numpy()).save(tmp_path / 'labels/a.png')
    finished = run_tool(
        'test.py', config, 'out.pth', '--work-dir', 'work', folder=tmp_path
    )
    assert finished.status == 0, finished.output
    assert json.loads((tmp_path / 'work/metrics.json').read_text())['aAcc'] == 100

    other = f'model.split.unseen=[{NAMES[0]}]'
    refused = run_tool(
        'test.py', config, 'out.pth', '--cfg-options', other, folder=tmp_path
    )
    assert refused.status == 2
    assert 'the checkpoint was trained with split' in refused.output
    assert 'Traceback' not in refused.output
    content = torch.load(tmp_path / 'out.pth', weights_only=True)
    assert content['meta']['dataset_meta']['classes'] == list(NAMES)
    del content['state_dict']['_extra_state']
    torch.save(content, tmp_path / 'no_rows.pth')
    refused = run_tool('test.py', config, 'no_rows.pth', folder=tmp_path)
    assert refused.status == 2
    assert 'missing in the file: _extra_state' in refused.output
    assert 'as model.class_embeddings says' in refused.output
    flags = ['--allow-missing']
    refused = run_tool('test.py', config, 'no_rows.pth', *flags, folder=tmp_path)
    assert refused.status == 2
    assert 'not_there.npy of class_embeddings.source.path' in refused.output


def test_a_setting_that_the_file_rules_out(convert, inductive: Official) -> None:
    finished = convert(inductive, '--setting', 'supervised')
    assert finished.status == 2
    assert '--setting supervised cannot be' in finished.output
    finished = convert(inductive, '--setting', 'unseen_location')
    assert finished.status == 2
    assert 'is for TagCLIP with its trusty token' in finished.output


def test_another_setting_than_that_of_the_training_is_told(
    convert, inductive: Official, tmp_path: Path, log: list
) -> None:
    assert convert(inductive).status == 0
    for setting, told in (('inductive', 0), ('transductive', 0), ('supervised', 1)):
        init_segmentor(inductive.foreign_config(setting), tmp_path / 'out.pth')
        said = [entry for entry in log if "with setting='inductive'" in entry.msg]
        assert len(said) == told


def test_the_report_names_every_key_and_the_model(convert, inductive) -> None:
    output = convert(inductive).output
    listed = {line.strip().split(' ')[0] for line in output.splitlines()}
    assert set(inductive.state) <= listed
    for line in (
        '0 UNKNOWN in the source',
        '0 MISSING in the source',
        'decode_head.decoder_1.layers.0.self_attn.in_proj_bias (never used)',
        'decode_head.decoder_1.layers.2.linear1.weight (no gradient ever reached it)',
        'prompts=dict(depth=3, num_tokens=3)',
        "setting='inductive'",
    ):
        assert line in output


def test_the_text_tower_gives_rows_of_new_names(convert, tmp_path: Path) -> None:
    official = Official('zegclip_text_segmentor', tmp_path)
    finished = convert(official, '--text-tower-out', 'tower.safetensors')
    assert finished.status == 0, finished.output
    release_towers()
    bank = ClassEmbeddingBank(
        dict(
            type='clip_text',
            arch=official.arch(),
            pretrained=str(tmp_path / 'tower.safetensors'),
            cache=False,
        ),
        templates='single',
    )
    rows = bank.embed(official.names).embeddings
    assert_close(rows, official.tensors['text_feat'])


def test_rows_follow_the_names_of_the_checkpoint(
    convert, inductive: Official, tmp_path: Path
) -> None:
    inductive.meta['CLASSES'] = tuple(name.upper() for name in reversed(NAMES))
    assert convert(inductive).status == 0
    state = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
    rows = inductive.tensors['text_feat'].flip(0)
    assert torch.equal(state['_extra_state']['embeddings'], rows.float())
    (tmp_path / 'rows.json').write_text(json.dumps(NAMES))
    assert convert(inductive, '--force').status == 0
    state = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
    assert torch.equal(state['_extra_state']['embeddings'], rows.flip(0).float())


def test_rows_that_are_not_there_are_named_with_their_origin(
    convert, inductive: Official, tmp_path: Path
) -> None:
    (tmp_path / 'rows.npy').unlink()
    refused = convert(inductive)
    assert refused.status == 2
    assert '--text-rows rows.npy does not exist' in refused.output
    assert 'https://github.com/ZiqinZhou66/ZegCLIP' in refused.output


def drop(key: str) -> Callable[[Official], object]:
    return lambda official: official.state.pop(key)


def add(key: str, *size: int) -> Callable[[Official], object]:
    return lambda official: official.state.update({key: torch.zeros(size)})


@pytest.mark.parametrize(
    ('change', 'status', 'message'),
    [
        (drop('backbone.ln_post.bias'), 1, '1 MISSING in the source\n  backbone.'),
        (add('decode_head.decoder_2.q', 1), 1, '1 UNKNOWN in the source\n  decode_'),
        (add('decode_head.q_proj.bias', 9), 1, '1 OF ANOTHER SHAPE\n  decode_head.'),
        (add('text_encoder.novel', 1), 1, '1 UNKNOWN in the source\n  text_encoder.'),
        (drop('backbone.conv1.weight'), 2, 'is no official ZegCLIP checkpoint'),
        (
            add('decode_head.loss_decode.criterion.empty_weight', 4),
            2,
            'trained with 3 classes, but split',
        ),
        (
            add('decode_head.loss_decode.criterion.empty_weight', 7),
            2,
            'with 6 classes: say --setting transductive or supervised',
        ),
        (
            lambda official: official.meta.update(CLASSES=('gnu', *NAMES[1:])),
            2,
            "unknown to the split ['gnu'], not in the checkpoint ['ant']",
        ),
        (
            lambda official: np.save(official.folder / 'rows.npy', np.ones((6, 5))),
            2,
            'have 5 columns',
        ),
        (
            lambda official: np.save(
                official.folder / 'rows.npy', np.array([{}]), allow_pickle=True
            ),
            2,
            'no plain .npy array',
        ),
    ],
)
def test_nothing_is_guessed(
    convert, inductive: Official, tmp_path: Path, change, status: int, message: str
) -> None:
    change(inductive)
    finished = convert(inductive)
    assert finished.status == status
    assert message in finished.output
    assert not (tmp_path / 'out.pth').exists()


def test_a_tower_that_is_not_there_or_in_the_way(
    convert, inductive: Official, tmp_path: Path
) -> None:
    (tmp_path / 'tower.safetensors').write_text('mine')
    flags = ['--text-tower-out', 'tower.safetensors']
    refused = convert(inductive, *flags)
    assert (refused.status, 'is there already' in refused.output) == (2, True)
    for key in [key for key in inductive.state if key.startswith('text_encoder.')]:
        del inductive.state[key]
    refused = convert(inductive, *flags, '--force')
    assert (refused.status, 'holds no text tower' in refused.output) == (2, True)
    assert not (tmp_path / 'out.pth').exists()
    assert convert(inductive).status == 0
