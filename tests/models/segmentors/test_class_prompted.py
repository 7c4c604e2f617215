"""Pairs of an image and a name, and whole vocabularies name by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from zs3_mmseg.models.class_embeddings import ClassEmbeddings, split_names
from zs3_mmseg.models.segmentors import ClassPromptedSegmentor

TOWER = dict(
    embed_dim=16,
    quick_gelu=True,
    vision_cfg=dict(image_size=32, patch_size=8, width=32, head_width=8, layers=3),
    text_cfg=dict(context_length=6, vocab_size=49408, width=16, heads=2, layers=1),
)
SPLIT = dict(name='toy', classes=['ant', 'bee', 'cat', 'dog'], unseen=['bee', 'dog'])
BACKBONE = dict(
    type='OpenCLIPViT',
    arch=TOWER,
    out_indices=(2,),
    out_global=True,
    normalize=True,
    low_rank=2,
    replace_cls=(1, 2),
    priors=(0, 1, 2),
)


class TokenBank:
    """A bank whose rows and token features follow from the names alone."""

    dim = 16
    token_features = True

    def embed(self, names: Sequence[str]) -> ClassEmbeddings:
        texts, classes = split_names(names)
        parts = []
        for text in texts:
            generator = torch.Generator().manual_seed(sum(map(ord, text)))
            parts.append(torch.randn(1 + 6, self.dim, generator=generator))
        made = torch.stack(parts)
        return ClassEmbeddings(
            embeddings=made[:, 0],
            query_to_class=torch.tensor(classes),
            names=tuple(names),
            provenance={},
            token_features=made[:, 1:],
        )


class BareBank(TokenBank):
    """A bank that gives no token features."""

    token_features = False


class NoBank(TokenBank):
    """A bank whose text tower is not there."""

    def embed(self, names: Sequence[str]) -> ClassEmbeddings:
        raise FileNotFoundError('no tower')


Build = Callable[..., ClassPromptedSegmentor]


@pytest.fixture
def build() -> Build:
    """Build a small ESDA whose low-rank bypasses do something."""

    def make(**options: Any) -> ClassPromptedSegmentor:
        torch.manual_seed(0)
        arguments: dict[str, Any] = dict(
            backbone=BACKBONE,
            decode_head=dict(type='ESDAHead', conv_channels=(8, 8, 8)),
            class_embeddings=TokenBank(),
            split=SPLIT,
            setting='inductive',
        )
        model = ClassPromptedSegmentor(**(arguments | options))
        for name, parameter in model.named_parameters():
            if 'low_rank' in name:
                torch.nn.init.normal_(parameter, std=0.1)
        return model.eval()

    return make


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, 40, 48)


def meta_of(*names: str, **more: Any) -> list[SegDataSample]:
    size = dict(ori_shape=(40, 48), img_shape=(40, 48), pad_shape=(40, 48))
    return [SegDataSample(metainfo={**size, 'prompt_name': n, **more}) for n in names]


def labelled(*names: str) -> list[SegDataSample]:
    samples = meta_of(*names)
    torch.manual_seed(2)
    for sample in samples:
        labels = torch.randint(0, 3, (1, 40, 48))
        sample.gt_sem_seg = PixelData(data=labels.masked_fill(labels == 2, 255))
    return samples


@torch.no_grad()
def logits_of(model: ClassPromptedSegmentor, image: Tensor, name: str) -> Tensor:
    """One pass for one name, by the parts alone: (1, 2, h, w)."""
    made = TokenBank().embed([name])
    patches, priors, token = model.backbone(image[None], made.embeddings)
    return model.decode_head.forward(
        (patches, priors),
        queries=made,
        text_tokens=made.token_features,
        global_token=token,
    )


def balance(model: ClassPromptedSegmentor, image: Tensor, name: str) -> None:
    """Shift the background so that about half of an image is foreground."""
    logits = logits_of(model, image, name)
    model.decode_head.conv_seg.bias.data[0] += (logits[:, 1] - logits[:, 0]).median()


@torch.no_grad()
def test_pairs_are_masks_of_their_names(build: Build, images: Tensor) -> None:
    model = build()
    balance(model, images[0], 'bee')
    samples = model.predict(images, meta_of('bee', 'ant'))
    for image, sample, name in zip(images, samples, ('bee', 'ant'), strict=True):
        full = F.interpolate(
            logits_of(model, image, name), (40, 48), mode='bilinear', align_corners=True
        )
        torch.testing.assert_close(sample.seg_logits.data, full[0])
        assert torch.equal(sample.pred_sem_seg.data, full.argmax(dim=1))
    assert 0.2 < samples[0].pred_sem_seg.data.float().mean() < 0.8


@torch.no_grad()
def test_pairs_on_a_canvas_are_cut_to_the_image(build: Build) -> None:
    model = build()
    image = torch.randn(1, 3, 48, 48)
    balance(model, image[0], 'cat')
    sample = meta_of('cat', ori_shape=(60, 90), canvas_shape=(90, 90))
    model.predict(image, sample)
    full = F.interpolate(
        logits_of(model, image[0], 'cat'), (48, 48), mode='bilinear', align_corners=True
    )
    full = F.interpolate(full, (90, 90), mode='bilinear', align_corners=True)
    expected = full.argmax(dim=1)[:, :60]
    assert torch.equal(sample[0].pred_sem_seg.data, expected)


@torch.no_grad()
def test_predictions_do_not_look_at_the_truth(build: Build, images: Tensor) -> None:
    model = build()
    with_truth = model.predict(images, labelled('bee', 'ant'))
    without = model.predict(images, meta_of('bee', 'ant'))
    for one, other in zip(with_truth, without, strict=True):
        assert torch.equal(one.seg_logits.data, other.seg_logits.data)


@pytest.mark.parametrize('name_batch_size', [1, 3, 16])
@torch.no_grad()
def test_vocabulary_is_one_pass_per_name(
    build: Build, images: Tensor, name_batch_size: int
) -> None:
    model = build(test_cfg=dict(mode='whole', name_batch_size=name_batch_size))
    scores = model.encode_decode(images, [{}] * 2)
    assert scores.shape == (2, 4, 40, 48)
    for image, per_name in zip(images, scores, strict=True):
        for name, score in zip(SPLIT['classes'], per_name, strict=True):
            logits = logits_of(model, image, name)
            odds = F.interpolate(
                logits[:, 1:] - logits[:, :1],
                (40, 48),
                mode='bilinear',
                align_corners=True,
            )
            torch.testing.assert_close(score, odds[0, 0].sigmoid())


@torch.no_grad()
def test_vocabulary_can_change(build: Build, images: Tensor) -> None:
    model = build()
    before = model.encode_decode(images, [{}] * 2)
    model.set_classes(['emu', 'dog|bee', 'ant'])
    scores = model.encode_decode(images, [{}] * 2)
    torch.testing.assert_close(scores[:, 1], before[:, [1, 3]].amax(dim=1))
    torch.testing.assert_close(scores[:, 2], before[:, 0])
    assert model.decode_head.num_classes == 2
    sample = model.predict(images[:1], meta_of('emu'))[0]
    assert sample.pred_sem_seg.data.shape == (1, 40, 48)
    samples = [SegDataSample(metainfo=dict(ori_shape=(40, 48))) for _ in images]
    assert torch.equal(
        model.predict(images, samples)[0].pred_sem_seg.data[0], scores[0].argmax(dim=0)
    )


def test_loss_is_that_of_the_head_on_the_named_rows(
    build: Build, images: Tensor
) -> None:
    model = build()
    samples = labelled('cat', 'ant')
    truth = torch.cat([sample.gt_sem_seg.data for sample in samples])
    before = truth.clone()
    losses = model.loss(images, samples)
    rows = TokenBank().embed(['cat', 'ant'])
    *maps, token = model.backbone(
        images, rows.embeddings, foreground=(truth == 1).float()
    )
    expected = model.decode_head.loss(
        maps,
        samples,
        None,
        queries=rows,
        text_tokens=rows.token_features,
        global_token=token,
    )
    assert {key.removeprefix('decode.') for key in losses} == {*expected}
    for key, value in expected.items():
        torch.testing.assert_close(losses[f'decode.{key}'], value)
    assert torch.equal(torch.cat([s.gt_sem_seg.data for s in samples]), before)


def test_everything_that_learns_gets_a_gradient(build: Build, images: Tensor) -> None:
    model = build().train()
    losses = model.loss(images, labelled('cat', 'ant'))
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    learning = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert not [name for name, p in learning.items() if p.grad is None]
    kinds = ('decode_head.', 'backbone.low_rank.', 'backbone.class_prompt.')
    assert all(name.startswith(kinds) for name in learning)


def test_unseen_names_are_not_trained_nor_computed(
    build: Build, images: Tensor
) -> None:
    model = build().train()
    with pytest.raises(ValueError, match="'bee' is none of the 2 classes"):
        model.loss(images, labelled('bee', 'ant'))
    assert {*model.vocabulary.rows} == {'ant', 'cat'}


@torch.no_grad()
def test_checkpoint_brings_rows_and_token_features(
    build: Build, images: Tensor
) -> None:
    trained = build()
    state = trained.state_dict()
    model = build(class_embeddings=NoBank())
    model.load_state_dict(state)
    torch.testing.assert_close(
        model.encode_decode(images, [{}] * 2), trained.encode_decode(images, [{}] * 2)
    )


def test_given_rows_need_their_tokens(build: Build) -> None:
    model = build()
    with pytest.raises(ValueError, match='as many for each token'):
        model.set_classes(['emu'], embeddings=torch.randn(1, 16))
    model.set_classes(['emu'], embeddings=torch.randn(1, 16 * 7))
    assert model.current_queries().token_features.shape == (1, 6, 16)


@torch.no_grad()
def test_gate_reads_the_tower_without_names(build: Build, images: Tensor) -> None:
    gate = dict(type='ImageLevelGate', weight=1.0, scale=5.0)
    plain, gated = build(), build(calibrators=[gate])
    gated.load_state_dict(plain.state_dict())
    difference = gated.encode_decode(images, [{}] * 2).logit()
    difference -= plain.encode_decode(images, [{}] * 2).logit()
    tower = MODELS.build(dict(type='OpenCLIPViT', arch=TOWER, out_global=True))
    tower.visual.load_state_dict(plain.backbone.visual.state_dict())
    rows = F.normalize(plain.current_queries().embeddings, dim=1)
    expected = 5 * F.normalize(tower(images)[-1], dim=1) @ rows.T
    torch.testing.assert_close(
        difference, expected[..., None, None].expand_as(difference), atol=1e-4, rtol=0
    )


@MODELS.register_module()
class ToyPairHead(BaseDecodeHead):
    """Reads names in the head alone, as methods on ordinary backbones do."""

    def forward(self, inputs: Any, queries: Any = None) -> Tensor:
        odds = torch.einsum('nchw,nc->nhw', inputs[self.in_index], queries.embeddings)
        return torch.stack([-odds, odds], dim=1)


@MODELS.register_module()
class ToyImageHead(ToyPairHead):
    """Asks for what this segmentor does not give."""

    def forward(self, inputs: Any, queries: Any = None, image: Any = None) -> Tensor:
        return super().forward(inputs, queries)


@torch.no_grad()
def test_backbone_that_knows_no_names_runs_once(
    build: Build, images: Tensor, toy_bank: Any
) -> None:
    head = dict(type='ToyPairHead', in_channels=6, channels=6, num_classes=2)
    model = build(
        backbone=dict(type='ToyPatches'), decode_head=head, class_embeddings=toy_bank
    )
    runs = []
    model.backbone.register_forward_hook(lambda *_: runs.append(1))
    scores = model.encode_decode(images, [{}] * 2)
    assert len(runs) == 1
    maps = model.backbone(images)[0]
    rows = toy_bank.embed(SPLIT['classes']).embeddings
    odds = 2 * torch.einsum('nchw,qc->nqhw', maps, rows)
    expected = F.interpolate(odds, (40, 48), mode='bilinear').sigmoid()
    torch.testing.assert_close(scores, expected)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(setting='transductive'), "use setting='inductive'"),
        (dict(class_embeddings=None), 'set model.class_embeddings'),
        (dict(auxiliary_head=dict(type='FCNHead')), 'has no auxiliary_head'),
        (dict(test_cfg=dict(name_batch_size=0)), 'name_batch_size must be'),
        (
            dict(
                class_embeddings=BareBank(),
                decode_head=dict(type='ESDAHead', conv_channels=(8, 8, 8)),
            ),
            'set model.class_embeddings.token_features=True',
        ),
        (
            dict(
                backbone=dict(type='ToyPatches', out_global=True),
                decode_head=dict(
                    type='ToyPairHead', in_channels=6, channels=6, num_classes=2
                ),
                calibrators=[dict(type='ImageLevelGate', weight=1.0)],
            ),
            'which ToyPatches does not give',
        ),
        (
            dict(decode_head=dict(type='ESDAHead', prior_weights=(0.1,))),
            'prior_weights are two',
        ),
        (
            dict(
                backbone=dict(type='ToyPatches'),
                decode_head=dict(
                    type='ToyImageHead', in_channels=6, channels=6, num_classes=2
                ),
            ),
            'ToyImageHead asks for the image',
        ),
        (dict(split=dict(classes=['a', 'b|c'], unseen=['a'])), 'one name at a time'),
    ],
)
def test_options_that_make_no_sense(build: Build, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_samples_without_names_cannot_train(build: Build, images: Tensor) -> None:
    model = build()
    samples = labelled('cat', 'ant')
    del samples[0].prompt_name
    with pytest.raises(ValueError, match='only some samples'):
        model.loss(images, samples)
    del samples[1].prompt_name
    with pytest.raises(ValueError, match='ClassPromptDataset'):
        model.loss(images, samples)
    with pytest.raises(ValueError, match="Did you mean 'ant'"):
        model.predict(images[:1], meta_of('antt'))
    slide = build(test_cfg=dict(mode='slide', crop_size=(32, 32), stride=(16, 16)))
    with pytest.raises(ValueError, match="mode='whole'"):
        slide.predict(images[:1], meta_of('ant'))


@torch.no_grad()
def test_a_class_after_one_with_synonyms_keeps_its_own_text(
    build: Build, images: Tensor
) -> None:
    model = build()
    (alone,) = model.predict(images[:1], meta_of('ant'))
    model.set_classes(['dog|bee', 'ant'])
    (among,) = model.predict(images[:1], meta_of('ant'))
    assert torch.equal(among.seg_logits.data, alone.seg_logits.data)
    with pytest.raises(ValueError, match=r"'dog\|bee' has synonyms"):
        model.predict(images[:1], meta_of('dog|bee'))


def test_scores_of_groups_are_no_matter_of_pairs(build: Build, images: Tensor) -> None:
    model = build(test_cfg=dict(mode='whole', return_scores='groups'))
    with pytest.raises(ValueError, match=r"return_scores='groups' is for maps of all"):
        model.predict(images, meta_of('ant', 'bee'))


def test_a_head_without_its_priors_is_refused(build: Build) -> None:
    backbone = dict(BACKBONE, priors=(), out_indices=(1, 2))
    with pytest.raises(ValueError, match='ESDAHead reads priors'):
        build(backbone=backbone)
