"""Class names and low-rank paths in a tower, against a loop over open_clip's blocks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zs3_mmseg.models.backbones import OpenCLIPViT
from zs3_mmseg.models.backbones.prompts import masked_prototype, prior_map

GRID = (4, 4)
LISTS = {
    'as published': dict(replace_cls=(1, 2), priors=(0, 1, 2, 3, 4)),
    'from the first block': dict(replace_cls=(0,), priors=(4,)),
    'far apart': dict(replace_cls=(3, 1), priors=(4, 0, 2)),
    'at the end': dict(replace_cls=(4,), priors=(2, 3)),
    'no text': dict(replace_cls=(), priors=(0, 3)),
    'no priors': dict(replace_cls=(2,), priors=()),
}


@pytest.fixture
def build(tiny_config):
    def make(**options) -> OpenCLIPViT:
        torch.manual_seed(0)
        options = dict(out_indices=(3, -1), out_global=True) | options
        backbone = OpenCLIPViT(tiny_config(layers=5), **options).eval()
        if backbone.low_rank is not None:
            for bypass in backbone.low_rank:
                torch.nn.init.normal_(bypass.up, std=0.05)
        return backbone

    return make


def inputs(count: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    image, text = torch.randn(count, 3, 32, 32), torch.randn(count, 24)
    return image, text, torch.rand(count, 32, 32) > 0.7


def stretched(cosines: Tensor) -> Tensor:
    low, high = cosines.min(), cosines.max()
    return (cosines - low) / (high - low + 1e-7)


def by_hand(
    backbone: OpenCLIPViT, image: Tensor, text: Tensor | None, mask: Tensor | None
) -> list[Tensor]:
    """What one image of the tower's own size gives, block after block."""
    visual, prompt = backbone.visual, backbone.class_prompt
    tokens = visual._embeds(image[None])
    weights = torch.zeros(16)
    if mask is not None:
        maps = mask[None, None].float()
        weights = F.interpolate(maps, GRID, mode='bilinear', align_corners=True)
        weights = weights.flatten()
    name = None if text is None else prompt.proj(text)
    outputs, priors = [], []
    for index, block in enumerate(visual.transformer.resblocks):
        if index in prompt.replace_cls:
            tokens = torch.cat([name[None, None], tokens[:, 1:]], dim=1)
        after = block(tokens)
        if backbone.low_rank is not None:
            bypass = backbone.low_rank[index]
            after = after + tokens @ bypass.down @ bypass.up
        tokens = after
        outputs.append(tokens)
        if index in prompt.priors:
            patches = tokens[0, 1:]
            if index == 4:
                prototype = name
            else:
                total = sum(w * p for w, p in zip(weights, patches, strict=True))
                prototype = total / (weights.sum() + 0.0005)
            lengths = patches.norm(dim=1) * prototype.norm() + 1e-7
            priors.append(stretched((patches * prototype).sum(dim=1) / lengths))
    normed = visual.ln_post(tokens[0]) @ visual.proj
    results = [outputs[3][0, 1:].T.reshape(-1, *GRID), normed[1:].T.reshape(-1, *GRID)]
    if priors:
        results.append(torch.stack(priors).reshape(-1, *GRID))
    return [*results, normed[0]]


