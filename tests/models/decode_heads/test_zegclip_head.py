"""Options of the ZegCLIP head; the golden files say what the published one computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads import ZegCLIPHead
from zs3_mmseg.models.decode_heads.relation_decoder import Layout
from zs3_mmseg.models.decode_heads.zegclip_head import descriptor

E = 16


def queries(count: int) -> ClassQueries:
    generator = torch.Generator().manual_seed(0)
    return ClassQueries(
        torch.randn(count, E, generator=generator),
        torch.arange(count),
        torch.ones(count, dtype=torch.bool),
    )


def inputs() -> tuple[tuple[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(1)
    # Odd and not square: the official reshape would drop a token.
    patches = torch.randn(2, E, 3, 5, generator=generator)
    return (patches,), torch.randn(2, E, generator=generator)


def samples(classes: int) -> list[SegDataSample]:
    labels = torch.arange(2 * 12 * 20).reshape(2, 1, 12, 20) % classes
    return [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]


def make(**options: object) -> ZegCLIPHead:
    torch.manual_seed(0)
    return ZegCLIPHead(E, num_heads=4, **options).eval()


def test_a_class_scores_the_same_in_any_vocabulary() -> None:
    head, (maps, token) = make(), inputs()
    few = head(maps, queries=queries(2), global_token=token)
    many = head(maps, queries=queries(7), global_token=token)
    torch.testing.assert_close(many[:, :2], few)


@pytest.mark.parametrize(
    'terms', [('text',), ('product',), ('difference', 'text'), ('product', 'image')]
)
def test_descriptor_terms_set_the_width_of_the_query_map(terms: tuple) -> None:
    head, (maps, token) = make(descriptor=terms), inputs()
    assert head.q_proj.in_features == len(terms) * E
    assert head(maps, queries=queries(3), global_token=token).shape == (2, 3, 3, 5)


def several(count: int, rows: int) -> ClassQueries:
    """Queries with several rows each."""
    return replace(
        queries(count * rows),
        query_to_class=torch.arange(count),
        seen_mask=torch.ones(count, dtype=torch.bool),
        prompts_per_row=rows,
    )


OTSEG = dict(mask_from='plan', merge_layers='gate', score_path='sinkhorn')
EACH = dict(type='sinkhorn', stop='each')


def test_plans_that_stop_by_themselves_do_not_know_the_vocabulary() -> None:
    (maps, token), many = inputs(), several(7, 3)
    few = replace(several(2, 3), embeddings=many.embeddings[:6])
    head = make(attention=EACH, **OTSEG | dict(score_path=EACH))
    torch.testing.assert_close(
        head(maps, queries=many, global_token=token)[:, :2],
        head(maps, queries=few, global_token=token),
    )


@pytest.mark.parametrize('deep', [False, True])
def test_both_paths_get_losses_and_their_mixture_is_the_result(deep: bool) -> None:
    (maps, token), rows = inputs(), several(3, 2)
    options = dict(queries=rows, global_token=token)
    path = dict(type='sinkhorn', mix=0.25)
    settings = dict(attention='sinkhorn', **OTSEG | dict(score_path=path))
    head = make(deep_supervision=deep, **settings)
    score, *layers = head.training_outputs(maps, **options)
    assert len(layers) == (3 if deep else 1)
    expected = 0.25 * score + 0.75 * layers[-1]
    torch.testing.assert_close(head(maps, **options), expected)
    torch.testing.assert_close(head.class_logits([score, *layers]), expected)
    losses = head.loss(maps, samples(3), None, **options)
    labels = torch.cat([sample.gt_sem_seg.data for sample in samples(3)])
    assert head.mask_loss is not None
    for name, value in head.mask_loss(score, labels).items():
        torch.testing.assert_close(losses[f'score.{name}'], value)
    places = ('', 'score.', 'd0.', 'd1.') if deep else ('', 'score.')
    wanted = {f'{place}{name}' for place in places for name in LOSSES}
    assert set(losses) == wanted | {'acc_seg', 'score.acc_seg'}


def test_groups_of_taps_add_their_masks() -> None:
    generator = torch.Generator().manual_seed(2)
    maps = [torch.randn(2, E, 3, 5, generator=generator) for _ in range(4)]
    _, token = inputs()
    options = dict(queries=queries(3), global_token=token)
    head = make(tap_groups=((0, 1), (2,)))
    group, single = head.tap_groups
    torch.testing.assert_close(group.weights, torch.tensor([0.6065307, 1.0]))
    assert single.weights is None
    # Two heads without groups, with the parts of one group each.
    total = 0
    parts = [(head, maps[3]), (single, maps[2])]
    parts.append((group, group.weights[0] * maps[0] + group.weights[1] * maps[1]))
    for part, memory in parts:
        alone = make()
        alone.q_proj.load_state_dict(part.q_proj.state_dict())
        alone.decoder.load_state_dict(part.decoder.state_dict())
        total = total + alone([memory], **options)
    torch.testing.assert_close(head(maps, **options), total)
    shared = make(tap_groups=((0, 1), (2,)), query_projections='one')
    assert all(group.q_proj is None for group in shared.tap_groups)


@pytest.mark.parametrize('maps', [[(E, 3)], [(E, 3), (E + 1, 3), (E, 3)]])
def test_taps_that_are_not_there(maps: list) -> None:
    given = [torch.zeros(1, width, size, size) for width, size in maps]
    with pytest.raises(ValueError, match='tap_groups reads map 1 with 16 channels'):
        make(tap_groups=((0, 1),))(
            given, queries=queries(2), global_token=torch.zeros(1, E)
        )


TAPS = dict(tap_groups=((0, 1),))


@pytest.mark.parametrize(
    'options',
    [
        dict(TAPS, attention='sinkhorn', **OTSEG),
        dict(TAPS, query_projections='one', score_path='sinkhorn'),
        dict(TAPS, cosine_start=20.0, merge_layers='gate', project_patches=False),
        dict(attention='sinkhorn', mask_from='attention'),
        dict(attention='sinkhorn', loss_decode=None, score_path='sinkhorn'),
        dict(
            attention='sinkhorn',
            cosine_start=1.0,
            mask_scale=3.0,
            mask_bias=-6.0,
            **OTSEG,
        ),
        dict(score_path='sinkhorn', deep_supervision=True, identical_layers=False),
    ],
)
@pytest.mark.parametrize('rows', [1, 3])
def test_combinations_that_nobody_published_learn(options: dict, rows: int) -> None:
    (patches,), token = inputs()
    head, given = make(**options).train(), several(3, rows)
    losses = head.loss(
        [patches] * 3, samples(3), None, queries=given, global_token=token
    )
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert all(p.grad is not None for p in head.parameters())
    logits = head.eval()([patches] * 3, queries=given, global_token=token)
    assert logits.shape == (2, 3, 3, 5)
    assert logits.isfinite().all()


def test_text_alone_does_not_look_at_the_image_token() -> None:
    head, (maps, token) = make(descriptor=('text',)), inputs()
    torch.testing.assert_close(
        head(maps, queries=queries(3), global_token=token),
        head(maps, queries=queries(3), global_token=-token),
    )


def test_masks_of_several_rows_of_a_name_are_averaged() -> None:
    head, (maps, token) = make(), inputs()
    whole = head(maps, queries=queries(6), global_token=token)
    rows = several(2, 3)
    torch.testing.assert_close(
        head(maps, queries=rows, global_token=token),
        torch.stack([whole[:, :3].mean(1), whole[:, 3:].mean(1)], dim=1),
    )


def test_unknown_term() -> None:
    with pytest.raises(ValueError, match="Did you mean 'product'"):
        make(descriptor=('produkt',))


def test_missing_global_token() -> None:
    with pytest.raises(ValueError, match='out_global=True'):
        make()(inputs()[0], queries=queries(2))


def test_deep_supervision_adds_the_losses_of_earlier_layers() -> None:
    (patches,), token = inputs()
    head, rows = make(deep_supervision=True, num_layers=3), queries(3)
    losses = head.loss((patches,), samples(3), None, queries=rows, global_token=token)
    query = head.q_proj(descriptor(head.terms, rows.embeddings, token))
    memory = patches.flatten(2).transpose(1, 2)
    layers = head.decoder(query, memory, Layout(patches.shape[-2:])).masks
    labels = torch.cat([sample.gt_sem_seg.data for sample in samples(3)])
    expected = {'acc_seg'}
    for place, mask in zip(('d0.', 'd1.', ''), layers, strict=True):
        assert head.mask_loss is not None
        terms = head.mask_loss(mask.unflatten(-1, patches.shape[-2:]), labels)
        for name in LOSSES:
            torch.testing.assert_close(losses[f'{place}{name}'], terms[name])
            expected.add(f'{place}{name}')
    assert set(losses) == expected


LOSSES = ('loss_mask', 'loss_dice')


def test_without_mask_loss_it_is_a_softmax_head() -> None:
    maps, token = inputs()
    head = make(loss_decode=None)
    losses = head.loss(maps, samples(3), None, queries=queries(3), global_token=token)
    logits = head(maps, queries=queries(3), global_token=token)
    full = torch.nn.functional.interpolate(logits, (12, 20), mode='bilinear')
    labels = torch.cat([sample.gt_sem_seg.data for sample in samples(3)])
    expected = torch.nn.functional.cross_entropy(full, labels)
    assert head.score_kind == 'softmax'
    torch.testing.assert_close(losses['loss_ce'], expected)


def test_all_parameters_learn() -> None:
    maps, token = inputs()
    head = make()
    losses = head.loss(maps, samples(3), None, queries=queries(3), global_token=token)
    sum(losses[name] for name in LOSSES).backward()
    assert all(p.grad is not None for p in head.parameters())


def test_layers_start_as_copies_unless_told_otherwise() -> None:
    same, drawn = make(), make(identical_layers=False)
    first, second = (layer.linear1.weight for layer in same.decoder.layers)
    assert torch.equal(first, second)
    first, second = (layer.linear1.weight for layer in drawn.decoder.layers)
    assert not torch.equal(first, second)


@pytest.mark.parametrize('deep', [False, True])
def test_pseudo_labels_come_from_the_last_layer(deep: bool) -> None:
    maps, token = inputs()
    head = make(deep_supervision=deep, identical_layers=False)
    rows = queries(3)
    rows = ClassQueries(
        rows.embeddings, rows.query_to_class, torch.tensor([True, False, False])
    )
    labels = torch.full((2, 12, 20), 254)
    filled = head.resolve_unlabelled(
        head.training_outputs(maps, queries=rows, global_token=token),
        labels,
        queries=rows,
        unlabelled_index=254,
    )
    logits = head(maps, queries=rows, global_token=token)[:, 1:]
    full = torch.nn.functional.interpolate(logits, (12, 20), mode='bilinear')
    assert torch.equal(filled, 1 + full.argmax(1))


@pytest.mark.parametrize('layers', [1, 3])
def test_a_cosine_start_is_dense_clip_and_every_parameter_leaves_it(
    layers: int,
) -> None:
    (patches,), token = inputs()
    maps, rows = (F.normalize(patches),), queries(3)
    rows = replace(rows, embeddings=F.normalize(rows.embeddings))
    head = make(cosine_start=20.0, num_layers=layers, dropout=0.0)
    centred = rows.embeddings
    if layers > 1:
        centred = F.normalize(centred - centred.mean(dim=1, keepdim=True))
    expected = 20 * torch.einsum('kc,nchw->nkhw', centred, maps[0])
    logits = head(maps, queries=rows, global_token=token)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)

    # A softmax over keys never sees their bias.
    learned = [p for n, p in head.named_parameters() if 'attn.k.bias' not in n]
    before = [p.detach().clone() for p in learned]
    optimizer = torch.optim.SGD(learned, lr=0.1)
    for _ in range(3):
        losses = head.loss(maps, samples(3), None, queries=rows, global_token=token)
        optimizer.zero_grad()
        sum(losses[name] for name in LOSSES).backward()
        optimizer.step()
    same = [torch.equal(p, old) for p, old in zip(learned, before, strict=True)]
    assert not any(same)


def test_a_mask_bias_shifts_every_mask_and_is_learnt() -> None:
    head, (maps, token), rows = make(mask_bias=-6.0), inputs(), queries(3)
    plain = make()
    missing = plain.load_state_dict(head.state_dict(), strict=False)
    assert missing.unexpected_keys == ['mask_bias']
    options = dict(queries=rows, global_token=token)
    torch.testing.assert_close(head(maps, **options), plain(maps, **options) - 6)
    losses = head.loss(maps, samples(3), None, **options)
    sum(losses[name] for name in LOSSES).backward()
    assert head.mask_bias is not None
    assert head.mask_bias.grad


@pytest.mark.parametrize(
    ('options', 'what'),
    [
        (dict(cosine_start=0.0), 'above 0'),
        (dict(cosine_start=20.0, descriptor=('product',)), "'text' in descriptor"),
        (dict(cosine_start=20.0, project_patches=True), 'project_patches=False'),
        (dict(mask_bias=-6.0, loss_decode=None), 'a softmax over classes'),
        (dict(attention='softmin'), "Did you mean 'softmax'"),
        (dict(mask_from='plan'), "mask_from with attention='softmax' must be one"),
        (dict(merge_layers='gates'), "Did you mean 'gate'"),
        (dict(score_path='softmax'), 'score_path must be one of'),
        (dict(score_path=dict(type='sinkhorn', mix=2)), 'mix=2 must be in 0..1'),
        (dict(query_projections='two'), 'query_projections must be one of'),
        (dict(tap_groups=((0,), ())), 'must name one map or more'),
        (dict(attention='sinkhorn', cosine_start=20.0), 'it must be 1.0 here'),
        (dict(loss_decode=dict(type='CrossEntropyLoss')), 'no loss over class masks'),
        (dict(loss_decode=[dict(type='NonExclusiveLoss')]), 'no loss over class masks'),
    ],
)
def test_a_start_that_cannot_be(options: dict, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        make(**options)
