"""Who gives pseudo-labels, which pixels get one, and when self-training begins."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

SEEN, UNSEEN = [0, 2, 4], [1, 3]
KINDS = ('Softmax', 'Sigmoid', 'Logit')


@pytest.fixture
def image():
    return torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def hidden():
    """Labels with unseen classes taken away, and some void."""
    generator = torch.Generator().manual_seed(1)
    values = torch.tensor([0, 2, 4, 254, 254, 255])
    return values[torch.randint(6, (2, 12, 12), generator=generator)]


@pytest.fixture
def filled(monkeypatch):
    """Return a function that runs the loss and returns the labels the head gets."""

    def run(model, image, samples):
        got = []
        original = model.decode_head.loss_by_feat

        def spy(outputs, samples):
            got.extend(sample.gt_sem_seg.data[0] for sample in samples)
            return original(outputs, samples)

        monkeypatch.setattr(model.decode_head, 'loss_by_feat', spy)
        model(image, samples, mode='loss')
        monkeypatch.setattr(model.decode_head, 'loss_by_feat', original)
        return torch.stack(got)

    return run


def full_logits(model, image):
    with torch.no_grad():
        maps = model.backbone(image)
        logits = model.decode_head(maps, queries=model.training_queries())
        return F.interpolate(logits, image.shape[2:], mode='bilinear')


@pytest.mark.parametrize('kind', KINDS)
def test_pixels_below_the_threshold_are_ignored(
    make_segmentor, make_samples, image, hidden, filled, kind
):
    head = f'Toy{kind}Head'
    plain = make_segmentor(head, setting='transductive').train()
    logits = full_logits(plain, image)
    scores = {
        'Softmax': logits.softmax(1),
        'Sigmoid': logits.sigmoid(),
        'Logit': logits,
    }[kind][:, UNSEEN]
    best = torch.tensor(UNSEEN)[scores.argmax(1)]
    assert torch.equal(
        filled(plain, image, make_samples(hidden)),
        torch.where(hidden == 254, best, hidden),
    )

    threshold = scores.amax(1)[hidden == 254].median().item()
    model = make_segmentor(
        head, setting='transductive', pseudo_label_threshold=threshold
    ).train()
    sure = torch.where(scores.amax(1) >= threshold, best, 255)
    result = filled(model, image, make_samples(hidden))
    assert torch.equal(result, torch.where(hidden == 254, sure, hidden))
    ignored = (result == 255) & (hidden == 254)
    assert 0 < ignored.sum() < (hidden == 254).sum()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(setting='inductive'), "is for transductive training.*='inductive'"),
        (dict(setting='transductive', threshold=1.5), r'must be in 0\.\.1'),
    ],
)
def test_thresholds_that_mean_nothing_are_refused(make_segmentor, options, message):
    threshold = options.pop('threshold', 0.5)
    with pytest.raises(ValueError, match=message):
        make_segmentor(pseudo_label_threshold=threshold, **options)


def test_the_teacher_is_asked_and_belongs_to_nobody(
    make_segmentor, make_samples, image, hidden, filled
):
    model = make_segmentor(setting='transductive').train()
    teacher = make_segmentor(setting='transductive')
    torch.nn.init.normal_(teacher.backbone.conv.weight)
    keys = set(model.state_dict())
    model.set_teacher(teacher)
    labels = filled(model, image, make_samples(hidden))
    best = torch.tensor(UNSEEN)[full_logits(teacher, image)[:, UNSEEN].argmax(1)]
    own = torch.tensor(UNSEEN)[full_logits(model, image)[:, UNSEEN].argmax(1)]
    assert (best != own)[hidden == 254].any()
    assert torch.equal(labels, torch.where(hidden == 254, best, hidden))
    assert set(model.state_dict()) == keys
    losses = model(image, make_samples(hidden), mode='loss')
    losses['decode.loss_ce'].backward()
    assert model.backbone.conv.weight.grad is not None
    assert teacher.backbone.conv.weight.grad is None

    model.set_teacher(None)
    again = filled(model, image, make_samples(hidden))
    assert torch.equal(again, torch.where(hidden == 254, own, hidden))


def test_trained_inductively_it_is_an_inductive_model(
    make_segmentor, make_samples, make_bank, image, hidden
):
    bank = make_bank()
    model = make_segmentor(setting='transductive', class_embeddings=bank).train()
    model.train_as('inductive')
    inductive = make_segmentor(setting='inductive').train()
    losses = [
        m(image, make_samples(hidden), mode='loss')['decode.loss_ce']
        for m in (model, inductive)
    ]
    assert torch.equal(*losses)
    assert bank.asked == [('ant', 'cat', 'eel')]
    assert model.understands_unlabelled

    model.train_as('transductive')
    whole = make_segmentor(setting='transductive').train()
    losses = [
        m(image, make_samples(hidden), mode='loss')['decode.loss_ce']
        for m in (model, whole)
    ]
    assert torch.equal(*losses)


@pytest.mark.parametrize(
    ('setting', 'wanted'), [('inductive', 'inductive'), ('transductive', 'supervised')]
)
def test_settings_that_cannot_be_switched(make_segmentor, setting, wanted):
    with pytest.raises(ValueError, match='cannot be trained as'):
        make_segmentor(setting=setting).train_as(wanted)


# ---------------------------------------------------------------- another test split

OTHER = dict(name='other', classes=['cat', 'owl'], unseen=['owl'])


def test_a_test_split_changes_what_is_predicted_and_nothing_else(
    make_segmentor, make_samples, image, hidden, rows_of
):
    model = make_segmentor('ToyLogitHead', test_split=OTHER)
    same = make_segmentor('ToyLogitHead')
    assert model.class_names == ('cat', 'owl')
    assert model.vocabulary.seen == (True, False)
    assert model.get_extra_state()['classes'] == same.get_extra_state()['classes']
    same.set_classes(['cat', 'owl'])
    with torch.no_grad():
        ours, theirs = (m.predict(image)[0].seg_logits.data for m in (model, same))
    assert torch.equal(ours, theirs)
    # A checkpoint may hold a name's row in other sentences than this test's.
    state = same.state_dict()
    state['_extra_state']['embeddings'] = state['_extra_state']['embeddings'] * 2
    model.load_state_dict(state)
    model.dataset_meta = dict(classes=('cat', 'owl'), palette=[[1, 2, 3], [4, 5, 6]])
    assert torch.equal(
        model.current_queries().embeddings,
        rows_of(['cat', 'owl']),
    )
    model.reset_classes()
    assert model.class_names == ('ant', 'bee', 'cat', 'dog', 'eel')


def test_a_head_of_fixed_classes_has_no_test_split(make_segmentor):
    head = dict(type='FCNHead', in_channels=6, channels=4, num_convs=1, num_classes=5)
    with pytest.raises(ValueError, match='classes of this model are fixed'):
        make_segmentor(head, test_split=OTHER)