@pytest.mark.parametrize('low_rank', [None, 2])
@pytest.mark.parametrize('told', [False, True], ids=['testing', 'training'])
@pytest.mark.parametrize('lists', LISTS)
@torch.no_grad()
def test_blocks_give_what_they_give_by_hand(
    lists: str, told: bool, low_rank: int | None, build
) -> None:
    backbone = build(low_rank=low_rank, **LISTS[lists])
    image, text, mask = inputs()
    rows = text if backbone.replace_cls else None
    actual = backbone(image, rows, mask if told else None)
    for index in range(len(image)):
        expected = by_hand(
            backbone,
            image[index],
            None if rows is None else rows[index],
            mask[index] if told else None,
        )
        assert len(actual) == len(expected)
        for ours, theirs in zip(actual, expected, strict=True):
            torch.testing.assert_close(ours[index], theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('lists', LISTS)
@torch.no_grad()
def test_shared_blocks_run_once_and_change_nothing(lists: str, build) -> None:
    backbone = build(low_rank=2, **LISTS[lists])
    image, text, _ = inputs(2)
    rows = torch.cat([text, text.flip(0), text + 1])
    owners = torch.tensor([0, 1, 0, 1, 1, 0])
    given = rows if backbone.replace_cls else None
    expected = backbone(image[owners], given)

    sizes: dict[int, int] = {}
    for index, block in enumerate(backbone.visual.transformer.resblocks):
        block.ln_1.register_forward_pre_hook(
            lambda _, args, index=index: sizes.update({index: len(args[0])})
        )
    state = backbone.forward_shared(image)
    actual = backbone.forward_from(state, given, image_index=owners)
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    shared = min(backbone.replace_cls, default=5)
    assert backbone.num_shared_blocks == shared
    assert [sizes[index] for index in range(5)] == [2] * shared + [6] * (5 - shared)


def test_gradients_are_those_of_the_whole_pass_in_one(build) -> None:
    backbone = build(low_rank=2, **LISTS['as published'])
    image, text, mask = inputs(2)
    owners = torch.tensor([0, 1, 1])
    rows, masks = text[owners] * torch.tensor([1.0, 1.0, -1.0])[:, None], mask[owners]

    def gradients(outputs: tuple[Tensor, ...]) -> list[Tensor]:
        loss = sum(output.square().sum() for output in outputs)
        parameters = [p for p in backbone.parameters() if p.requires_grad]
        return list(torch.autograd.grad(loss, parameters))

    whole = gradients(backbone(image[owners], rows, masks))
    state = backbone.forward_shared(image)
    parts = gradients(
        backbone.forward_from(state, rows, image_index=owners, foreground=masks)
    )
    for ours, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_only_what_was_added_learns_in_a_frozen_tower(build) -> None:
    backbone = build(low_rank=2, **LISTS['as published']).train()
    names = {n for n, p in backbone.named_parameters() if p.requires_grad}
    assert {name.split('.')[0] for name in names} == {'low_rank', 'class_prompt'}
    image, text, mask = inputs()
    sum(output.sum() for output in backbone(image, text, mask)).backward()
    assert all(dict(backbone.named_parameters())[n].grad.any() for n in names)


@torch.no_grad()
def test_a_text_row_can_start_as_what_dense_logits_look_for(build) -> None:
    """Of centred patches of one length, the nearest to it has the largest logit."""
    options = dict(LISTS['as published'], out_indices=(4, -1))
    backbone = build(text_proj_init='tower', **options)
    torch.nn.init.normal_(backbone.visual.ln_post.weight, mean=1)
    backbone.class_prompt.start_like_dense_logits(backbone.visual)
    patches = F.layer_norm(torch.randn(50, 32), (32,))
    text = torch.randn(24)
    logits = backbone.visual.ln_post(patches) @ backbone.visual.proj @ text
    bias = backbone.visual.ln_post.bias @ backbone.visual.proj @ text
    cosines = F.cosine_similarity(patches, backbone.class_prompt.proj(text)[None])
    ratio = (logits - bias) / cosines
    torch.testing.assert_close(ratio, ratio[:1].expand(50), rtol=1e-3, atol=0)
    assert ratio[0] > 0
    # Only the start differs.
    random, text = build(**options), torch.randn(3, 24)
    random.load_state_dict(backbone.state_dict())
    for ours, theirs in zip(
        backbone(inputs()[0], text), random(inputs()[0], text), strict=True
    ):
        assert torch.equal(ours, theirs)


@torch.no_grad()
def test_a_new_low_rank_path_changes_nothing(tiny_config) -> None:
    torch.manual_seed(0)
    plain = OpenCLIPViT(tiny_config()).eval()
    bypassed = OpenCLIPViT(tiny_config(), low_rank=3).eval()
    bypassed.visual.load_state_dict(plain.visual.state_dict())
    image = torch.randn(1, 3, 40, 32)
    assert torch.equal(plain(image)[0], bypassed(image)[0])
    for path in bypassed.low_rank:
        path.up.add_(1)
    assert not torch.allclose(plain(image)[0], bypassed(image)[0])


@pytest.mark.parametrize('last_attn', ['naclip', 'maskclip'])
@torch.no_grad()
def test_a_low_rank_path_goes_around_replaced_attention_too(
    last_attn: str, build
) -> None:
    """The global token keeps the untouched block and has the path as well."""
    options = dict(low_rank=2, out_indices=(3, 4))
    before, after, token = build(last_attn=last_attn, **options)(inputs()[0])
    plain = build(**options)
    torch.testing.assert_close(token, plain(inputs()[0])[-1])
    path = plain.low_rank[4]
    path.up.zero_()
    without = build(last_attn=last_attn, **options)
    without.low_rank[4].up.zero_()
    added = after - without(inputs()[0])[1]
    path = build(**options).low_rank[4]
    expected = before.movedim(1, -1) @ path.down @ path.up
    torch.testing.assert_close(added.movedim(1, -1), expected, rtol=1e-4, atol=1e-4)


def test_an_empty_mask_gives_zeros_and_finite_gradients(build) -> None:
    backbone = build(low_rank=2, **LISTS['as published'])
    image, text, mask = inputs()
    mask[0] = False
    priors = backbone(image, text, mask)[-2]
    assert not priors[0, :-1].any()
    assert priors[1, 0].amax().item() == pytest.approx(1, abs=1e-4)
    priors.square().sum().backward()
    gradients = [p.grad for p in backbone.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@torch.no_grad()
def test_a_mask_is_padded_with_its_image(build) -> None:
    backbone = build(**LISTS['as published'])
    torch.manual_seed(2)
    image, text = torch.randn(1, 3, 33, 50), torch.randn(1, 24)
    mask = torch.rand(1, 33, 50) > 0.5
    whole = F.pad(image, (0, 6, 0, 7)), F.pad(mask, (0, 6, 0, 7))
    ours, theirs = backbone(image, text, mask), backbone(whole[0], text, whole[1])
    torch.testing.assert_close(ours, theirs)
    assert ours[-2].shape == (1, 5, 5, 7)


def test_maps_are_counted_in_out_channels(build) -> None:
    assert build(**LISTS['far apart']).out_channels == (32, 24, 3)
    assert build(**LISTS['no priors']).out_channels == (32, 24)


def test_a_prototype_is_the_mean_under_the_mask() -> None:
    patches = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [4.0, 4.0], [0.0, 0.0]]])
    weights = torch.tensor([[1.0, 0.5, 0.0, 0.0]])
    expected = torch.tensor([[1.0, 1.0]]) / 1.5005
    torch.testing.assert_close(masked_prototype(patches, weights), expected)
    maps = prior_map(patches, torch.tensor([[3.0, 0.0]]), (2, 2))
    expected = torch.tensor([[[[1.0, 0.0], [0.5**0.5, 0.0]]]])
    torch.testing.assert_close(maps, expected)


