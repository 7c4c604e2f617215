"""``set_classes``, and what changes with the classes."""

from __future__ import annotations

import sys

import pytest
import torch

from zs3_mmseg.models.segmentors import ZeroShotEncoderDecoder

CLASSES = ('ant', 'bee', 'cat', 'dog', 'eel')


@pytest.mark.parametrize('names', [['cat', 'owl'], [f'name {i}' for i in range(40)]])
def test_everything_changes_together(make_segmentor, names):
    model = make_segmentor()
    model.set_classes(names)
    with torch.no_grad():
        result = model.predict(torch.randn(1, 3, 16, 16))[0]
    number = len(names)
    assert result.seg_logits.data.shape == (number, 16, 16)
    assert model.class_names == tuple(names)
    assert (model.out_channels, model.num_classes) == (number, number)
    assert (model.decode_head.out_channels, model.decode_head.num_classes) == (
        number,
        number,
    )
    assert model.dataset_meta['classes'] == tuple(names)
    assert len({tuple(colour) for colour in model.dataset_meta['palette']}) == number


def test_scores_are_those_of_the_names_rows(make_segmentor, rows_of):
    model = make_segmentor('ToyLogitHead')
    model.set_classes(['owl', 'cat'])
    image = torch.randn(1, 3, 4, 4)
    with torch.no_grad():
        maps = model.backbone(image)[0]
        expected = model.decode_head.factor * torch.einsum(
            'nchw,qc->nqhw', maps, rows_of(['owl', 'cat'])
        )
        scores = model.encode_decode(image, [{}])
    torch.testing.assert_close(scores, expected.expand(1, 2, 4, 4))


def test_names_of_seen_classes_are_seen_all_others_unseen(make_segmentor):
    model = make_segmentor()
    model.set_classes(['owl', 'cat', 'dog', 'fox|Ant'])
    assert model.vocabulary.seen == (False, True, False, True)
    assert model.current_queries().seen_mask.tolist() == [False, True, False, True]


def test_unseen_names_can_be_given(make_segmentor):
    model = make_segmentor()
    model.set_classes(['owl', 'cat'], unseen=['cat'])
    assert model.vocabulary.seen == (True, False)
    model.set_classes(['owl', 'cat'], unseen=[])
    assert model.vocabulary.seen == (True, True)


def test_aliases_of_a_seen_class_are_seen(make_segmentor):
    split = dict(classes=['sofa', 'tvmonitor'], unseen=['tvmonitor'])
    model = make_segmentor(split=split)
    model.set_classes(['couch', 'TV'])
    assert model.vocabulary.seen == (True, False)


def test_synonyms_are_queries_of_one_class(make_segmentor, rows_of):
    model = make_segmentor()
    model.set_classes(['sofa|couch', 'cat'])
    queries = model.current_queries()
    assert queries.query_to_class.tolist() == [0, 0, 1]
    assert torch.equal(queries.embeddings, rows_of(['sofa', 'couch', 'cat']))
    assert model.dataset_meta['classes'] == ('sofa', 'cat')


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        ([], 'list of class names'),
        ('cat', 'list of class names'),
        (5, 'list of class names'),
        ({'sofa': ['couch']}, r"a dict with 'sofa'.*'sofa\|couch'"),
        (
            [*range(1500)],
            r'must be strings, got \[0, .*9 and 1490 more \(1500 in all\)\]',
        ),
        (['cat', ''], 'empty'),
        (['cat', '  '], 'empty'),
        (['cat|'], 'empty synonym'),
        (['cat', 'owl', 'Cat'], 'more than once: cat'),
        (['owl|cat', 'cat'], 'more than once: cat'),
    ],
)
def test_wrong_names_change_nothing(make_segmentor, names, message):
    model = make_segmentor()
    with pytest.raises(ValueError, match=message):
        model.set_classes(names)
    assert (model.class_names, model.out_channels) == (CLASSES, 5)


def test_none_brings_the_names_of_the_split_back(make_segmentor):
    model = make_segmentor()
    model.set_classes(['owl'])
    model.set_classes(None)
    assert (model.class_names, model.out_channels) == (CLASSES, 5)


def test_first_synonyms_wear_the_colour_of_their_class(make_segmentor):
    model = make_segmentor()
    colours = dict(zip(CLASSES, model.vocabulary.palette, strict=True))
    model.set_classes(['owl|fly', 'cat|kitten', 'Dog', 'ant'])
    owl, cat, dog, ant = model.vocabulary.palette
    assert (cat, dog, ant) == (colours['cat'], colours['dog'], colours['ant'])
    assert owl not in colours.values()
    model.set_classes(['Ant', 'ant_'])
    assert colours['ant'] in model.vocabulary.palette
    assert len({tuple(colour) for colour in model.vocabulary.palette}) == 2


