"""What reaches the losses, and what training never asks for."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmseg.registry import MODELS

from zs3_mmseg.models.decode_heads import DenseTextHead
from zs3_mmseg.models.segmentors import ZeroShotEncoderDecoder
from zs3_mmseg.models.segmentors.encoder_decoder import LabelMapping
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.labels import NARROW

CLASSES = ('ant', 'bee', 'cat', 'dog', 'eel')
SEEN, UNSEEN = (0, 2, 4), (1, 3)


@st.composite
def labels_and_seen(draw):
    num_classes = draw(st.integers(1, 12))
    seen = sorted(draw(st.sets(st.integers(0, num_classes - 1), min_size=1)))
    values = st.one_of(st.integers(0, num_classes - 1), st.sampled_from([254, 255]))
    return num_classes, seen, draw(hnp.arrays('int64', (4, 5), elements=values))


@given(case=labels_and_seen())
def test_inductive_labels_become_positions_among_the_seen(case):
    num_classes, seen, labels = case
    mapping = LabelMapping(
        {c: row for row, c in enumerate(seen)},
        num_classes=num_classes,
        special=NARROW,
        setting='inductive',
    )
    given_labels = torch.from_numpy(labels)
    mapped = mapping(given_labels).numpy()
    for before, after in zip(labels.flat, mapped.flat, strict=True):
        if before in seen:
            assert seen[after] == before
        else:
            assert after == 255
    assert (given_labels.numpy() == labels).all()


@pytest.mark.parametrize('value', [200, 300, -1])
def test_inductive_labels_that_mean_nothing_are_ignored(value):
    mapping = LabelMapping({3: 0}, num_classes=9, special=NARROW, setting='inductive')
    assert mapping(torch.tensor([value, 3])).tolist() == [255, 0]


def all_rows(setting):
    rows = {c: c for c in range(9)}
    return LabelMapping(rows, num_classes=9, special=NARROW, setting=setting)


@pytest.mark.parametrize('value', [9, 253, 300, -1])
def test_other_settings_refuse_labels_that_mean_nothing(value):
    mapping = all_rows('transductive')
    with pytest.raises(ConfigError, match=rf'labels hold \[{value}\]'):
        mapping(torch.tensor([0, value, 255, 254]))


def test_unlabelled_pixels_are_for_transductive_training():
    assert all_rows('transductive')(torch.tensor([8, 254])).tolist() == [8, 254]
    with pytest.raises(
        ConfigError, match=r"254 \(unlabelled\), which model\.setting='s"
    ):
        all_rows('supervised')(torch.tensor([8, 254]))


def record(head, monkeypatch):
    """Return the label maps that a head's ``loss_by_feat`` gets."""
    got = []
    original = head.loss_by_feat

    def spy(outputs, samples):
        got.extend(sample.gt_sem_seg.data[0] for sample in samples)
        return original(outputs, samples)

    monkeypatch.setattr(head, 'loss_by_feat', spy)
    return got


@pytest.fixture
def labels():
    generator = torch.Generator().manual_seed(1)
    values = torch.tensor([*range(5), 255])
    return values[torch.randint(6, (2, 12, 12), generator=generator)]


@pytest.fixture
def image():
    return torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(2))


def test_inductive_loss_sees_seen_classes_only(
    make_segmentor, make_samples, monkeypatch, image, labels
):
    model = make_segmentor().train()
    got = record(model.decode_head, monkeypatch)
    samples = make_samples(labels)
    before = copy.deepcopy(samples)
    losses = model(image, samples, mode='loss')
    expected = torch.full_like(labels, 255)
    for row, index in enumerate(SEEN):
        expected[labels == index] = row
    assert torch.equal(torch.stack(got), expected)
    for sample, original in zip(samples, before, strict=True):
        assert torch.equal(sample.gt_sem_seg.data, original.gt_sem_seg.data)
    assert set(losses) == {'decode.loss_ce', 'decode.acc_seg'}


