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


def test_text_alone_does_not_look_at_the_image_token() -> None:
    head, (maps, token) = make(descriptor=('text',)), inputs()
    torch.testing.assert_close(
        head(maps, queries=queries(3), global_token=token),
        head(maps, queries=queries(3), global_token=-token),
    )


def test_masks_of_several_rows_of_a_name_are_averaged() -> None:
    head, (maps, token) = make(), inputs()
    apart = queries(6)
    whole = head(maps, queries=apart, global_token=token)
    rows = replace(
        apart,
        query_to_class=torch.arange(2),
        seen_mask=torch.ones(2, dtype=torch.bool),
        prompts_per_row=3,
    )
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
    layers = head.decoder(query, memory, Layout(patches.shape[-2:]))
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
        (dict(loss_decode=dict(type='CrossEntropyLoss')), 'no loss over class masks'),
        (dict(loss_decode=[dict(type='NonExclusiveLoss')]), 'no loss over class masks'),
    ],
)
def test_a_start_that_cannot_be(options: dict, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        make(**options)
