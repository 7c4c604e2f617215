"""What OpenSeg's head finds, and what captions teach it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from zs3_mmseg.datasets.splits import ZeroShotSplit
from zs3_mmseg.datasets.splits.zero_shot_split import make_split
from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads import OpenSegHead
from zs3_mmseg.models.losses import GroundingLoss
from zs3_mmseg.models.proposers import Proposer
from zs3_mmseg.models.segmentors.input_image import InputImage
from zs3_mmseg.utils.config_check import ConfigError

WIDTH, ROW = 8, 6
SPLIT = make_split('small', ('cat', 'grass|lawn', 'tv', 'fire truck'), ('tv',), 'test')


def head_of(**options: Any) -> OpenSegHead:
    torch.manual_seed(0)
    small: dict[str, Any] = dict(
        embed_dim=ROW,
        num_queries=5,
        num_layers=2,
        num_heads=2,
        feedforward_channels=8,
        num_groups=2,
        dropout=0.0,
    )
    return OpenSegHead([4, 4, 4, 4], WIDTH, **{**small, **options})


def maps(*last: Tensor) -> list[Tensor]:
    torch.manual_seed(1)
    levels = [torch.randn(2, 4, 8 >> level, 8 >> level) for level in range(4)]
    return [*levels, *last]


def encoded(words: Sequence[str]) -> Tensor:
    """Return a row for each word that does not depend on the others."""
    rows = []
    for word in words:
        random = torch.Generator().manual_seed(sum(map(ord, word)))
        rows.append(torch.randn(ROW, generator=random))
    return F.normalize(torch.stack(rows), dim=-1)


def queries_of(split: ZeroShotSplit, supervised: bool = False) -> ClassQueries:
    names = split.classes if supervised else split.seen
    return ClassQueries(
        encoded(names),
        torch.arange(len(names)),
        torch.ones(len(names), dtype=torch.bool),
        names=tuple(names),
    )


def samples(*captions: str | None) -> list[SegDataSample]:
    labels = torch.full((1, 16, 16), 255)
    labels[:, :8], labels[:, 8:, :4] = 0, 1
    found = []
    for caption in captions:
        meta = {} if caption is None else dict(caption=caption)
        sample = SegDataSample(metainfo=meta)
        sample.gt_sem_seg = PixelData(data=labels)
        found.append(sample)
    return found


def losses_of(
    head: OpenSegHead, *captions: str | None, supervised: bool = False
) -> dict[str, Tensor]:
    queries = queries_of(SPLIT, supervised)
    outputs = head.training_outputs(maps(), queries=queries)
    return head.loss_by_feat(
        outputs, samples(*captions), queries=queries, split=SPLIT, encode=encoded
    )


@torch.no_grad()
def test_scores_are_those_of_pooled_pixels() -> None:
    head, queries = head_of(scale=7.0), queries_of(SPLIT)
    found = head.predict(maps(), [{}] * 2, None, queries=queries)
    pixels = head.pixel_decoder(maps())[0][:, WIDTH:]
    for image in range(2):
        for number in range(5):
            weights = found.masks[image, number].sigmoid()
            mean = (weights * pixels[image]).sum(dim=(1, 2)) / weights.sum()
            cosines = F.cosine_similarity(mean[None], queries.embeddings)
            scores = (7 * cosines).softmax(dim=0)
            torch.testing.assert_close(found.class_scores[image, number], scores)


@torch.no_grad()
def test_with_a_map_of_the_text_space_it_begins_as_that() -> None:
    head = head_of(text_index=-1)
    dense = torch.randn(2, ROW, 8, 8)
    found = head.training_outputs(maps(dense), queries=queries_of(SPLIT))
    weights = found.masks.sigmoid()
    means = (weights.flatten(2) @ dense.flatten(2).transpose(1, 2)) / weights.sum(
        dim=(2, 3)
    )[..., None]
    torch.testing.assert_close(found.embeddings, means)


class Halves(Proposer):
    """Upper and left half, or a single pixel."""

    fingerprint = 'halves'

    def propose(self, image: Tensor) -> Tensor:
        masks = torch.zeros(3, 16, 16, dtype=torch.bool)
        masks[0, :8] = masks[1, :, :8] = True
        return masks[:1] if image[0, 0, 0] > 0 else masks


def shown() -> InputImage:
    pixels, valid = torch.zeros(2, 3, 16, 16), torch.tensor([[16, 16]] * 2)
    pixels[1] = 9
    return InputImage(pixels, valid, pixels, valid, (None,), ({}, {}))


def test_masks_of_a_proposer_take_the_place_of_queries() -> None:
    head = head_of(proposer=Halves(cache=False), scale=3.0)
    queries = queries_of(SPLIT)
    found = head.predict(maps(), [{}] * 2, None, queries=queries, image=shown())
    assert found.masks.shape == (2, 3, 16, 16)
    pixels = head.pixel_decoder(maps())[0]
    for image, number, mean in (
        (0, 0, pixels[0, :, :4].mean(dim=(1, 2))),
        (0, 1, pixels[0, :, :, :4].mean(dim=(1, 2))),
        (1, 0, pixels[1, :, :4].mean(dim=(1, 2))),
    ):
        cosines = F.cosine_similarity(mean[None], queries.embeddings)
        scores = (3 * cosines).softmax(dim=0)
        torch.testing.assert_close(found.class_scores[image, number], scores)
    assert found.fallback is not None
    alone = F.cosine_similarity(pixels[0, :, 7, 7][None], queries.embeddings)
    expected = (3 * alone).log_softmax(dim=0)
    torch.testing.assert_close(found.fallback[0, :, 7, 7], expected)

    outputs = head.training_outputs(maps(), queries=queries, image=shown())
    losses = head.loss_by_feat(
        outputs,
        samples('a cat', 'the lawn'),
        queries=queries,
        split=SPLIT,
        encode=encoded,
    )
    assert [*losses] == ['loss_grounding']
    losses['loss_grounding'].backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_captions_and_masks_teach_every_part() -> None:
    head = head_of()
    losses = losses_of(head, 'a cat', 'the lawn')
    sum(losses.values()).backward()
    silent = {n for n, p in head.named_parameters() if p.grad is None}
    assert not silent
    head.zero_grad()
    losses_of(head, 'a cat', 'the lawn')['loss_grounding'].backward()
    pixels = head.pixel_decoder.mask_features.weight.grad[WIDTH:]
    assert pixels.any()


@torch.no_grad()
def test_the_loss_is_that_of_the_words_in_the_captions() -> None:
    head = head_of(loss_grounding=dict(temperature=0.5))
    words = ['cat', 'grass', 'lawn', 'fire truck']
    said = torch.tensor([[1, 0, 0, 1], [0, 0, 1, 0]]).bool()
    found = head.training_outputs(maps(), queries=queries_of(SPLIT))
    expected = GroundingLoss(temperature=0.5)(found.embeddings, encoded(words), said)
    loss = losses_of(head, 'A cat on a fire truck', 'lawns')['loss_grounding']
    torch.testing.assert_close(loss, expected)


@torch.no_grad()
@pytest.mark.parametrize(
    ('options', 'supervised', 'hidden'),
    [(dict(), False, True), (dict(unseen_words=True), False, False), (dict(), True, 0)],
)
def test_words_of_unseen_classes_are_left_out(
    options: dict, supervised: bool, hidden: bool
) -> None:
    words = ['cat', 'lawn', 'tv', 'tvs', 'tv set', 'television']
    head = head_of(words=words, **options)
    plain = losses_of(head, 'a cat', 'a lawn', supervised=supervised)
    told = losses_of(head, 'a cat and tvs', 'a lawn', supervised=supervised)
    assert torch.equal(plain['loss_grounding'], told['loss_grounding']) == hidden
    assert head._known is not None
    assert ('tv set' in head._known[0]) != hidden


def test_labels_teach_no_class() -> None:
    """Other labels for the same masks change nothing."""
    head, queries = head_of(), queries_of(SPLIT)
    outputs = head.training_outputs(maps(), queries=queries)
    given: dict[str, Any] = dict(queries=queries, split=SPLIT, encode=encoded)
    swapped = samples('a cat', 'a lawn')
    first = head.loss_by_feat(outputs, samples('a cat', 'a lawn'), **given)
    for sample in swapped:
        labels = sample.gt_sem_seg.data
        sample.gt_sem_seg.data = torch.where(labels < 2, 1 - labels, labels)
    second = head.loss_by_feat(outputs, swapped, **given)
    for name in ('loss_grounding', 'loss_mask'):
        torch.testing.assert_close(first[name], second[name])


@torch.no_grad()
def test_captions_without_known_words_are_no_mistake() -> None:
    losses = losses_of(head_of(), 'a dog', '')
    assert float(losses['loss_grounding']) == 0
    assert float(losses['loss_mask']) > 0


def test_a_sample_without_a_caption_is_told_from() -> None:
    with pytest.raises(ConfigError, match='LoadCaptions'):
        losses_of(head_of(), 'a cat', None)
    with pytest.raises(ConfigError, match='every word means an unseen class'):
        losses_of(head_of(words=['tv']), 'a tv', 'a cat')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(scale=0.0), 'scale > 0'),
        (dict(mask_weight=-1.0), 'mask_weight >= 0'),
        (dict(num_heads=3), 'num_heads=3 does not divide'),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head_of(**options)