def test_maps_and_labels_cover_the_same_where_the_grid_is_filled_up(
    make_segmentor, make_samples, monkeypatch, image, labels
):
    """Maps of 3 x 3 patches stand for 12 pixels, here and at test, not for 10."""
    model = make_segmentor().train()
    got = record(model.decode_head, monkeypatch)
    crop, cut = image[..., :10, :10], labels[..., :10, :10]
    losses = model(crop, make_samples(cut), mode='loss')
    for label in got:
        assert label.shape == (12, 12)
        assert (label[10:] == 255).all()
        assert (label[:, 10:] == 255).all()
    # As if the data preprocessor had filled up image and labels.
    blank, void = F.pad(crop, (0, 2, 0, 2)), F.pad(cut, (0, 2, 0, 2), value=255)
    expected = model(blank, make_samples(void), mode='loss')
    torch.testing.assert_close(losses, expected)


def test_inductive_training_never_asks_for_an_unseen_row(
    make_segmentor, make_samples, toy_bank, image, labels
):
    model = make_segmentor().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        losses = model(image, make_samples(labels), mode='loss')
        optimizer.zero_grad()
        losses['decode.loss_ce'].backward()
        optimizer.step()
    assert toy_bank.asked == [('ant', 'cat', 'eel')]
    assert model.training_queries().embeddings.shape[0] == 3
    assert not model.training_queries().embeddings.requires_grad


def test_inductive_training_does_not_keep_rows_of_a_validation(
    make_segmentor, make_samples, toy_bank, image, labels
):
    model = make_segmentor()
    model.predict(image)
    assert sorted(name for names in toy_bank.asked for name in names) == [*CLASSES]
    model.train()
    assert set(model.vocabulary.rows) == {'ant', 'cat', 'eel'}
    assert model.vocabulary.current.queries is None


def test_rows_made_in_inference_mode_serve_gradients(make_segmentor, image):
    model = make_segmentor()
    with torch.inference_mode():
        model.predict(image)
    model.encode_decode(image, [{}, {}])[:, 0].sum().backward()
    assert model.backbone.conv.weight.grad.abs().sum() > 0


def test_transductive_pixels_become_the_best_unseen_class(
    make_segmentor, make_samples, monkeypatch, image, labels
):
    model = make_segmentor(setting='transductive').train()
    got = record(model.decode_head, monkeypatch)
    hidden = labels.clone()
    for index in UNSEEN:
        hidden[labels == index] = 254
    with torch.no_grad():
        maps = model.backbone(image)[0]
        rows = model.training_queries().embeddings
        logits = torch.einsum('nchw,qc->nqhw', maps, rows)
        full = torch.nn.functional.interpolate(logits, (12, 12), mode='bilinear')
        best = torch.tensor(UNSEEN)[full[:, list(UNSEEN)].argmax(dim=1)]
    model(image, make_samples(hidden), mode='loss')
    assert torch.equal(torch.stack(got), torch.where(hidden == 254, best, hidden))
    assert model.training_names() == CLASSES


def test_supervised_labels_pass_unchanged(
    make_segmentor, make_samples, monkeypatch, image, labels
):
    model = make_segmentor(setting='supervised').train()
    got = record(model.decode_head, monkeypatch)
    model(image, make_samples(labels), mode='loss')
    assert torch.equal(torch.stack(got), labels)
    assert model.vocabulary.seen == (True,) * 5


@MODELS.register_module()
class ToyConfiguredHead(DenseTextHead):
    """Reads ``train_cfg`` where its loss is made."""

    def loss_by_feat(self, outputs, batch_data_samples, train_cfg):
        losses = super().loss_by_feat(outputs, batch_data_samples)
        return {'loss_twice': train_cfg['factor'] * losses['loss_ce']}


@MODELS.register_module()
class ToyBypassedHead(DenseTextHead):
    """Says its loss where mmseg's heads do."""

    def loss(self, inputs, batch_data_samples, train_cfg, *, queries):
        return {'loss_mine': queries.embeddings.sum()}