@torch.no_grad()
def test_bfloat16_autocast_keeps_priors_exact(build) -> None:
    """The prior itself is computed in float32, whatever the tokens are."""
    patches, prototype = torch.randn(2, 16, 32), torch.randn(2, 32)
    with torch.autocast('cpu', torch.bfloat16):
        inside = prior_map(patches, prototype, GRID)
        outputs = build(low_rank=2, **LISTS['as published'])(*inputs())
    assert torch.equal(inside, prior_map(patches, prototype, GRID))
    assert all(output.isfinite().all() for output in outputs)


@torch.no_grad()
def test_pairs_compile_without_graph_breaks(build) -> None:
    backbone = build(low_rank=2, **LISTS['as published'])
    torch._dynamo.reset()
    compiled = torch.compile(backbone, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(*inputs()), backbone(*inputs()))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(replace_cls=(5,)), r'replace_cls=\(5,\) must be .* 0 to 4'),
        (dict(replace_cls=(1,), priors=(1, 1)), r'priors=\(1, 1\) must be different'),
        (dict(priors=(0, 4)), 'holds the last block.* set replace_cls'),
        (dict(priors=(0,), text_proj_init='tower'), 'of no use without replace_cls'),
        (dict(text_proj_init='tower'), 'of no use without replace_cls'),
        (dict(replace_cls=(1,), text_proj_init='clip'), 'text_proj_init'),
        (dict(low_rank=0), 'low_rank is a rank of at least 1'),
    ],
)
def test_wrong_options_are_named(options: dict, message: str, build) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize(
    ('lists', 'given', 'message'),
    [
        ('as published', dict(), 'needs text_cls'),
        (
            'as published',
            dict(text_cls=torch.ones(1, 24)),
            r'text_cls is \(1, 24\), expected a row of 24 for each of 3',
        ),
        ('no text', dict(text_cls=torch.ones(3, 24)), 'read by no block'),
        (
            'no text',
            dict(foreground=torch.ones(3, 16, 32)),
            r'foreground is \(3, 16, 32\), expected .* 4x4 patches',
        ),
    ],
)
def test_wrong_inputs_are_named(lists: str, given: dict, message: str, build) -> None:
    with pytest.raises(ValueError, match=message):
        build(**LISTS[lists])(inputs()[0], **given)


@pytest.mark.parametrize('given', ['text_cls', 'foreground'])
def test_a_plain_tower_refuses_names(given: str, build) -> None:
    with pytest.raises(ValueError, match='set replace_cls, priors'):
        build()(inputs()[0], **{given: torch.ones(3, 24)})