def test_print_shows_split_and_names(make_segmentor):
    model = make_segmentor()
    model.set_classes([*CLASSES, *(f'name {i}' for i in range(1500))])
    text = str(model)
    assert f'{len(model.split.seen)} seen and {len(model.split.unseen)} unseen' in text
    assert "(classes): 'ant', 'bee', 'cat'" in text
    assert 'more (1505 in all)' in text
    assert text.count('name ') < 20


def test_an_unseen_name_that_is_no_class_gets_a_hint(make_segmentor):
    with pytest.raises(ValueError, match=r"'owls' is none of.*Did you mean 'owl'"):
        make_segmentor().set_classes(['owl', 'cat'], unseen=['owls'])


@pytest.mark.parametrize('per_class', [False, True])
def test_given_rows_are_used_and_no_bank_is_asked(make_segmentor, toy_bank, per_class):
    model = make_segmentor()
    rows = torch.randn(2 if per_class else 3, 6)
    model.set_classes(['sofa|couch', 'cat'], embeddings=rows.numpy())
    assert toy_bank.asked == []
    assert torch.equal(model.current_queries().embeddings, rows)


@pytest.mark.parametrize(
    ('rows', 'message'),
    [
        (torch.randn(4, 6), 'do not fit 3 queries'),
        (torch.randn(3), 'do not fit'),
        (torch.randn(3, 7), 'built for 6'),
        (torch.full((3, 6), float('nan')), 'not finite'),
    ],
)
def test_rows_that_do_not_fit_change_nothing(make_segmentor, rows, message):
    model = make_segmentor()
    with pytest.raises(ValueError, match=message):
        model.set_classes(['sofa|couch', 'cat'], embeddings=rows)
    assert model.class_names == CLASSES


def test_given_rows_do_not_replace_those_of_trained_names(make_segmentor, rows_of):
    model = make_segmentor()
    model.set_classes(['cat', 'owl'], embeddings=torch.randn(2, 6))
    model.reset_classes()
    assert torch.equal(model.current_queries().embeddings, rows_of(CLASSES))


def test_the_classes_of_the_split_come_back(make_segmentor):
    model = make_segmentor()
    image = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        before = model.encode_decode(image, [{}])
        palette = model.dataset_meta['palette']
        model.set_classes(['owl'])
        model.reset_classes()
        assert torch.equal(model.encode_decode(image, [{}]), before)
    assert model.dataset_meta == {'classes': CLASSES, 'palette': palette}


def test_trained_names_keep_their_colours(make_segmentor):
    model = make_segmentor()
    cat = model.dataset_meta['palette'][2]
    model.set_classes(['owl', 'cat', 'fox'])
    assert model.dataset_meta['palette'][1] == cat


def test_training_keeps_the_split_whatever_the_vocabulary(
    make_segmentor, make_samples, toy_bank
):
    model = make_segmentor()
    model.set_classes(['owl'])
    model.train()
    labels = torch.randint(0, 5, (1, 8, 8))
    model(torch.randn(1, 3, 8, 8), make_samples(labels), mode='loss')
    assert model.training_queries().num_classes == 3


def test_only_new_names_are_computed(make_segmentor, toy_bank):
    model = make_segmentor()
    model.current_queries()
    model.set_classes(['dog', 'owl', 'ant'])
    assert toy_bank.asked == [CLASSES, ('owl',)]


def test_one_class_of_a_softmax_is_warned_of(make_segmentor, monkeypatch):
    said = []
    module = sys.modules[ZeroShotEncoderDecoder.__module__]
    monkeypatch.setattr(module, 'print_log', lambda text, **_: said.append(text))
    make_segmentor('ToySigmoidHead').set_classes(['owl'])
    assert said == []
    make_segmentor().set_classes(['owl'])
    assert 'softmax over one class is 1 everywhere' in said[0]


def test_a_background_index_beyond_the_new_names_is_refused(make_segmentor):
    model = make_segmentor(dict(type='DenseTextHead', prob_thd=0.1, bg_index=3))
    with pytest.raises(ValueError, match='bg_index=3 is none of the 2 classes'):
        model.set_classes(['owl', 'fox'])
    assert model.class_names == CLASSES


def test_mmsegs_dataset_meta_changes_colours_only(make_segmentor):
    model = make_segmentor()
    model.dataset_meta = {'classes': ['road', 'sky'], 'palette': [[1, 1, 1]] * 2}
    assert model.dataset_meta['classes'] == CLASSES
    palette = [[index, 7, 9] for index in range(5)]
    model.dataset_meta = {'classes': CLASSES, 'palette': palette, 'split': 'toy'}
    assert model.dataset_meta == {'classes': CLASSES, 'palette': palette}
    model.set_classes(['owl', 'cat'])
    assert model.dataset_meta['palette'][1] == [2, 7, 9]
    model.reset_classes()
    assert model.dataset_meta['palette'] == palette


def test_rows_follow_the_parameters(make_segmentor):
    model = make_segmentor()
    model.current_queries()
    model.to(torch.float64)
    assert model.current_queries().embeddings.dtype == torch.float64
    with torch.no_grad():
        model.predict(torch.randn(1, 3, 8, 8, dtype=torch.float64))