@pytest.mark.parametrize('setting', ['inductive', 'transductive', 'supervised'])
def test_all_settings_train_by_the_same_road(
    make_segmentor, make_samples, image, labels, setting
):
    head = dict(type='ToyConfiguredHead')
    model = make_segmentor(head, setting=setting, train_cfg=dict(factor=2)).train()
    plain = make_segmentor('DenseTextHead', setting=setting).train()
    twice = model(image, make_samples(labels), mode='loss')['decode.loss_twice']
    once = plain(image, make_samples(labels), mode='loss')['decode.loss_ce']
    torch.testing.assert_close(twice, 2 * once)
    with pytest.raises(ValueError, match='ToyBypassedHead overrides loss, which is'):
        make_segmentor('ToyBypassedHead', setting=setting)


FCN = dict(type='FCNHead', in_channels=6, channels=4, num_convs=1, concat_input=False)


@pytest.mark.parametrize('num_classes', [3, 5])
def test_a_stock_head_trains_and_never_predicts_unseen_classes(
    make_segmentor, make_samples, image, labels, num_classes
):
    """Its channels are the seen classes, or all classes of the split."""
    model = make_segmentor(
        dict(FCN, num_classes=num_classes, dropout_ratio=0), class_embeddings=None
    ).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    only = torch.where(labels < 128, 4, labels)  # every pixel is an eel
    for _ in range(20):
        losses = model(image, make_samples(only), mode='loss')
        optimizer.zero_grad()
        losses['decode.loss_ce'].backward()
        optimizer.step()
    with torch.no_grad():
        result = model.eval().predict(image)
    assert all((sample.pred_sem_seg.data == 4).all() for sample in result)
    scores = result[0].seg_logits.data
    assert scores.shape[0] == 5
    if num_classes == 3:
        assert (scores[list(UNSEEN)] < scores[list(SEEN)].min() - 100).all()


def test_a_stock_head_scores_as_in_mmseg(make_segmentor, image):
    model = make_segmentor(
        dict(FCN, num_classes=5), class_embeddings=None, grid='floor'
    )
    with torch.no_grad():
        scores = model.encode_decode(image, [{}, {}])
        metas = [dict(img_shape=image.shape[2:])] * 2
        expected = model.decode_head.predict(model.extract_feat(image), metas, {})
    torch.testing.assert_close(scores, expected)


def test_a_stock_head_of_another_width_is_refused(make_segmentor):
    with pytest.raises(ValueError, match='set num_classes=3'):
        make_segmentor(dict(FCN, num_classes=4))


def test_a_stock_head_keeps_its_classes(make_segmentor):
    model = make_segmentor(dict(FCN, num_classes=3))
    with pytest.raises(ValueError, match='FCNHead does not read class embeddings'):
        model.set_classes(['owl', 'fox'])


@pytest.mark.parametrize('several', [False, True])
def test_auxiliary_heads_get_the_labels_of_their_channels(
    make_segmentor, make_samples, monkeypatch, image, labels, several
):
    aux = [dict(FCN, num_classes=3), dict(FCN, num_classes=5)]
    model = make_segmentor(auxiliary_head=aux if several else aux[0]).train()
    heads = model.auxiliary_head if several else [model.auxiliary_head]
    got = [record(head, monkeypatch) for head in heads]
    losses = model(image, make_samples(labels), mode='loss')
    assert torch.equal(torch.stack(got[0]), model._to_rows(labels))
    assert {'aux_0.loss_ce' if several else 'aux.loss_ce', 'decode.loss_ce'} < {*losses}
    if several:
        expected = labels.clone()
        expected[(labels == 1) | (labels == 3)] = 255
        assert torch.equal(torch.stack(got[1]), expected)


