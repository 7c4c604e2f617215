"""Patches refined by tokens of objects: its start, and who hears of whom."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.decode_heads import ObjectCentricHead, ZegCLIPHead
from zs3_mmseg.models.decode_heads.object_centric_head import ObjectRefinement
from zs3_mmseg.utils.config_check import ConfigError

WIDTH = 16
OPTIONS = dict(num_layers=2, num_heads=2, dropout=0.0)


def queries(rows: int = 3) -> ClassQueries:
    embeddings = F.normalize(torch.randn(rows, WIDTH), dim=1)
    return ClassQueries(embeddings, torch.arange(rows), torch.ones(rows).bool())


def given() -> tuple[Tensor, dict[str, Tensor]]:
    tokens = dict(
        global_token=torch.randn(2, WIDTH), group_tokens=torch.randn(2, 4, 16)
    )
    return torch.randn(2, WIDTH, 5, 6), tokens


def test_it_starts_as_the_head_without_refinement() -> None:
    head = ObjectCentricHead(WIDTH, **OPTIONS).eval()
    plain = ZegCLIPHead(WIDTH, **OPTIONS).eval()
    rest = plain.load_state_dict(head.state_dict(), strict=False)
    assert not rest.missing_keys
    assert all(key.startswith('refinement.') for key in rest.unexpected_keys)
    (maps, tokens), rows = given(), queries()
    expected = plain.query_logits([maps], queries=rows, **tokens)
    assert torch.equal(head.query_logits([maps], queries=rows, **tokens), expected)


def trained(**options: object) -> ObjectRefinement:
    refinement = ObjectRefinement(WIDTH, num_heads=2, **options)
    nn.init.normal_(refinement.out.weight)
    return refinement.eval()


def test_the_order_of_objects_means_nothing() -> None:
    (maps, tokens), refinement = given(), trained()
    objects = tokens['group_tokens']
    found = refinement(maps, objects[:, [2, 0, 3, 1]])
    torch.testing.assert_close(found, refinement(maps, objects), rtol=1e-5, atol=1e-5)


def test_a_patch_hears_of_others_through_objects_or_its_surroundings() -> None:
    maps, tokens = given()
    other = maps.clone()
    other[:, :, 0, 0] = torch.randn(WIDTH)
    objects = tokens['group_tokens']
    # One layer: what objects gather from the corner reaches the far end, ...
    refinement = trained(num_layers=1, kernels=(1, 3))
    far = (refinement(other, objects) - refinement(maps, objects))[..., -1, -1]
    assert far.abs().max() > 1e-4
    # ... and without them only the surroundings of the corner do.
    nn.init.zeros_(refinement.layers[0].scatter.out_proj.weight)
    change = (refinement(other, objects) - refinement(maps, objects)).abs().amax((0, 1))
    assert (change[:2, :2] > 0).all()
    assert change[2:].max() == change[:, 2:].max() == 0


def test_its_parameters_learn_from_the_second_step_on() -> None:
    torch.manual_seed(0)
    head, rows, (maps, tokens) = ObjectCentricHead(WIDTH, **OPTIONS), queries(), given()
    optimizer = torch.optim.SGD(head.refinement.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        masks = head.training_outputs([maps], queries=rows, **tokens)
        masks[-1].square().mean().backward()
        optimizer.step()
    gradients = {n: p.grad for n, p in head.refinement.named_parameters()}
    assert all(g is not None and g.abs().max() > 0 for g in gradients.values())


def test_objects_must_be_there() -> None:
    maps, tokens = given()
    with pytest.raises(ConfigError, match='ClusterTokens'):
        ObjectCentricHead(WIDTH, **OPTIONS).query_logits(
            [maps], queries=queries(), global_token=tokens['global_token']
        )


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        (dict(num_layers=0), 'at least 1'),
        (dict(num_heads=3), 'must divide 16'),
        (dict(kernels=(1, 2)), 'must be odd'),
    ],
)
def test_options_out_of_range_are_named(options: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ObjectCentricHead(WIDTH, refinement=options)
