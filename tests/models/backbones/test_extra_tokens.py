"""Tokens behind the patches and taps, against open_clip's own blocks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from scipy.cluster.vq import kmeans2
from torch import Tensor

from mmseg.registry import MODELS

from zs3_mmseg.models.backbones import ExtraTokens, OpenCLIPViT, TowerOutput
from zs3_mmseg.models.backbones.extra_tokens import cluster_rows
from zs3_mmseg.utils.config_check import ConfigError

TOY = Path(__file__).parents[2] / 'data/tiny_run'


@pytest.fixture
def build(tiny_config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(TOY))
    import left_and_right  # noqa: F401  (registers the toy)

    def make(vision: dict | None = None, **options) -> OpenCLIPViT:
        torch.manual_seed(0)
        return OpenCLIPViT(tiny_config(**(vision or {})), **options).eval()

    return make


def toy_blocked(grid: tuple[int, int], prompts: int) -> Tensor:
    """Who may not look at whom, pair by pair, as open_clip adds it to the scores."""
    patches = grid[0] * grid[1]
    length = 1 + prompts + patches + 2
    blocked = torch.zeros(length, length)
    for row in range(length):
        for column in range(length):
            side = column - (length - 2)  # 0 is the left token, 1 the right one
            if row < 1 + prompts:
                allowed = side < 0
            elif row < length - 2 or column < 1 + prompts:
                allowed = True
            elif side < 0:
                x = (column - 1 - prompts) % grid[1]
                allowed = (x >= grid[1] / 2) == (row == length - 1)
            else:
                allowed = row == column
            if not allowed:
                blocked[row, column] = -math.inf
    return blocked


def by_hand(backbone: OpenCLIPViT, image: Tensor, grid: tuple[int, int]) -> list:
    """Run open_clip's blocks with ``attn_mask`` over an image of the tower's size."""
    visual, prompts = backbone.visual, backbone.prompts
    tokens = visual._embeds(image)
    extra = visual.ln_pre(backbone.extra_tokens.tokens).expand(len(image), -1, -1)
    tokens, patches = torch.cat([tokens, extra], dim=1), grid[0] * grid[1]
    for index, block in enumerate(visual.transformer.resblocks):
        held = 0
        if prompts is not None:
            tokens, held = prompts.before(index, tokens), prompts.count(index)
        tokens = block(tokens, attn_mask=toy_blocked(grid, held))
    own, groups = tokens[:, :-2], tokens[:, -2:]
    if prompts is not None:
        own = prompts.prompt_norm(own)
    dense, groups = (visual.ln_post(part) @ visual.proj for part in (own, groups))
    maps = dense[:, -patches:].transpose(1, 2).unflatten(2, grid)
    return [maps, dense[:, 0], groups]


VARIANTS = {
    'alone': dict(),
    'deep prompts': dict(prompts=dict(num_tokens=3, depth=1)),
    'prompts to the end': dict(prompts=dict(num_tokens=2, depth=2)),
    'oblong': dict(vision=dict(image_size=[24, 40])),
    'custom blocks': dict(vision=dict(qk_norm=True, scale_fc=True)),
}


@pytest.mark.parametrize('variant', VARIANTS)
@torch.no_grad()
def test_two_tokens_equal_open_clips_blocks_with_their_mask(
    variant: str, build
) -> None:
    options = dict(extra_tokens=dict(type='LeftAndRight'), out_global=True)
    backbone = build(**options, **VARIANTS[variant])
    size = backbone.visual.image_size
    image = torch.randn(2, 3, *size)
    grid = (size[0] // 8, size[1] // 8)
    output = backbone(image)
    assert isinstance(output, TowerOutput)
    actual = [*output.maps, output.global_token, output.group_tokens]
    for ours, theirs in zip(actual, by_hand(backbone, image, grid), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('prompts', [None, dict(num_tokens=2, depth=1)])
@torch.no_grad()
def test_replaced_attention_leaves_groups_and_global_token_alone(
    prompts: dict | None, build
) -> None:
    options = dict(out_global=True, prompts=prompts)
    image = torch.randn(2, 3, 32, 32)
    vanilla = build(**options, extra_tokens=dict(type='RegionTokens', num_tokens=4))
    replaced = build(
        **options,
        extra_tokens=dict(type='RegionTokens', num_tokens=4),
        last_attn='sclip',
    )
    replaced.load_state_dict(vanilla.state_dict())
    expected, actual = vanilla(image), replaced(image)
    torch.testing.assert_close(actual.group_tokens, expected.group_tokens)
    torch.testing.assert_close(actual.global_token, expected.global_token)
    assert not torch.allclose(actual.maps[0], expected.maps[0])


@torch.no_grad()
def test_a_float_mask_is_added_and_other_sizes_work(build) -> None:
    backbone = build(extra_tokens=dict(type='LeftAndRight'), normalize=True)
    padded = torch.randn(1, 3, 33, 50)
    expected = backbone(padded)
    assert expected.group_tokens.shape == (1, 2, 24)
    torch.testing.assert_close(
        expected.group_tokens, F.normalize(expected.group_tokens, dim=-1)
    )
    seen = backbone.extra_tokens.mask((5, 7), padded.device)
    added = torch.zeros(seen.shape).masked_fill(~seen, -math.inf)
    backbone.extra_tokens.mask = lambda grid, device: added
    backbone.extra_tokens._masks._tensors.clear()
    actual = backbone(padded)
    torch.testing.assert_close(actual.maps, expected.maps)
    torch.testing.assert_close(actual.group_tokens, expected.group_tokens)
    floored = build(extra_tokens=dict(type='LeftAndRight'), grid='floor')
    assert floored(padded).maps[0].shape == (1, 24, 4, 6)


@torch.no_grad()
def test_each_half_changes_its_own_token_alone_in_the_first_block(build) -> None:
    backbone = build(dict(layers=1), extra_tokens=dict(type='LeftAndRight'))
    image = torch.randn(1, 3, 32, 32)
    other = image.clone()
    other[..., 16:] += 1
    before, after = backbone(image).group_tokens, backbone(other).group_tokens
    torch.testing.assert_close(after[:, 0], before[:, 0])
    assert not torch.allclose(after[:, 1], before[:, 1], atol=1e-3)


@pytest.mark.parametrize('trainable', [True, False])
def test_tokens_learn_in_a_frozen_tower_if_told(trainable: bool, build) -> None:
    options = dict(type='LeftAndRight', trainable=trainable)
    backbone = build(extra_tokens=options, prompts=dict(num_tokens=1, depth=0)).train()
    names = {n.split('.')[0] for n, p in backbone.named_parameters() if p.requires_grad}
    assert names == ({'prompts', 'extra_tokens'} if trainable else {'prompts'})
    output = backbone(torch.randn(2, 3, 32, 32))
    (output.maps[0].square().sum() + output.group_tokens.sum()).backward()
    assert (backbone.extra_tokens.tokens.grad is not None) == trainable


@torch.no_grad()
def test_extra_tokens_go_with_esdas_parts(build) -> None:
    esda = dict(replace_cls=(1,), priors=(0, 2), low_rank=2, out_indices=(1, -1))
    backbone = build(extra_tokens=dict(type='LeftAndRight'), **esda)
    image, text = torch.randn(2, 3, 32, 32), torch.randn(3, 24)
    owners = torch.tensor([0, 1, 1])
    whole = backbone(image[owners], text)
    parts = backbone.forward_from(
        backbone.forward_shared(image), text, image_index=owners
    )
    assert [tuple(m.shape) for m in whole.maps] == [
        (3, channels, 4, 4) for channels in backbone.out_channels
    ]
    torch.testing.assert_close(parts.maps, whole.maps, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_forward_compiles_without_graph_breaks(build) -> None:
    backbone = build(
        dict(layers=2),
        extra_tokens=dict(type='RegionTokens', num_tokens=4),
        prompts=dict(num_tokens=2, depth=1),
        out_indices=(0, -1),
        tap_projection='clip',
        out_cls_tokens=True,
    )
    image = torch.randn(1, 3, 36, 50)
    torch._dynamo.reset()
    compiled = torch.compile(backbone, backend='eager', fullgraph=True)(image)
    expected = backbone(image)
    torch.testing.assert_close(compiled.maps, expected.maps)
    torch.testing.assert_close(compiled.group_tokens, expected.group_tokens)
    torch.testing.assert_close(compiled.cls_tokens, expected.cls_tokens)


def test_regions_see_their_cell_and_leave_the_rest_out(build) -> None:
    backbone = build(extra_tokens=dict(type='RegionTokens', num_tokens=4))
    mask = backbone.extra_tokens.mask((5, 4), torch.device('cpu'))
    cells = mask[-4:, 1:-4].reshape(4, 5, 4)
    for region, (top, left) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
        expected = torch.zeros(5, 4, dtype=torch.bool)
        expected[top : top + 2, left : left + 2] = True
        assert torch.equal(cells[region], expected)
    assert torch.equal(mask[1:-4, -4:], mask[-4:, 1:-4].T)
    assert torch.equal(mask[-4:, -4:], torch.eye(4, dtype=torch.bool))
    assert mask[:-4, :-4].all()
    assert not mask[0, -4:].any()
    assert not mask[-4:, 0].any()
    visual = backbone.visual
    first = visual.class_embedding + visual.positional_embedding[0]
    assert torch.equal(backbone.extra_tokens.tokens, first.expand(4, -1))
    assert not backbone.extra_tokens.tokens.requires_grad


@pytest.mark.parametrize('projection', ['clip', 'frozen_random', 'trainable'])
@torch.no_grad()
def test_taps_are_normed_and_projected_one_by_one(projection: str, build) -> None:
    options = dict(prompts=dict(num_tokens=2, depth=1), out_indices=(0, 2, -1))
    backbone = build(
        **options, tap_projection=projection, out_cls_tokens=True, normalize=True
    )
    assert backbone.out_channels == (24, 24, 24)
    visual, prompts = backbone.visual, backbone.prompts
    image = torch.randn(2, 3, 32, 32)
    tokens, taps = visual._embeds(image), {}
    for index, block in enumerate(visual.transformer.resblocks):
        tokens = block(prompts.before(index, tokens))
        taps[index] = prompts.prompt_norm(tokens)
    output = backbone(image)
    for place, index in enumerate((0, 2, -1)):
        tap = taps[2 if index == -1 else index]
        if projection == 'clip' or index == -1:
            expected = visual.ln_post(tap) @ visual.proj
        else:
            expected = F.layer_norm(tap, (32,)) @ backbone.taps.projections[place]
        expected = F.normalize(expected, dim=-1)
        torch.testing.assert_close(output.cls_tokens[:, place], expected[:, 0])
        map_ = expected[:, -16:].transpose(1, 2).unflatten(2, (4, 4))
        torch.testing.assert_close(output.maps[place], map_)
    learning = {n for n, p in backbone.named_parameters() if p.requires_grad}
    assert any(n.startswith('taps') for n in learning) == (projection == 'trainable')


@torch.no_grad()
def test_class_tokens_come_from_the_untouched_last_block(build) -> None:
    options = dict(out_indices=(1, -1), tap_projection='clip', out_cls_tokens=True)
    image = torch.randn(1, 3, 32, 32)
    expected = build(**options)(image).cls_tokens
    torch.testing.assert_close(
        build(**options, last_attn='naclip')(image).cls_tokens, expected
    )


def clustered(labels: Tensor, groups: int, prompts: int) -> Tensor:
    """Who may not look at whom in one image, pair by pair."""
    first = 1 + prompts
    after = first + len(labels)
    blocked = torch.zeros(after + groups, after + groups)
    for row in range(after + groups):
        for column in range(after + groups):
            if row >= after and column >= after:
                allowed = row == column
            elif row >= after or column >= after:
                group, other = max(row, column) - after, min(row, column)
                allowed = other >= first and labels[other - first] == group
            else:
                allowed = True
            if not allowed:
                blocked[row, column] = -math.inf
    return blocked


@pytest.mark.parametrize('prompts', [None, dict(num_tokens=3, depth=1)])
@torch.no_grad()
def test_each_image_has_the_mask_of_its_clusters(prompts: dict | None, build) -> None:
    backbone = build(
        extra_tokens=dict(type='ClusterTokens', num_tokens=3), prompts=prompts
    )
    images = torch.randn(3, 3, 32, 32)
    state = backbone.forward_shared(images)
    for index, image in enumerate(images):
        visual = backbone.visual
        tokens = visual._embeds(image[None])
        extra = visual.ln_pre(backbone.extra_tokens.tokens)[None]
        tokens = torch.cat([tokens, extra], dim=1)
        for number, block in enumerate(visual.transformer.resblocks):
            held = 0
            if backbone.prompts is not None:
                tokens = backbone.prompts.before(number, tokens)
                held = backbone.prompts.count(number)
            mask = clustered(state.assigned[index], 3, held)
            tokens = block(tokens, attn_mask=mask)
        groups = visual.ln_post(tokens[:, -3:]) @ visual.proj
        # Others in the batch, with other clusters, change nothing.
        found = backbone(images).group_tokens[index]
        torch.testing.assert_close(found, groups[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_clusters_are_those_of_kmeans_from_far_apart_rows() -> None:
    rows = torch.randn(4, 40, 5, dtype=torch.float64)
    found = cluster_rows(rows, 4, 6)
    for image, labels in zip(rows.numpy(), found, strict=True):
        apart = ((image - image.mean(axis=0)) ** 2).sum(axis=1)
        chosen = [apart.argmax()]
        for _ in range(3):
            near = ((image[:, None] - image[chosen]) ** 2).sum(-1).min(axis=1)
            chosen.append(near.argmax())
        # Its labels are those before the last step.
        expected = kmeans2(image, image[chosen], iter=7, minit='matrix')[1]
        assert labels.tolist() == expected.tolist()


@torch.no_grad()
def test_colours_make_the_clusters_that_they_show(build) -> None:
    backbone = build(
        extra_tokens=dict(
            type='ClusterTokens', num_tokens=2, features='colour', place=0
        ),
    )
    image = torch.randn(3, 1, 1).expand(3, 32, 32).clone()
    image[:, 8:24, 16:] += 2
    labels = backbone.forward_shared(image[None]).assigned.view(4, 4)
    inside = torch.zeros(4, 4, dtype=torch.bool)
    inside[1:3, 2:] = True
    assert len(labels[inside].unique()) == len(labels[~inside].unique()) == 1
    assert labels[inside][0] != labels[~inside][0]


@torch.no_grad()
def test_a_network_of_its_own_stays_as_it_is(build) -> None:
    network = dict(
        type='ResNet', depth=18, num_stages=1, strides=(1,), dilations=(1,),
        out_indices=(0,), base_channels=4,
    )  # fmt: skip
    backbone = build(
        extra_tokens=dict(type='ClusterTokens', num_tokens=2, features=network),
    ).train()
    assert not backbone.extra_tokens.network.backbone.training
    learn = {n for n, p in backbone.named_parameters() if p.requires_grad}
    assert learn == {'extra_tokens.tokens'}
    assert backbone(torch.randn(2, 3, 40, 24)).group_tokens.shape == (2, 2, 24)


def test_custom_blocks_take_one_mask_for_all_images(build) -> None:
    backbone = build(
        dict(qk_norm=True), extra_tokens=dict(type='ClusterTokens', num_tokens=2)
    )
    with pytest.raises(ConfigError, match='differ from image to image'):
        backbone(torch.randn(1, 3, 32, 32))


class Blind(ExtraTokens):
    """A mask of another size, or with a token that sees nothing."""

    def __init__(self, kind: str, **options) -> None:
        super().__init__(1, **options)
        self.kind = kind

    def mask(self, grid, device):
        length = 1 + grid[0] * grid[1] + (self.kind == 'blind')
        mask = torch.ones(length, length, dtype=torch.bool)
        mask[-1] = False
        return mask


@pytest.mark.parametrize(
    ('kind', 'message'),
    [('small', r'gives \(17, 17\).* expected \(18, 18\)'), ('blind', r'\[17\] see no')],
)
def test_masks_that_cannot_work_are_refused(kind: str, message: str, build) -> None:
    MODELS.register_module(module=Blind, force=True)
    try:
        backbone = build(extra_tokens=dict(type='Blind', kind=kind))
        with pytest.raises(ValueError, match=f'Blind.mask .*{message}'):
            backbone(torch.randn(1, 3, 32, 32))
    finally:
        MODELS.module_dict.pop('Blind')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(extra_tokens=dict(type='RegionTokens', num_tokens=5)), 'no square'),
        (dict(extra_tokens=dict(type='RegionTokens', num_tokens=0)), 'at least 1'),
        (dict(extra_tokens=dict(type='ClusterTokens', features='dino')), 'one of'),
        (dict(extra_tokens=dict(type='ClusterTokens', place=-1)), 'not be below 0'),
        (dict(extra_tokens=dict(type='LeftAndRight', init='ones')), 'must be one of'),
        (dict(tap_projection='random'), 'tap_projection must be one of'),
        (dict(out_cls_tokens=True, out_indices=(0, -1)), 'set tap_projection'),
    ],
)
def test_wrong_options_are_named(options: dict, message: str, build) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)
