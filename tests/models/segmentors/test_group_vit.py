"""GroupViT in a segmentor, against transformers' own forward pass."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from zs3_mmseg.models.backbones import GroupViTBackbone
from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank, ClassQueries
from zs3_mmseg.models.decode_heads import GroupTokenHead
from zs3_mmseg.models.segmentors import ZeroShotEncoderDecoder

CONFIGS = Path(__file__).parents[3] / 'configs/groupvit'
NAMES = ['ground', 'cat', 'dog|puppy', 'tree', 'sky']


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> str:
    """A small GroupViT with random weights, as ``save_pretrained`` writes it."""
    import transformers as hf

    torch.manual_seed(0)
    vision = dict(hidden_size=16, intermediate_size=32, depths=[2, 1, 1])
    vision |= dict(num_hidden_layers=4, num_group_tokens=[6, 3, 0])
    vision |= dict(num_output_groups=[6, 3, 0], num_attention_heads=2, patch_size=8)
    text = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2)
    text |= dict(num_attention_heads=2, max_position_embeddings=16)
    config = hf.GroupViTConfig(
        vision_config=dict(vision, image_size=32),
        text_config=text,
        projection_dim=12,
        projection_intermediate_dim=24,
    )
    place = str(tmp_path_factory.mktemp('groupvit'))
    model = hf.GroupViTModel(config)
    with torch.no_grad():  # so that tokens differ
        for weights in model.parameters():
            weights.add_(0.2 * torch.randn_like(weights))
    model.save_pretrained(place)
    return place


def segmentor(folder: str, **head: Any) -> Any:
    return ZeroShotEncoderDecoder(
        backbone=dict(type='GroupViTBackbone', weights=folder),
        decode_head=dict(type='GroupTokenHead', **head),
        class_embeddings=dict(
            type='ClassEmbeddingBank',
            source=dict(type='groupvit_text', weights=folder),
            templates='single',
        ),
        split=dict(classes=NAMES, unseen=['dog|puppy']),
        setting='inductive',
    ).eval()


@torch.no_grad()
def reference(folder: str, images: Tensor, names: list[str]) -> Any:
    """transformers' own output for one prompt per name; its ids end in an end token."""
    import transformers as hf
    from open_clip import SimpleTokenizer

    model = hf.GroupViTModel.from_pretrained(folder).eval()
    ids = SimpleTokenizer(context_length=16)([f'a photo of a {name}' for name in names])
    ids = torch.where(ids == 0, 49407, ids)  # as CLIP's tokenizer of transformers pads
    found = model(input_ids=ids, pixel_values=images, output_segmentation=True)
    return found, float(model.logit_scale.exp())


def test_tokens_maps_and_rows_are_those_of_transformers(folder: str) -> None:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    names = ['ground', 'cat', 'tree']
    theirs, scale = reference(folder, images, names)
    ours = GroupViTBackbone(folder)(images)
    bank = ClassEmbeddingBank(dict(type='groupvit_text', weights=folder))
    rows = bank.embed(names).embeddings
    torch.testing.assert_close(rows, theirs.text_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        ours.global_token, theirs.image_embeds, atol=1e-5, rtol=1e-5
    )
    full = F.interpolate(ours.maps[0], size=(32, 32), mode='bilinear')
    logits = scale * ours.group_tokens @ rows.T  # (N, G, K)
    # The scale stands twice in their segmentation logits.
    expected = scale * torch.einsum('ngk,nghw->nkhw', logits, full)
    torch.testing.assert_close(
        expected, theirs.segmentation_logits, atol=1e-3, rtol=1e-4
    )
    assert ours.group_tokens.shape == (2, 3, 12)
    assert GroupViTBackbone(folder).scale == pytest.approx(scale)


@torch.no_grad()
@pytest.mark.parametrize('size', [(32, 32), (40, 59)])
@pytest.mark.parametrize('top_k', [None, 2])
def test_pixels_score_what_their_group_does(folder: str, size, top_k) -> None:
    model = segmentor(folder, scale=20.0, top_k=top_k)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    (sample,) = model.predict(image, [SegDataSample(metainfo=dict(ori_shape=size))])
    found = model.backbone(image)
    queries = model.current_queries()
    cosines = found.group_tokens[0] @ queries.embeddings.T  # (G, Q)
    cosines = torch.stack(
        [
            cosines[:, queries.query_to_class == k].amax(dim=1)
            for k in range(len(NAMES))
        ],
        dim=1,
    )
    whole = found.global_token[0] @ queries.embeddings.T
    whole = torch.stack([whole[queries.query_to_class == k].max() for k in range(5)])
    every, kept = (20 * cosines).softmax(dim=1), 20 * cosines
    if top_k is not None:
        others = whole.argsort(descending=True)[top_k:]
        kept[:, others] = -torch.inf
    scores = kept.softmax(dim=1) * every
    height, width = (-(-side // 8) * 8 for side in size)
    full = F.interpolate(found.maps[0], size=(height, width), mode='bilinear')
    groups = full[0].argmax(dim=0)[: size[0], : size[1]]
    expected = scores[groups].permute(2, 0, 1)
    torch.testing.assert_close(sample.seg_logits.data, expected)
    if top_k is not None:
        assert len(sample.pred_sem_seg.data.unique()) <= top_k


@torch.no_grad()
def test_pixels_below_the_threshold_are_background(folder: str) -> None:
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for threshold, background in ((0.0, False), (1.0, True)):
        model = segmentor(folder, prob_thd=threshold, bg_index=3, scale=1.0)
        (sample,) = model.predict(image)
        assert (sample.pred_sem_seg.data == 3).all() == background


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.py')), ids=lambda p: p.stem)
def test_parts_of_a_config_fit(folder: str, path: Path) -> None:
    config = Config.fromfile(path)
    init_default_scope('mmseg')
    model = config.model
    model.backbone.weights = model.class_embeddings.source.weights = folder
    built = MODELS.build(model)
    assert built.decode_head.in_channels == 3
    assert config.test_pipeline[1].scale in (448, (2**20, 448))


def test_soft_maps_stay_and_training_is_refused(folder: str) -> None:
    torch.manual_seed(0)
    maps = torch.rand(1, 4, 3, 5).softmax(dim=1)
    tokens = F.normalize(torch.randn(1, 4, 6), dim=-1)
    rows = F.normalize(torch.randn(2, 6), dim=-1)
    queries = ClassQueries(rows, torch.arange(2), torch.ones(2, dtype=torch.bool))
    head = GroupTokenHead(4, hard=False)
    found = head.predict(
        [maps],
        [dict(img_shape=(9, 9))],
        None,
        queries=queries,
        global_token=tokens[:, 0],
        group_tokens=tokens,
    )
    assert found.masks is maps
    with pytest.raises(ValueError, match='GroupTokenHead trains nothing'):
        head.loss_by_feat(None, [])


@pytest.mark.parametrize('options', [dict(scale=0), dict(top_k=0), dict(prob_thd=2)])
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=f'{next(iter(options))} must be'):
        GroupTokenHead(4, **options)


def test_a_missing_extra_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'transformers', None)
    message = '^GroupViTBackbone needs the package transformers: pip install '
    with pytest.raises(ModuleNotFoundError, match=message):
        GroupViTBackbone()
