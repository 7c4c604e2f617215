"""DenseTextHead and TextPixelHead against plain formulas."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads import (
    CosineRegressionHead,
    DenseTextHead,
    TextPixelHead,
)


@pytest.fixture
def queries():
    return ClassQueries(
        embeddings=torch.randn(4, 6, generator=torch.Generator().manual_seed(0)),
        query_to_class=torch.tensor([0, 1, 1, 2]),
        seen_mask=torch.tensor([True, False, True]),
    )


@pytest.fixture
def features():
    return torch.randn(2, 6, 3, 5, generator=torch.Generator().manual_seed(1))


def cosines(features, rows):
    return torch.cosine_similarity(features[:, None], rows[None, :, :, None, None], 2)


def test_dense_logits_are_scaled_cosines(queries, features):
    head = DenseTextHead(6, scale=40.0)
    expected = 40 * cosines(features, queries.embeddings)
    torch.testing.assert_close(
        head.query_logits((features,), queries=queries), expected
    )


def test_classes_score_as_their_best_query(queries, features):
    per_query = 40 * cosines(features, queries.embeddings)
    expected = torch.stack(
        [per_query[:, 0], per_query[:, 1:3].amax(dim=1), per_query[:, 3]], dim=1
    )
    head = DenseTextHead(6)
    torch.testing.assert_close(head((features,), queries=queries), expected)
    torch.testing.assert_close(
        head.predict((features,), [{}], {}, queries=queries), expected
    )


def test_the_dense_head_has_nothing_to_train():
    assert list(DenseTextHead(6).state_dict()) == []


def test_lengths_do_not_matter(queries, features):
    head = DenseTextHead(6)
    longer = ClassQueries(
        3 * queries.embeddings, queries.query_to_class, queries.seen_mask
    )
    torch.testing.assert_close(
        head((7 * features,), queries=longer), head((features,), queries=queries)
    )


def test_other_widths_are_an_error(queries):
    with pytest.raises(ValueError, match='8 channels and class embeddings 6'):
        DenseTextHead(8)((torch.randn(1, 8, 2, 2),), queries=queries)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(scale=0), 'scale'),
        (dict(prob_thd=1.5), 'prob_thd'),
        (dict(bg_index=-1), 'bg_index'),
        (dict(query_reduce='mean'), 'query_reduce'),
    ],
)
def test_wrong_options_of_the_dense_head_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        DenseTextHead(6, **options)


@pytest.mark.parametrize('projection', ['none', 'linear', 'mlp'])
def test_projected_features_are_compared_by_cosine(queries, features, projection):
    torch.manual_seed(0)
    head = TextPixelHead(6, projection=projection, channels=9, scale=13.0)
    parameters = dict(head.named_parameters())
    x = features.movedim(1, -1)
    if projection == 'linear':
        x = F.linear(
            x,
            parameters['projection.weight'][:, :, 0, 0],
            parameters['projection.bias'],
        )
    if projection == 'mlp':
        x = F.linear(
            x,
            parameters['projection.0.weight'][:, :, 0, 0],
            parameters['projection.0.bias'],
        )
        x = F.linear(
            F.gelu(x),
            parameters['projection.2.weight'][:, :, 0, 0],
            parameters['projection.2.bias'],
        )
    expected = 13 * cosines(x.movedim(-1, 1), queries.embeddings)
    actual = head.query_logits((features,), queries=queries)
    torch.testing.assert_close(actual, expected)


def test_the_projection_may_change_the_width(queries):
    head = TextPixelHead(8, embed_dim=6)
    assert head((torch.randn(1, 8, 2, 3),), queries=queries).shape == (1, 3, 2, 3)


def test_the_temperature_is_learned_unless_fixed():
    learned, fixed = TextPixelHead(6), TextPixelHead(6, learn_scale=False)
    assert 'log_scale' in dict(learned.named_parameters())
    assert 'log_scale' not in dict(fixed.named_parameters())
    assert 'log_scale' in fixed.state_dict()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(projection='conv'), "not 'conv'"),
        (dict(projection='none', embed_dim=7), 'keeps 6 channels'),
        (dict(scale=101), 'scale'),
    ],
)
def test_wrong_options_of_the_pixel_head_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TextPixelHead(6, **options)


def test_heads_are_built_from_configs_and_know_no_conv_seg():
    head = MODELS.build(dict(type='TextPixelHead', in_channels=6, num_classes=2))
    assert not any('conv_seg' in name for name in head.state_dict())
    head.init_weights()


def test_accuracy_is_logged_and_not_summed(queries, features):
    head = TextPixelHead(6)
    sample = SegDataSample()
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 3, (1, 6, 10)))
    losses = head.loss((features,), [sample] * 2, None, queries=queries)
    assert [name for name in losses if 'loss' in name] == ['loss_ce']
    assert not losses['acc_seg'].requires_grad


def test_pseudo_labels_need_an_unseen_class(queries, features):
    supervised = ClassQueries(
        queries.embeddings, queries.query_to_class, torch.ones(3, dtype=torch.bool)
    )
    with pytest.raises(ValueError, match='no class is unseen'):
        DenseTextHead(6).resolve_unlabelled(
            torch.randn(1, 3, 2, 2),
            torch.full((1, 4, 4), 254),
            queries=supervised,
            unlabelled_index=254,
        )


def test_the_forward_pass_compiles_without_a_break(queries, features):
    head = TextPixelHead(6)
    plain = ClassQueries(queries.embeddings[:3], torch.arange(3), queries.seen_mask)
    compiled = torch.compile(
        lambda x: head.query_logits((x,), queries=plain),
        fullgraph=True,
        backend='eager',
    )
    torch.testing.assert_close(
        compiled(features), head.query_logits((features,), queries=plain)
    )


@pytest.mark.parametrize(
    'build',
    [
        partial(CosineRegressionHead, embed_dim=6),
        partial(TextPixelHead, embed_dim=6),
        partial(TextPixelHead, embed_dim=6, projection='mlp'),
        partial(DenseTextHead),
        partial(TextPixelHead, projection='none'),
    ],
)
def test_heads_read_several_maps_at_once(build, queries):
    head = build((2, 4), in_index=(0, 2), input_transform='resize_concat')
    maps = [
        torch.randn(1, width, side, side) for width, side in ((2, 4), (9, 3), (4, 2))
    ]
    assert head(maps, queries=queries).shape[-2:] == (4, 4)