def test_transductive_training_needs_a_head_that_fills_labels(
    make_segmentor, make_samples, image, labels
):
    model = make_segmentor(dict(FCN, num_classes=5), setting='transductive')
    assert not model.understands_unlabelled
    with pytest.raises(ValueError, match='FCNHead cannot fill unlabelled pixels'):
        model(image, make_samples(labels), mode='loss')


def test_only_a_transductive_model_understands_unlabelled_pixels(make_segmentor):
    understood = {
        setting: make_segmentor(setting=setting).understands_unlabelled
        for setting in ('inductive', 'transductive', 'supervised')
    }
    assert understood == dict(inductive=False, transductive=True, supervised=False)


def test_samples_without_ground_truth_are_named(make_segmentor, make_samples, image):
    samples = make_samples(torch.zeros(2, 12, 12).long(), img_path='a.png')
    del samples[1].gt_sem_seg
    with pytest.raises(ValueError, match=r'a\.png has no gt_sem_seg'):
        make_segmentor().train()(image, samples, mode='loss')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(setting='zeroshot'), "setting must be one of .*not 'zeroshot'"),
        (dict(class_embeddings=None), 'class_embeddings is None'),
        (
            dict(calibrators=[dict(type='ImageLevelGate', weight=1.0)]),
            'backbone.out_global=True',
        ),
        (dict(calibrators=[torch.nn.Identity()]), 'Identity is no calibrator'),
        (
            dict(head=dict(type='ToySoftmaxHead', ignore_index=0)),
            'decode_head.ignore_index is 0',
        ),
        (
            dict(head=dict(type='DenseTextHead', prob_thd=0.1, bg_index=5)),
            'bg_index=5 is none of the 5 classes',
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(make_segmentor, options, message):
    with pytest.raises(ValueError, match=message):
        make_segmentor(**options)


def test_a_large_split_needs_wide_labels(make_segmentor, make_samples):
    split = dict(classes=[f'name {i}' for i in range(300)], unseen=['name 7'])
    with pytest.raises(ValueError, match='300 classes need 65535'):
        make_segmentor(split=split)
    head = dict(type='ToySoftmaxHead', ignore_index=65535)
    model = make_segmentor(head, split=split).train()
    labels = torch.tensor([[255, 7], [65535, 299]]).repeat(1, 6, 6)
    mapped = model._to_rows(labels)
    assert mapped[0, :2, :2].tolist() == [[254, 65535], [65535, 298]]
    loss = model(torch.randn(1, 3, 12, 12), make_samples(labels), mode='loss')
    assert loss['decode.loss_ce'].isfinite()


def test_a_neck_gets_the_maps_without_the_global_token(
    make_segmentor, make_samples, image, labels
):
    model = make_segmentor(
        dict(type='ToySoftmaxHead', in_channels=6),
        out_global=True,
        neck=dict(type='MultiLevelNeck', in_channels=[6], out_channels=6, scales=[2]),
    )
    assert [tuple(m.shape) for m in model.extract_feat(image)] == [(2, 6, 6, 6)]
    assert model.predict(image)[0].pred_sem_seg.data.shape == (1, 12, 12)
    loss = model.train()(image, make_samples(labels), mode='loss')
    assert loss['decode.loss_ce'].isfinite()


def test_pretrained_is_handed_to_the_backbone(make_segmentor, tmp_path):
    missing = str(tmp_path / 'weights.pt')
    with pytest.raises(FileNotFoundError, match=r'weights\.pt'):
        ZeroShotEncoderDecoder(
            dict(type='OpenCLIPViT', arch='ViT-B-32-quickgelu'),
            dict(type='DenseTextHead'),
            class_embeddings=None,
            split='shapes_a',
            setting='inductive',
            pretrained=missing,
        )


def test_the_callers_configs_are_not_changed(make_segmentor):
    head, test_cfg = dict(type='DenseTextHead'), dict()
    make_segmentor(head, test_cfg=test_cfg)
    assert (head, test_cfg) == (dict(type='DenseTextHead'), {})
