"""RelationHead and AttributeHead against their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads import AttributeHead, RelationHead

LABELS = torch.tensor([[[0, 1, 255], [2, 2, 0]]])


@pytest.fixture
def maps():
    return torch.randn(1, 5, 2, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def queries():
    rows = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    return ClassQueries(rows, torch.arange(3), torch.ones(3, dtype=torch.bool))


@pytest.fixture
def samples():
    sample = SegDataSample()
    sample.gt_sem_seg = PixelData(data=LABELS)
    return [sample]


# -------------------------------------------------------------------------- relations


def trained_relation(**options):
    torch.manual_seed(0)
    head = RelationHead(5, embed_dim=4, channels=6, **options)
    torch.nn.init.normal_(head.relation[2].weight)
    return head


def by_hand(head, maps, rows):
    """One pixel and one class after the other."""
    visual, texts = head.visual(maps), head.text(rows)
    hidden, last = head.relation[0], head.relation[2]
    out = torch.zeros(1, len(rows), 2, 3)
    for k, text in enumerate(texts):
        for y in range(2):
            for x in range(3):
                pixel = visual[0, :, y, x]
                cosine = torch.cosine_similarity(pixel, text, dim=0)
                pair = torch.cat([pixel * text, (pixel - text).abs(), cosine[None]])
                inner = (hidden.weight[:, :, 0, 0] @ pair + hidden.bias).relu()
                own = last.weight[0, :, 0, 0] @ inner + last.bias[0]
                out[0, k, y, x] = own + head.scale * cosine
    return out


@pytest.mark.parametrize('class_chunk', [1, 2, 32])
def test_relations_of_pairs(maps, queries, class_chunk):
    head = trained_relation(class_chunk=class_chunk)
    found = head.query_logits((maps,), queries=queries)
    torch.testing.assert_close(found, by_hand(head, maps, queries.embeddings))


def test_a_relation_starts_as_a_cosine(maps, queries):
    head = RelationHead(5, embed_dim=4, scale=2.0)
    visual, texts = head.visual(maps), head.text(queries.embeddings)
    cosines = torch.cosine_similarity(visual[:, None], texts[None, :, :, None, None], 2)
    found = head.query_logits((maps,), queries=queries)
    torch.testing.assert_close(found, 2 * cosines)


@pytest.mark.parametrize('loss', ['mse', 'bce'])
def test_relations_are_drawn_to_one_and_zero(maps, queries, samples, loss):
    head = trained_relation(loss=loss)
    logits = head.training_outputs((maps,), queries=queries)
    found = head.loss_by_feat(logits, samples)[f'loss_{loss}']
    relations = logits.sigmoid()
    total = 0.0
    for y, x, label in [(0, 0, 0), (0, 1, 1), (1, 0, 2), (1, 1, 2), (1, 2, 0)]:
        for k in range(3):
            r, t = relations[0, k, y, x], float(k == label)
            if loss == 'mse':
                total += (r - t) ** 2
            else:
                total -= t * r.log() + (1 - t) * (1 - r).log()
    torch.testing.assert_close(found, total / 15)
    found.backward()
    assert head.text.weight.grad.abs().sum() > 0


# ------------------------------------------------------------------------- attributes

TABLE = torch.tensor([[1.0, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 1]])


@pytest.fixture
def table_queries():
    """Rows as a bank makes them, of length 1; the last class is unseen."""
    return ClassQueries(
        F.normalize(TABLE, dim=1), torch.arange(4), torch.tensor([True] * 3 + [False])
    )


def test_classes_follow_from_their_attributes(maps, table_queries):
    """Bayes by hand, with the prior of attributes among seen classes."""
    torch.manual_seed(0)
    head = AttributeHead(5, embed_dim=4)
    outputs = head.training_outputs((maps,), queries=table_queries)
    p = head.attributes(maps).sigmoid()  # (1, A, h, w)
    q = (TABLE[:3].sum(dim=0) + 1) / 5
    posterior = []
    for has in TABLE:
        ratio = torch.ones(1, 2, 3)
        for a, attribute in enumerate(has):
            own = p[:, a] / q[a] if attribute else (1 - p[:, a]) / (1 - q[a])
            ratio = ratio * own
        posterior.append(ratio)
    expected = torch.stack(posterior, dim=1)
    expected = expected / expected.sum(dim=1, keepdim=True)
    torch.testing.assert_close(outputs.logits.softmax(dim=1), expected)
    tested = head.query_logits((maps,), queries=table_queries)
    torch.testing.assert_close(tested, outputs.logits)
    assert 'prior_logits' in head.state_dict()


def test_attributes_are_learned_from_labels(maps, table_queries, samples):
    head = AttributeHead(5, embed_dim=4)
    outputs = head.training_outputs((maps,), queries=table_queries)
    found = head.loss_by_feat(outputs, samples)['loss_attributes']
    p = head.attributes(maps).sigmoid()[0].movedim(0, 2)  # (h, w, A)
    valid = LABELS[0] != 255
    truth = TABLE[LABELS[0][valid]]
    expected = F.binary_cross_entropy(p[valid], truth)
    torch.testing.assert_close(found, expected)


def test_attributes_may_be_compared_by_cosine(maps, table_queries):
    head = AttributeHead(5, embed_dim=4, compare='cosine', scale=2.0)
    p = head.attributes(maps).sigmoid()
    expected = 2 * torch.cosine_similarity(p[:, None], TABLE[None, :, :, None, None], 2)
    found = head.query_logits((maps,), queries=table_queries)
    torch.testing.assert_close(found, expected)


def test_rows_that_are_no_attributes_are_refused(maps):
    rows = ClassQueries(torch.ones(2, 4), torch.arange(2), torch.tensor([True, True]))
    with pytest.raises(ValueError, match=r"source\.type='attributes'"):
        AttributeHead(5, embed_dim=4).query_logits((maps,), queries=rows)


@pytest.mark.parametrize(
    ('kind', 'options', 'message'),
    [
        (RelationHead, dict(loss='ce'), 'loss must be one of'),
        (RelationHead, dict(class_chunk=0), 'class_chunk >= 1'),
        (AttributeHead, dict(compare='iap'), 'compare must be one of'),
        (AttributeHead, dict(scale=0), 'scale must be > 0'),
    ],
)
def test_options_out_of_range_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(5, embed_dim=4, **options)
