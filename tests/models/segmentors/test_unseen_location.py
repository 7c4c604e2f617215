"""Training that knows where unseen pixels are, and pixels that get no pseudo-label."""

from __future__ import annotations

import pytest
import torch

from zs3_mmseg.models.segmentors.encoder_decoder import LabelMapping
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.labels import NARROW

TRUST = dict(type='ZegCLIPHead', num_heads=2, descriptor=('text',), extra_query='trust')
GATE = dict(type='TrustGate')


@pytest.fixture
def image():
    return torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def labels():
    """Seen classes 0, 2 and 4, unlabelled and void pixels."""
    generator = torch.Generator().manual_seed(1)
    values = torch.tensor([0, 2, 4, 254, 255])
    return values[torch.randint(5, (2, 12, 12), generator=generator)]


def test_labels_are_places_among_the_seen_and_the_rest_is_a_mistake() -> None:
    mapping = LabelMapping(
        {2: 0, 4: 1}, num_classes=5, special=NARROW, setting='unseen_location'
    )
    assert mapping(torch.tensor([4, 2, 254, 255])).tolist() == [1, 0, 254, 255]
    with pytest.raises(ConfigError, match=r'labels hold \[3\]'):
        mapping(torch.tensor([3]))


@pytest.mark.parametrize('setting', ['unseen_location', 'transductive'])
def test_the_trusty_query_learns_where_unseen_pixels_are(
    setting: str, make_segmentor, make_samples, image, labels, monkeypatch
) -> None:
    transductive = setting == 'transductive'
    model = make_segmentor(TRUST, setting=setting, pseudo_labels=not transductive)
    assert len(model.training_names()) == (5 if transductive else 3)
    given = {}

    def spy(gate, unseen, of_classes, **options):
        given.update(unseen=unseen, labels=of_classes)
        return gate.sum()

    monkeypatch.setattr(model.decode_head.trust_loss, 'forward', spy)
    losses = model.train()(image, make_samples(labels), mode='loss')
    assert 'decode.loss_trust' in losses
    assert torch.equal(given['unseen'], labels == 254)
    assert torch.equal(given['labels'] == 255, labels >= 254)


@pytest.mark.parametrize('chunk', [1, 8])
def test_the_gate_comes_after_the_shift_whatever_the_chunk(
    chunk: int, make_segmentor, image
) -> None:
    shift = dict(type='SeenShift', shift=0.1)
    options = dict(setting='unseen_location', test_cfg=dict(class_chunk=chunk))
    plain = make_segmentor(TRUST, calibrators=[shift], **options)
    model = make_segmentor(TRUST, calibrators=[shift, GATE], **options)
    model.load_state_dict(plain.state_dict())
    with torch.no_grad():
        expected = plain.encode_decode(image, [{}] * 2)
        maps, given = model._features(image, model.current_queries())
        found = model.decode_head.query_logits(maps, queries=given['queries'])
        actual = model.encode_decode(image, [{}] * 2)
    gate = torch.nn.functional.interpolate(found.gate, (12, 12), mode='bilinear')
    seen = model.current_queries().seen_mask[:, None, None]
    weights = torch.where(seen, 1 - gate.sigmoid(), gate.sigmoid())
    torch.testing.assert_close(actual, expected * weights)


@pytest.mark.parametrize(
    ('head', 'options', 'message'),
    [
        (TRUST, dict(), "'unseen_location', which leaks"),
        (TRUST, dict(setting='supervised'), "'unseen_location', which leaks"),
        ('ToySigmoidHead', dict(setting='unseen_location'), 'does not read'),
        ('ToySigmoidHead', dict(calibrators=[GATE]), 'TrustGate weighs scores'),
        ('ToySigmoidHead', dict(pseudo_labels=False), 'is for transductive training'),
    ],
)
def test_parts_that_do_not_fit(head, options, message, make_segmentor) -> None:
    with pytest.raises(ConfigError, match=message):
        make_segmentor(head, **options)
