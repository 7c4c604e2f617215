"""The contract that all heads with class embeddings keep."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from zs3_mmseg.models.calibrators import ImageLevelGate
from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads import (
    CosineRegressionHead,
    DenseTextHead,
    ESDAHead,
    SAZSHead,
    TextPixelHead,
    ZegCLIPHead,
    ZeroShotHead,
)

E = 8
HEADS = {
    'dense': lambda: DenseTextHead(E),
    'pixel': lambda: TextPixelHead(E),
    'cosine': lambda: CosineRegressionHead(E, embed_dim=E),
    'zegclip': lambda: ZegCLIPHead(E, num_heads=2),
    'zegclip_deep': lambda: ZegCLIPHead(E, num_heads=2, deep_supervision=True),
    'sazs': lambda: SAZSHead(E),
    'esda': lambda: ESDAHead(E, embed_dim=E, num_heads=2, conv_channels=(4,)),
}


def given_to(head: ZeroShotHead) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """Return maps and keywords; two images, and for pairs two names."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, E, 3, 5, generator=generator)
    given: dict[str, Any] = dict(
        queries=ClassQueries(
            torch.randn(2, E, generator=generator),
            torch.arange(2),
            torch.tensor([True, False]),
        ),
        global_token=torch.randn(2, E, generator=generator),
    )
    if not isinstance(head, ESDAHead):
        return (maps,), given
    given['text_tokens'] = torch.randn(2, 4, E, generator=generator)
    return (maps, torch.rand(2, 1, 3, 5, generator=generator)), given


@pytest.mark.parametrize('name', HEADS)
def test_forward_loss_and_predict_are_made_of_the_entry_points(name: str) -> None:
    torch.manual_seed(0)
    head = HEADS[name]().eval()
    maps, given = given_to(head)
    labels = torch.arange(2 * 6 * 10).reshape(2, 1, 6, 10) % 2
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    for sample, label in zip(samples, labels, strict=True):  # which SAZS reads
        sample.set_data(dict(gt_edge_map=PixelData(data=1 - label)))
    outputs = head.training_outputs(maps, **given)
    logits = head.query_logits(maps, **given)
    assert torch.equal(head.class_logits(outputs), logits)
    assert torch.equal(head(maps, **given), logits)
    assert torch.equal(head.predict(maps, [{}, {}], None, **given), logits)
    losses = head.loss(maps, samples, None, **given)
    assert any('loss' in name for name in losses)
    expected = head.loss_by_feat(outputs, samples)
    assert losses.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(losses[key], value), key


def unreduced(queries: ClassQueries) -> Any:
    """Queries of two prompts each, as a bank that averages none gives them."""
    return SimpleNamespace(**vars(queries) | dict(prompts_per_row=2))


@pytest.mark.parametrize('name', [n for n in HEADS if not n.startswith('zegclip')])
def test_prompts_that_are_not_averaged_are_refused(name: str) -> None:
    head = HEADS[name]()
    maps, given = given_to(head)
    given['queries'] = unreduced(given['queries'])
    message = f'{type(head).__name__} reads one row per query, .* prompts_per_row=2'
    with pytest.raises(ValueError, match=message):
        head.query_logits(maps, **given)


def test_the_gate_reads_one_row_per_query_as_well() -> None:
    _, given = given_to(DenseTextHead(E))
    queries = unreduced(given['queries'])
    with pytest.raises(ValueError, match='ImageLevelGate reads one row per query'):
        ImageLevelGate(1.0)(torch.zeros(2, 2, 3, 5), queries, given['global_token'])


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: DenseTextHead(E, query_reduce='maks'), "Did you mean 'max'"),
        (
            lambda: CosineRegressionHead(E, embed_dim=E, query_reduce='sum'),
            "score_kind='logit' needs 'max'",
        ),
        (
            lambda: ZegCLIPHead(E, num_heads=2, query_reduce='sum'),
            "score_kind='sigmoid' needs 'max'",
        ),
    ],
)
def test_reductions_that_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
