"""Rows in checkpoints: what is saved, what is loaded, what is refused."""

from __future__ import annotations

import copy

import pytest
import torch

from mmengine.model import ExponentialMovingAverage
from mmengine.runner import save_checkpoint
from mmengine.runner.checkpoint import (
    _load_checkpoint_to_model,
    get_state_dict,
    weights_to_cpu,
)

from zs3_mmseg.models.segmentors import ZeroShotEncoderDecoder

CLASSES = ('ant', 'bee', 'cat', 'dog', 'eel')
SPLIT = dict(name='toy', classes=list(CLASSES), unseen=['bee', 'dog'])
KEY = '_extra_state'


def saved(model, path):
    """Save as mmengine's Runner does; read with nothing but tensors allowed."""
    save_checkpoint({'state_dict': weights_to_cpu(model.state_dict())}, str(path))
    return torch.load(path, weights_only=True)['state_dict']


def test_a_checkpoint_holds_names_rows_and_provenance(
    make_segmentor, rows_of, tmp_path
):
    state = saved(make_segmentor(), tmp_path / 'a.pth')[KEY]
    assert tuple(state['classes']) == CLASSES
    assert state['unseen'] == ['bee', 'dog']
    assert torch.equal(state['embeddings'], rows_of(CLASSES))
    assert state['query_to_class'].tolist() == [0, 1, 2, 3, 4]
    assert state['provenance'] == {'templates': '["{}"]', 'tower_hash': 'toy'}


def test_a_loaded_model_needs_no_bank(make_segmentor, make_bank, tmp_path):
    model = make_segmentor()
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        expected = model.encode_decode(image, [{}])
    state = saved(model, tmp_path / 'a.pth')
    bank = make_bank()
    other = make_segmentor(class_embeddings=bank)
    torch.nn.init.zeros_(other.decode_head.factor)
    _load_checkpoint_to_model(other, {'state_dict': state})
    with torch.no_grad():
        assert torch.equal(other.encode_decode(image, [{}]), expected)
        other.set_classes(['dog', 'cat'])
        other.predict(image)
    other.train().training_queries()
    assert bank.asked == []


def test_rows_of_a_checkpoint_win_over_the_bank(make_segmentor, tmp_path):
    model = make_segmentor()
    state = saved(model, tmp_path / 'a.pth')
    state[KEY]['embeddings'] += 1
    other = make_segmentor()
    other.current_queries()
    other.load_state_dict(state)
    assert torch.equal(other.current_queries().embeddings, state[KEY]['embeddings'])
    other.train()  # inductive training drops what the bank computed, not these
    assert torch.equal(other.current_queries().embeddings, state[KEY]['embeddings'])


def test_the_vocabulary_of_the_split_is_saved_whatever_the_current_one(
    make_segmentor, tmp_path
):
    model = make_segmentor()
    model.set_classes(['owl'])
    assert tuple(saved(model, tmp_path / 'a.pth')[KEY]['classes']) == CLASSES


@pytest.mark.parametrize(
    ('split', 'message'),
    [
        (
            dict(name='mine', classes=[*CLASSES, 'fox'], unseen=['bee', 'dog']),
            r"'toy' \(5 classes.*'mine' \(6 classes",
        ),
        (
            dict(name='mine', classes=CLASSES[::-1], unseen=['bee', 'dog']),
            r"'toy' \(5 classes: 'ant'.*'mine' \(5 classes: 'eel'",
        ),
        (
            dict(name='mine', classes=[*CLASSES], unseen=['bee']),
            r"'toy' \(2 unseen: 'bee', 'dog'\).*'mine' \(1 unseen: 'bee'\)",
        ),
    ],
)
def test_another_split_is_refused_and_both_are_named(make_segmentor, split, message):
    state = make_segmentor().state_dict()
    other = make_segmentor(split=split)
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(state)


def test_new_names_of_another_tower_are_refused(make_segmentor, make_bank):
    state = make_segmentor().state_dict()
    other = make_segmentor(class_embeddings=make_bank(tower='another'))
    other.load_state_dict(state)
    with pytest.raises(ValueError, match=r'hash toy.*hash another'):
        other.set_classes(['owl', 'cat'])
    assert other.class_names == CLASSES


def test_a_model_without_rows_saves_and_loads_its_names(make_segmentor):
    head = dict(type='FCNHead', in_channels=6, channels=4, num_classes=3)
    model = make_segmentor(head, class_embeddings=None)
    make_segmentor(head, class_embeddings=None).load_state_dict(model.state_dict())
    assert tuple(model.state_dict()[KEY]['classes']) == CLASSES


def test_mmengines_own_state_dict_has_the_rows(make_segmentor):
    assert tuple(get_state_dict(make_segmentor())[KEY]['classes']) == CLASSES


@pytest.mark.parametrize('update_buffers', [False, True])
def test_averaged_models_carry_the_rows(make_segmentor, tmp_path, update_buffers):
    model = make_segmentor()
    average = ExponentialMovingAverage(model, update_buffers=update_buffers)
    for _ in range(2):
        average.update_parameters(model)
    state = saved(average, tmp_path / 'a.pth')
    assert tuple(state[f'module.{KEY}']['classes']) == CLASSES
    average.load_state_dict(state)


def test_a_copy_is_independent(make_segmentor):
    model = make_segmentor()
    other = copy.deepcopy(model)
    other.set_classes(['owl'])
    assert model.class_names == CLASSES


def test_strict_loading_misses_absent_rows(make_segmentor):
    state = make_segmentor().state_dict()
    del state[KEY]
    missing, unexpected = make_segmentor().load_state_dict(state, strict=False)
    assert (missing, unexpected) == ([KEY], [])


def test_rows_of_a_checkpoint_do_for_a_head_that_is_told_their_length():
    rows = torch.randn(5, 4)
    absent = dict(
        type='ClassEmbeddingBank',
        source=dict(type='tensor', path='not_there.npy'),
        normalize=False,
    )
    build = {'class_embeddings': absent, 'split': SPLIT, 'setting': 'inductive'}
    patches = dict(type='ToyPatches')
    with pytest.raises(FileNotFoundError, match=r'there\.npy.*decode_head\.embed_dim'):
        ZeroShotEncoderDecoder(patches, dict(type='TextPixelHead'), **build)
    head = dict(type='TextPixelHead', embed_dim=4)
    model = ZeroShotEncoderDecoder(patches, head, **build).eval()
    with pytest.raises(FileNotFoundError, match=r'not_there\.npy'):
        model.current_queries()
    model.set_extra_state(
        dict(
            classes=SPLIT['classes'],
            unseen=SPLIT['unseen'],
            split='toy',
            embeddings=rows,
            query_to_class=torch.arange(5),
            provenance={},
        )
    )
    assert torch.equal(model.current_queries().embeddings, rows)
