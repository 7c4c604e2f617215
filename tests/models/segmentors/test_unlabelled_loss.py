"""A loss on unlabelled pixels in place of pseudo-labels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

QFSL = dict(type='QFSLLoss', loss_weight=0.5)
#: Of the toy split: 0, 2 and 4 are seen; 254 is known to be unseen.
LABELS = torch.tensor([[[0, 254, 255, 2], [254, 4, 0, 254]]])


def training_loss(model, labels, make_samples):
    image = torch.rand(1, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    model.train()
    return image, model.loss(image, make_samples(labels))


def test_unlabelled_pixels_are_of_some_unseen_class(make_segmentor, make_samples):
    model = make_segmentor(setting='transductive', grid='pad', unlabelled_loss=QFSL)
    # One patch of 4 x 4 pixels, whose lower half is padding.
    image, losses = training_loss(model, LABELS, make_samples)
    maps = model.extract_feat(image)
    logits = model.decode_head(maps, queries=model.training_queries())
    posterior = logits.softmax(dim=1)[0, :, 0, 0]
    expected = -0.5 * (posterior[1] + posterior[3]).log()
    torch.testing.assert_close(losses['loss_unlabelled'], expected)
    labelled = torch.tensor([0, 2, 4, 0])
    cross_entropy = F.cross_entropy(logits[0, :, 0, 0].expand(4, 5), labelled)
    torch.testing.assert_close(losses['decode.loss_ce'], cross_entropy)


def test_without_unlabelled_pixels_there_is_nothing_to_learn(
    make_segmentor, make_samples
):
    model = make_segmentor(setting='transductive', unlabelled_loss=QFSL)
    _, losses = training_loss(model, LABELS.masked_fill(LABELS == 254, 0), make_samples)
    assert losses['loss_unlabelled'] == 0


def test_an_inductive_part_of_the_training_goes_without(make_segmentor, make_samples):
    model = make_segmentor(setting='transductive', unlabelled_loss=QFSL)
    model.train_as('inductive')
    _, losses = training_loss(model, LABELS, make_samples)
    assert 'loss_unlabelled' not in losses


@pytest.mark.parametrize(
    ('head', 'options', 'message'),
    [
        (
            'ToySoftmaxHead',
            dict(setting='inductive'),
            "'inductive' never shows",
        ),
        ('ToySigmoidHead', {}, 'which ToySigmoidHead does not make'),
        ('ToySoftmaxHead', dict(pseudo_label_threshold=0.5), 'set one of the two'),
        (
            'ToySoftmaxHead',
            dict(unlabelled_loss=dict(type='QFSLLoss', loss_weight=0)),
            'loss_weight must be > 0',
        ),
    ],
)
def test_what_does_not_fit_is_refused(make_segmentor, head, options, message):
    given = dict(setting='transductive', unlabelled_loss=QFSL) | options
    with pytest.raises(ValueError, match=message) as caught:
        make_segmentor(head, **given)
    assert '\n' not in str(caught.value)
