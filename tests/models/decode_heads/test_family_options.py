"""Options of the ZegCLIP head that other methods brought, alone and mixed.

The golden files say what the published combinations compute.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads import ZegCLIPHead

E, GRID, GROUPS = 16, (3, 5), 4
CLIP_RC = dict(
    query_context='groups',
    memory=('group', 'image', 'patch'),
    two_way=True,
    mask_from='dot',
    recovery=dict(num_layers=1, loss_weight=2.0),
)
TAGCLIP = dict(
    self_attn_layers=(0,),
    identical_layers=False,
    xavier_start=True,
    extra_query='trust',
)
TRANSPORT = dict(
    attention='sinkhorn',
    mask_from='plan',
    merge_layers='gate',
    score_path='sinkhorn',
)


def queries(count: int, prompts: int = 1) -> ClassQueries:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(count * prompts, E, generator=generator)
    return ClassQueries(
        F.normalize(rows, dim=1),
        torch.arange(count),
        torch.ones(count, dtype=torch.bool),
        prompts_per_row=prompts,
    )


def features() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    draw = [
        F.normalize(torch.randn(*shape, generator=generator), dim=axis)
        for shape, axis in (((2, E, *GRID), 1), ((2, E), 1), ((2, GROUPS, E), 2))
    ]
    return dict(inputs=(draw[0],), global_token=draw[1], group_tokens=draw[2])


def make(**options: Any) -> ZegCLIPHead:
    torch.manual_seed(0)
    return ZegCLIPHead(E, num_heads=4, **options).eval()


def masks(head: ZegCLIPHead, count: int) -> Tensor:
    return head(**features(), queries=queries(count))


@pytest.mark.parametrize(
    ('options', 'alone'),
    [
        (dict(attention='hilo'), True),
        (dict(memory=('image', 'patch')), True),
        (dict(mask_from='dot'), True),
        (dict(query_context='groups'), True),
        (dict(two_way=True), False),
        (dict(self_attn_layers=(1,)), False),
        (dict(extra_query='trust', self_attn_layers=(2,)), False),
    ],
)
@torch.no_grad()
def test_whether_a_class_scores_the_same_in_any_vocabulary(
    options: dict, alone: bool
) -> None:
    head = make(**options)
    few, many = masks(head, 2), masks(head, 7)
    assert torch.allclose(many[:, :2], few, atol=1e-5 * float(few.abs().max())) == alone


#: Nobody published these.
UNTRIED: dict[str, dict[str, Any]] = {
    'one layer that looks both ways': dict(CLIP_RC, num_layers=1),
    'hi-lo attention that looks both ways': dict(CLIP_RC, attention='hilo'),
    'groups whose masks are attention': dict(query_context='groups', two_way=True),
    'groups in the memory alone': dict(memory=('patch', 'group')),
    'recovery of a decoder that looks one way': dict(
        mask_from='dot', recovery=dict(num_layers=2)
    ),
    'a trusty query of each group': CLIP_RC | TAGCLIP,
    'a trusty query with a softmax': dict(TAGCLIP, loss_decode=None),
    'self-attention everywhere': dict(self_attn_layers=(0, 1, 2), attention='hilo'),
    'losses of all layers': dict(CLIP_RC, deep_supervision=True, extra_query='trust'),
    'a transport of each group': dict(TRANSPORT, query_context='groups'),
    'a trusty query with a transport': TRANSPORT | TAGCLIP,
    'gates of products': dict(CLIP_RC, merge_layers='gate'),
    'groups of taps that look both ways': dict(CLIP_RC, tap_groups=((0,), (-1, 0))),
    'projected patches': dict(CLIP_RC, project_patches=True, mask_bias=-2.0),
    'ssim beside dice': dict(
        attention=dict(type='hilo', window=2, low_share=0.5),
        loss_decode=dict(type='NonExclusiveLoss', ssim_weight=1.0),
    ),
}


@pytest.mark.parametrize('prompts', [1, 2])
@pytest.mark.parametrize('name', UNTRIED)
def test_what_nobody_tried_trains(name: str, prompts: int) -> None:
    head = make(**UNTRIED[name]).train()
    labels = torch.arange(2 * 12 * 20).reshape(2, 1, 12, 20) % 3
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    outputs = head.training_outputs(**features(), queries=queries(3, prompts))
    assert head.class_logits(outputs).shape == (2, 3, *GRID)
    losses = head.loss_by_feat(outputs, samples, labels[:, 0] == 1)
    assert ('loss_trust' in losses) == ('extra_query' in UNTRIED[name])
    assert ('loss_recovery_query' in losses) == ('recovery' in UNTRIED[name])
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    for parameter in head.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize(
    'options',
    [
        dict(mask_from='dot'),
        CLIP_RC,
        dict(CLIP_RC, mask_from='attention', recovery=None),
        dict(self_attn_layers=(0, 2), extra_query='trust'),
    ],
)
@torch.no_grad()
def test_a_cosine_start_is_the_cosine_of_what_norms_leave(options: dict) -> None:
    head, given = make(**options, cosine_start=20.0), features()
    rows = queries(3).embeddings
    rows = rows - rows.mean(1, keepdim=True)
    patches = given['inputs'][0].flatten(2).transpose(1, 2)
    if options.get('two_way'):
        patches = patches - patches.mean(2, keepdim=True)
    expected = 20 * F.normalize(rows, dim=1) @ F.normalize(patches, dim=2).mT
    actual = masks(head, 3).flatten(2)
    torch.testing.assert_close(actual, expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(recovery=dict()), "mask_from='dot' only"),
        (dict(CLIP_RC, recovery=dict(num_layers=0)), 'recovery.num_layers must be'),
        (dict(query_context='groups', descriptor=('text',)), 'nothing to modulate'),
        (dict(query_context='regions'), 'query_context must be one of'),
        (dict(memory=('group', 'image')), "'patch' among them"),
        (dict(memory=('patch', 'patch')), 'different parts'),
        (dict(memory=('patch', 'regions')), 'each part of memory must be one of'),
        (dict(mask_from='product'), 'mask_from with .* must be one of'),
        (dict(two_way=True, num_layers=1), 'no layer to act in'),
        (dict(self_attn_layers=(3,)), 'different layers from 0 to 2'),
        (dict(extra_query='doubt'), 'extra_query must be one of'),
        (dict(trust_weight=10.0), "set decode_head.extra_query='trust'"),
        (dict(xavier_start=True), 'identical_layers=False'),
        (dict(TAGCLIP, cosine_start=20.0), 'cosine_start=None'),
        (dict(attention='hilo', cosine_start=20.0), "not for attention='hilo'"),
        (dict(attention=dict(type='hilo', low_share=1.0)), 'heads of both kinds'),
    ],
)
def test_options_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ('options', 'tokens', 'message'),
    [
        (dict(query_context='groups'), None, 'set model.backbone.extra_tokens'),
        (dict(memory=('group', 'patch')), torch.ones(2, 3, E), 'a square number'),
    ],
)
def test_group_tokens_that_do_not_fit(
    options: dict, tokens: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)(**(features() | dict(group_tokens=tokens)), queries=queries(2))
