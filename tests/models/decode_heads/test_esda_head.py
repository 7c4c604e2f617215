"""Options of the ESDA head; the golden files say what the published one computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads import ESDAHead
from zs3_mmseg.models.decode_heads.esda_head import VisionLanguageInteraction

N, D, E, LENGTH, PRIORS = 2, 32, 16, 5, 3
# Odd and not square.
GRID, SIZE = (3, 7), (12, 28)
LOSSES = ('loss_ce', 'loss_prior_last', 'loss_prior_rest')


def make(**options: Any) -> ESDAHead:
    torch.manual_seed(0)
    return ESDAHead(D, embed_dim=E, num_heads=4, dropout_ratio=0, **options).eval()


def inputs() -> tuple[tuple[Tensor, Tensor], dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    maps = normal(N, D, *GRID), torch.rand(N, PRIORS, *GRID, generator=generator)
    queries = ClassQueries(
        normal(N, E), torch.arange(N), torch.ones(N, dtype=torch.bool)
    )
    text_tokens = normal(N, LENGTH, E)
    return maps, dict(
        queries=queries, text_tokens=text_tokens, global_token=normal(N, E)
    )


def labels() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    values = torch.randint(0, 3, (N, *SIZE), generator=generator)
    return values.masked_fill(values == 2, 255)


def samples(truth: Tensor) -> list[SegDataSample]:
    return [
        SegDataSample(gt_sem_seg=PixelData(data=label.unsqueeze(0))) for label in truth
    ]


def losses_of(head: ESDAHead, truth: Tensor) -> dict[str, Tensor]:
    maps, given = inputs()
    return head.loss(maps, samples(truth), None, **given)


def resized(maps: Tensor) -> Tensor:
    return F.interpolate(maps, SIZE, mode='bilinear', align_corners=True)


def interaction(order: str, layers: int = 2) -> VisionLanguageInteraction:
    torch.manual_seed(0)
    return VisionLanguageInteraction(D, 4, num_layers=layers, token_order=order).eval()


def tokens(num_support: int, num_image: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    every = torch.randn(N, num_support + num_image, D, generator=generator)
    return every[:, :num_support], every[:, num_support:]


def silence(module: VisionLanguageInteraction) -> None:
    """Make every block the identity, so that only the order of tokens is left."""
    for name, parameter in module.named_parameters():
        if 'out_proj' in name or 'c_proj' in name:
            torch.nn.init.zeros_(parameter)


@torch.no_grad()
def test_the_official_order_ends_with_other_tokens() -> None:
    """What the released code does to the positions, worked out by hand."""
    (support, image), module = tokens(4, 11), interaction('official')
    silence(module)
    expected = torch.cat([image[:, 8:], support, image[:, :4]], dim=1)
    torch.testing.assert_close(module(support, image), expected)


@pytest.mark.parametrize('layers', [1, 2, 3])
@torch.no_grad()
def test_the_fixed_order_keeps_every_token_in_place(layers: int) -> None:
    (support, image), module = tokens(4, 11), interaction('fixed', layers)
    silence(module)
    torch.testing.assert_close(module(support, image), image)


@torch.no_grad()
def test_the_fixed_order_enhances_image_and_support_apart() -> None:
    (support, image), module = tokens(4, 11), interaction('fixed')
    actual = module(support, image)
    mixed = module.joint[0](torch.cat([support, image], dim=1))
    support = module.support[0](mixed[:, :4])
    image = module.image[0](mixed[:, 4:])
    mixed = module.joint[1](torch.cat([support, image], dim=1))
    expected = module.image[1](mixed[:, 4:])
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('order', ['official', 'fixed'])
@torch.no_grad()
def test_any_grid_works_also_one_smaller_than_the_text(order: str) -> None:
    for num_image in (1, 3, 4, 9):
        support, image = tokens(4, num_image)
        assert interaction(order)(support, image).shape == image.shape


@torch.no_grad()
def test_the_orders_share_weights_and_differ_in_their_logits() -> None:
    maps, given = inputs()
    official, fixed = make(), make(token_order='fixed')
    fixed.load_state_dict(official.state_dict())
    ours, theirs = official(maps, **given), fixed(maps, **given)
    assert ours.shape == theirs.shape == (N, 2, *GRID)
    assert not torch.allclose(ours, theirs, atol=1e-3)


@torch.no_grad()
def test_pairs_do_not_influence_each_other() -> None:
    head, (maps, given) = make(), inputs()
    together = head(maps, **given)
    queries = given['queries']
    for index in range(N):
        one = slice(index, index + 1)
        alone = head(
            tuple(part[one] for part in maps),
            queries=ClassQueries(
                queries.embeddings[one], torch.tensor([0]), torch.tensor([True])
            ),
            text_tokens=given['text_tokens'][one],
            global_token=given['global_token'][one],
        )
        torch.testing.assert_close(alone, together[one], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_every_part_of_the_input_counts() -> None:
    head, (maps, given) = make(), inputs()
    expected = head(maps, **given)
    queries = given['queries']
    changed = [
        ((maps[0] + 1, maps[1]), {}),
        ((maps[0], maps[1].flip(-1)), {}),
        (
            maps,
            dict(
                queries=ClassQueries(
                    -queries.embeddings, queries.query_to_class, queries.seen_mask
                )
            ),
        ),
        (maps, dict(text_tokens=given['text_tokens'].flip(-1))),
        (maps, dict(global_token=-given['global_token'])),
    ]
    for other, more in changed:
        assert not torch.allclose(head(other, **given | more), expected, atol=1e-4)


@torch.no_grad()
def test_only_the_last_prior_is_read() -> None:
    head, ((patches, priors), given) = make(), inputs()
    expected = head((patches, priors), **given)
    earlier = torch.cat([1 - priors[:, :-1], priors[:, -1:]], dim=1)
    assert torch.equal(head((patches, earlier), **given), expected)


@pytest.mark.parametrize('void', ['background', 'ignore'])
@pytest.mark.parametrize('target', ['official', 'foreground'])
@torch.no_grad()
def test_losses_are_cross_entropies_of_full_maps(target: str, void: str) -> None:
    head, (maps, given) = make(prior_target=target, void_pixels=void), inputs()
    losses = losses_of(head, labels())
    truth = labels()
    if void == 'background':
        truth[truth == 255] = 0
    expected = F.cross_entropy(resized(head(maps, **given)), truth, ignore_index=255)
    torch.testing.assert_close(losses['loss_ce'], expected)
    parts = []
    for prior in maps[1].split(1, dim=1):
        # The channel of the named class is the second one.
        other, named = (
            (prior, 1 - prior) if target == 'official' else (1 - prior, prior)
        )
        full = resized(torch.cat([other, named], dim=1))
        parts.append(F.cross_entropy(full, truth, ignore_index=255))
    torch.testing.assert_close(losses['loss_prior_last'], 0.2 * parts[-1])
    rest = 0.1 * torch.stack(parts[:-1]).mean()
    torch.testing.assert_close(losses['loss_prior_rest'], rest)


@pytest.mark.parametrize(('target', 'sign'), [('official', -1), ('foreground', 1)])
def test_priors_are_pushed_as_their_target_says(target: str, sign: int) -> None:
    """Down on the named class in the released code, up if the option says so."""
    head, ((patches, priors), given) = make(prior_target=target), inputs()
    priors.requires_grad_()
    truth = torch.ones(N, *SIZE, dtype=torch.long)
    losses = head.loss((patches, priors), samples(truth), None, **given)
    (losses['loss_prior_last'] + losses['loss_prior_rest']).backward()
    assert (-sign * priors.grad > 0).all()


@torch.no_grad()
def test_one_prior_has_no_others() -> None:
    head, ((patches, priors), given) = make(), inputs()
    losses = head.loss((patches, priors[:, :1]), samples(labels()), None, **given)
    assert losses['loss_prior_rest'] == 0
    assert losses['loss_prior_last'] > 0


@pytest.mark.parametrize('void', ['background', 'ignore'])
def test_labels_are_never_changed(void: str) -> None:
    truth = labels()
    losses_of(make(void_pixels=void), truth)
    assert torch.equal(truth, labels())


@torch.no_grad()
def test_weights_of_the_prior_losses() -> None:
    plain, weighted = (
        losses_of(make(prior_weights=weights), labels())
        for weights in ((0.2, 0.1), (1.0, 0.4))
    )
    torch.testing.assert_close(
        weighted['loss_prior_last'], 5 * plain['loss_prior_last']
    )
    torch.testing.assert_close(
        weighted['loss_prior_rest'], 4 * plain['loss_prior_rest']
    )


def test_foreground_is_the_named_class_alone() -> None:
    mask = make().foreground(torch.tensor([[[0, 1, 255]]]))
    assert mask.tolist() == [[[False, True, False]]]


def test_all_parameters_learn() -> None:
    head = make()
    losses = losses_of(head, labels())
    sum(losses[name] for name in LOSSES).backward()
    assert all(p.grad is not None and p.grad.any() for p in head.parameters())


@torch.no_grad()
def test_the_forward_pass_compiles_without_a_break() -> None:
    head, (maps, given) = make(), inputs()
    torch._dynamo.reset()

    def run(*parts: Tensor) -> Tensor:
        return head(parts, **given)

    compiled = torch.compile(run, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(*maps), run(*maps))


@torch.no_grad()
def test_bfloat16_autocast_stays_close() -> None:
    head, (maps, given) = make(), inputs()
    exact = head(maps, **given)
    with torch.autocast('cpu', torch.bfloat16):
        rounded = head(maps, **given)
    assert F.cosine_similarity(rounded.float().flatten(), exact.flatten(), 0) > 0.99


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(token_order='swapped'), "token_order must be one of .* not 'swapped'"),
        (dict(prior_target='up'), "prior_target must be one of .* not 'up'"),
        (dict(void_pixels='keep'), "void_pixels must be one of .* not 'keep'"),
    ],
)
def test_wrong_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match='32 channels do not divide into 5 heads'):
        VisionLanguageInteraction(D, 5)


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        (dict(global_token=None), 'out_global=True'),
        (dict(text_tokens=torch.ones(N, LENGTH, 8)), r'text_tokens is \(2, 5, 8\)'),
        (dict(global_token=torch.ones(1, E)), r'global_token is \(1, 16\)'),
    ],
)
def test_wrong_inputs_are_named(changed: dict, message: str) -> None:
    maps, given = inputs()
    with pytest.raises(ValueError, match=message):
        make()(maps, **given | changed)


def test_a_backbone_without_priors_is_named() -> None:
    maps, given = inputs()
    with pytest.raises(ValueError, match=r'set backbone\.priors'):
        make()(maps[:1], **given)
