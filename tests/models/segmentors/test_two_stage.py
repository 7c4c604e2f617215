"""Every proposer with every namer on one picture, and how masks become a map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from zs3_mmseg.models.decode_heads import ProposalHead
from zs3_mmseg.models.proposers import Proposer
from zs3_mmseg.models.region_classifiers import Regions
from zs3_mmseg.models.segmentors import ZeroShotEncoderDecoder
from zs3_mmseg.utils.cache import CACHE_ENV

CLIP = dict(arch='zs3-shapes-tiny', pretrained='shapes')
SPLIT = dict(classes=['star', 'boat', 'grass', 'sand'], unseen=['boat'])
SIZE = (48, 64)
HALF = dict(proposer=None, region_classifier=None)
NAMERS = {
    'pool': dict(type='MaskPoolingClassifier'),
    'crop': dict(type='CropClassifier', **CLIP),
    'attn': dict(type='MaskAttentionClassifier', **CLIP),
}


class Given(Proposer):
    """Masks and scores that the test has made."""

    fingerprint = 'given'

    def __init__(self, masks: Tensor, scores: Tensor | None = None) -> None:
        super().__init__(cache=False)
        self.masks, self.scores = masks, scores

    def propose(self, image: Tensor) -> Any:
        return self.masks if self.scores is None else (self.masks, self.scores)


def dense_model(head: dict, **options: Any) -> Any:
    """The tiny CLIP with a head that reads its dense tokens."""
    torch.manual_seed(0)
    model = ZeroShotEncoderDecoder(
        backbone=dict(type='OpenCLIPViT', **CLIP, last_attn='sclip', out_global=True),
        decode_head=head,
        class_embeddings=dict(
            type='ClassEmbeddingBank', source=dict(type='clip_text', **CLIP)
        ),
        split=SPLIT,
        setting='inductive',
        **options,
    )
    return model.eval()


def two_stage(proposer: Any, namer: Any = 'pool', **options: Any) -> Any:
    namer = NAMERS.get(namer, namer) if isinstance(namer, str) else namer
    return dense_model(
        dict(type='ProposalHead', proposer=proposer, region_classifier=namer, **options)
    )


def picture(seed: int = 0) -> Tensor:
    return torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def predicted(model: Any, image: Tensor) -> SegDataSample:
    meta = dict(ori_shape=SIZE, img_shape=SIZE, img_path='street.png')
    with torch.no_grad():
        (sample,) = model.predict(image, [SegDataSample(metainfo=meta)])
    return sample


@pytest.fixture
def proposers(tmp_path: Path, monkeypatch, sam_folder) -> dict[str, dict]:
    """Every proposer by its config."""
    monkeypatch.setenv(CACHE_ENV, str(tmp_path / 'cache'))
    masks = np.zeros((2, *SIZE), bool)
    masks[0, :20], masks[1, 10:, 30:] = True, True
    np.savez(tmp_path / 'street.npz', masks=masks)
    small = dict(num_queries=4, num_layers=1, num_heads=2, feedforward_channels=8)
    queries = dict(
        type='ZeroShotEncoderDecoder',
        data_preprocessor=dict(type='mmseg.SegDataPreProcessor', bgr_to_rgb=True),
        backbone=dict(type='OpenCLIPViT', **CLIP, out_indices=(1, 3, 4, 5)),
        decode_head=dict(
            type='ZegFormerHead',
            channels=16,
            num_groups=4,
            in_index=(0, 1, 2, 3),
            **small,
        ),
        class_embeddings=dict(
            type='ClassEmbeddingBank', source=dict(type='clip_text', **CLIP)
        ),
        split=SPLIT,
        setting='inductive',
    )
    few = dict(points_per_side=2, iou_thr=0.0, stability_thr=0.0)
    return {
        'sam': dict(type='SAMProposer', weights=sam_folder('sam'), **few),
        'sam2': dict(type='SAMProposer', weights=sam_folder('sam2'), **few),
        'superpixels': dict(type='SuperpixelProposer', num_segments=9),
        'eigen': dict(type='EigenSegmenter', long_side=64, patch_size=8, num_vectors=3),
        'files': dict(type='MaskFileProposer', root=str(tmp_path)),
        'queries': dict(type='QueryMaskProposer', model=queries),
    }


def test_every_proposer_goes_with_every_namer(proposers) -> None:
    image = picture()
    namers = {name: MODELS.build(config) for name, config in NAMERS.items()}
    for name, config in proposers.items():
        proposer = MODELS.build(config)
        for namer, built in namers.items():
            model = two_stage(
                proposer,
                built,
                output='log_mean',
                area_power=0.25,
                fallback=dict(type='DenseTextHead'),
            )
            sample = predicted(model, image)
            scores = sample.seg_logits.data
            assert scores.shape == (4, *SIZE), (name, namer)
            assert scores.isfinite().all(), (name, namer)
            assert torch.equal(sample.pred_sem_seg.data[0], scores.argmax(dim=0))
        assert len(proposer._latest) == 1  # it looked once


@pytest.mark.parametrize('namer', NAMERS)
def test_one_mask_of_everything_is_named_as_a_whole(namer: str) -> None:
    whole = torch.ones(1, *SIZE, dtype=torch.bool)
    model = two_stage(Given(whole), namer, output='log_mean')
    scores = predicted(model, picture()).seg_logits.data
    assert torch.equal(scores, scores[:, :1, :1].expand_as(scores))
    torch.testing.assert_close(scores[:, 0, 0].exp().sum(), torch.tensor(1.0))


def test_the_order_of_masks_changes_nothing() -> None:
    random = torch.Generator().manual_seed(0)
    masks = torch.rand(20, *SIZE, generator=random) < 0.3
    sure = torch.rand(20, generator=random)
    options: dict[str, Any] = dict(output='log_mean', area_power=0.25)
    first = predicted(two_stage(Given(masks, sure), **options), picture())
    turned = Given(masks.flip(0), sure.flip(0))
    second = predicted(two_stage(turned, **options), picture())
    torch.testing.assert_close(first.seg_logits.data, second.seg_logits.data)


@pytest.mark.parametrize('area_power', [0.0, 0.25, 1.0])
def test_masks_are_composed_by_score_and_area(area_power: float) -> None:
    random = torch.Generator().manual_seed(0)
    masks = torch.rand(20, *SIZE, generator=random) < torch.rand(20, 1, 1)
    masks[3], sure = False, torch.rand(20, generator=random)
    model = two_stage(
        Given(masks, sure),
        output='log_mean',
        area_power=area_power,
        fallback=dict(type='DenseTextHead'),
    )
    image = picture()
    found = predicted(model, image).seg_logits.data
    named = predicted(two_stage(Given(masks), 'pool'), image)  # for the class scores
    maps, _ = model.backbone(image)
    regions = Regions(masks[None], None, (maps,))
    classes = model.decode_head.region_classifier(regions, model.current_queries())[0]
    weights = sure * masks.flatten(1).sum(dim=1).clamp(min=1) ** -area_power
    cover = torch.einsum('m,mhw->hw', weights, masks.float())
    sums = torch.einsum('m,mk,mhw->khw', weights, classes, masks.float())
    covered = cover > 1e-8
    expected = (sums / (cover + 1e-8)).log()
    torch.testing.assert_close(
        found[:, covered], expected[:, covered], atol=1e-4, rtol=1e-4
    )
    plain = torch.einsum('mk,mhw->khw', classes, masks.float())
    torch.testing.assert_close(named.seg_logits.data, plain, atol=1e-4, rtol=1e-4)


def test_without_masks_the_dense_head_decides() -> None:
    none = Given(torch.zeros(0, *SIZE, dtype=torch.bool))
    dense = predicted(dense_model(dict(type='DenseTextHead')), picture())
    model = two_stage(none, output='log_mean', fallback=dict(type='DenseTextHead'))
    found = predicted(model, picture())
    assert torch.equal(found.pred_sem_seg.data, dense.pred_sem_seg.data)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(area_power=0.5), "are parts of output='log_mean'"),
        (dict(fallback=dict(type='DenseTextHead')), "are parts of output='log_mean'"),
        (dict(output='log_mean', area_power=-1.0), 'area_power must be >= 0'),
        (
            dict(output='log_mean', fallback=dict(type='ProposalHead', **HALF)),
            'decode_head.fallback: ProposalHead has no softmax over the classes: use a',
        ),
    ],
)
def test_impossible_compositions_are_refused(options: dict, message: str) -> None:
    masks = torch.ones(1, *SIZE, dtype=torch.bool)
    with pytest.raises(ValueError, match=message):
        ProposalHead(
            128,
            proposer=Given(masks),
            region_classifier=NAMERS['pool'],
            **options,
        )
