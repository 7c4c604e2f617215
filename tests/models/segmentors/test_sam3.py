"""SAM 3 in a segmentor, against transformers' own forward and post-processing."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from zs3_mmseg.models.class_embeddings.sam3_text import SAM3TextSource
from zs3_mmseg.models.segmentors import ZeroShotEncoderDecoder
from zs3_mmseg.utils.config_check import ConfigError

CONFIGS = Path(__file__).parents[3] / 'configs/sam3'
NAMES = ['ground', 'a black cat', 'dog', 'tree']
SIDE = 56


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small SAM 3 with random weights, as ``save_pretrained`` writes it."""
    import transformers as hf

    torch.manual_seed(0)
    common = dict(hidden_size=32, intermediate_size=32, num_attention_heads=2)
    layers = dict(common, num_layers=1)
    vit = dict(common, num_hidden_layers=2, image_size=SIDE, patch_size=14)
    vit |= dict(pretrain_image_size=SIDE, window_size=2, global_attn_indexes=[1])
    text = dict(common, num_hidden_layers=2, max_position_embeddings=32)
    config = hf.Sam3Config(
        vision_config=dict(
            backbone_config=dict(vit, model_type='sam3_vit_model'),
            fpn_hidden_size=32,
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        ),
        text_config=dict(text, projection_dim=16, vocab_size=49408),
        geometry_encoder_config=layers,
        detr_encoder_config=layers,
        detr_decoder_config=dict(layers, num_queries=5),
        mask_decoder_config=dict(hidden_size=32, num_attention_heads=2),
    )
    model = hf.Sam3Model(config)
    with torch.no_grad():  # so that names and masks differ
        for weights in model.parameters():
            weights.add_(0.1 * torch.randn_like(weights))
    place = str(tmp_path_factory.mktemp('sam3'))
    model.save_pretrained(place)
    return place


def segmentor(folder: str, *names: str, **head: Any) -> Any:
    init_default_scope('mmseg')
    return ZeroShotEncoderDecoder(
        backbone=dict(type='SAM3Backbone', weights=folder),
        decode_head=dict(type='SAM3Head', weights=folder, **head),
        class_embeddings=dict(
            type='ClassEmbeddingBank',
            source=dict(type='sam3_text', weights=folder),
            normalize=False,
            token_features=True,
        ),
        split=dict(classes=[*(names or NAMES)], unseen=[(names or NAMES)[-1]]),
        setting='inductive',
        data_preprocessor=dict(
            type='SegDataPreProcessor',
            mean=[127.5] * 3,
            std=[127.5] * 3,
            bgr_to_rgb=True,
        ),
    ).eval()


@pytest.fixture(scope='module')
def picture() -> np.ndarray:
    """BGR ``(SIDE, SIDE, 3)`` uint8."""
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


@torch.no_grad()
def reference(folder: str, picture: np.ndarray, name: str) -> tuple[Any, Any]:
    """transformers' own outputs for one name, and its processor."""
    import transformers as hf
    from open_clip import SimpleTokenizer

    model = hf.Sam3Model.from_pretrained(folder).eval()
    size = dict(height=SIDE, width=SIDE)
    processor = hf.Sam3ImageProcessor(size=size)
    shown = processor(images=Image.fromarray(picture[..., ::-1]), return_tensors='pt')
    ids = SimpleTokenizer(context_length=32)([name])
    mask = (ids != 0).long()
    # As the tokenizer of transformers fills up.
    ids = torch.where(ids == 0, 49407, ids)
    pixels = shown['pixel_values']
    return model(pixel_values=pixels, input_ids=ids, attention_mask=mask), processor


@torch.no_grad()
def predicted(model: Any, picture: np.ndarray, size: tuple[int, int]) -> Tensor:
    inputs = torch.from_numpy(picture.copy()).permute(2, 0, 1)
    sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=(SIDE, SIDE)))
    (found,) = model.test_step(dict(inputs=[inputs], data_samples=[sample]))
    return found


@pytest.mark.parametrize('presence', [True, False])
def test_each_name_has_the_mask_of_transformers(folder, picture, presence) -> None:
    model = segmentor(folder, use_presence=presence, names_at_once=3)
    found = predicted(model, picture, (40, 72)).seg_logits.data
    scores = []
    for name in NAMES:
        theirs, processor = reference(folder, picture, name)
        (own,) = processor.post_process_semantic_segmentation(
            theirs, target_sizes=[(SIDE, SIDE)], return_segmentation_scores=True
        )
        share = theirs.presence_logits.sigmoid() if presence else 1
        # Where they resize probabilities once, masks of heads are resized as logits.
        del own
        full = F.interpolate(theirs.semantic_seg, (SIDE, SIDE), mode='bilinear')
        small = F.interpolate(full.sigmoid() * share, (40, 72), mode='bilinear')
        scores.append(small[0, 0])
    torch.testing.assert_close(found, torch.stack(scores), atol=1e-5, rtol=1e-4)
    assert found.std(dim=0).max() > 1e-3  # names differ


def test_labels_of_one_name_are_those_of_transformers(folder, picture) -> None:
    """At the size of the masks nothing is resized, and thresholds are the same."""
    theirs, processor = reference(folder, picture, 'dog')
    (expected,) = processor.post_process_semantic_segmentation(theirs)
    model = segmentor(folder, 'dog', 'cat', use_presence=False)
    model.set_classes(['dog'])
    model.test_cfg.score_thr = 0.5
    model.test_cfg.mask_size = tuple(expected.shape)
    size = tuple(expected.shape)
    inputs = torch.from_numpy(picture.copy()).permute(2, 0, 1)
    data = model.data_preprocessor(
        dict(inputs=[inputs], data_samples=[SegDataSample(metainfo={})]), False
    )
    masks, scores = model.found_masks(data['inputs'], [dict(img_shape=(SIDE, SIDE))])
    assert masks.shape[-2:] == size
    assert torch.equal((masks[0, 0] > 0.5).long(), expected)
    assert scores.flatten().tolist() == [1.0]


def test_instances_are_those_of_transformers(folder, picture) -> None:
    sure = []
    for name in NAMES:
        theirs, _ = reference(folder, picture, name)
        sure.append(theirs.pred_logits.sigmoid() * theirs.presence_logits.sigmoid())
    threshold = float(torch.cat(sure).flatten().sort().values[-8:-6].mean())
    model = segmentor(folder, kind='instances', score_thr=threshold)
    inputs = torch.from_numpy(picture.copy()).permute(2, 0, 1)
    data = model.data_preprocessor(
        dict(inputs=[inputs], data_samples=[SegDataSample(metainfo={})]), False
    )
    masks, scores = model.found_masks(data['inputs'], [dict(img_shape=(SIDE, SIDE))])
    assert masks.shape[1] == 7
    place = 0
    for index, name in enumerate(NAMES):
        theirs, processor = reference(folder, picture, name)
        (own,) = processor.post_process_instance_segmentation(
            theirs, threshold=threshold
        )
        kept = theirs.pred_masks[0][(sure[index] > threshold)[0]]
        count = len(own['scores'])
        assert len(kept) == count
        some = slice(place, place + count)
        torch.testing.assert_close(scores[0, some, index], own['scores'])
        others = [k for k in range(len(NAMES)) if k != index]
        assert not scores[0, some][:, others].any()
        if count:
            full = F.interpolate(kept[None], (SIDE, SIDE), mode='bilinear')
            torch.testing.assert_close(
                masks[0, some], full[0].sigmoid(), atol=1e-5, rtol=1e-4
            )
        place += count
    assert place == 7


@torch.no_grad()
def test_of_the_names_of_a_class_the_likeliest_counts(folder, picture) -> None:
    apart = predicted(segmentor(folder), picture, (SIDE, SIDE)).seg_logits.data
    share = [
        float(reference(folder, picture, name)[0].presence_logits) for name in NAMES
    ]
    joined = segmentor(folder, 'ground|a black cat', 'dog', 'tree')
    found = predicted(joined, picture, (SIDE, SIDE)).seg_logits.data
    best = 0 if share[0] > share[1] else 1
    torch.testing.assert_close(found, apart[[best, 2, 3]], atol=1e-5, rtol=1e-4)


def test_rows_travel_in_checkpoints(
    folder: str, picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, other = segmentor(folder), segmentor(folder)
    path = tmp_path / 'sam3.pth'
    torch.save(model.state_dict(), path)
    first = predicted(model, picture, (SIDE, SIDE)).seg_logits.data
    # The text encoder is not needed any more.
    monkeypatch.setattr(SAM3TextSource, 'token_features', None)
    other.load_state_dict(torch.load(path, weights_only=True))
    second = predicted(other, picture, (SIDE, SIDE)).seg_logits.data
    assert torch.equal(first, second)


def test_pixels_that_nothing_means_are_background(folder: str, picture) -> None:
    model = segmentor(folder, prob_thd=1.0, bg_index=2)
    labels = predicted(model, picture, (SIDE, SIDE)).pred_sem_seg.data
    assert (labels == 2).all()


def test_other_sizes_and_parts_are_refused(folder: str) -> None:
    model = segmentor(folder)
    with pytest.raises(ConfigError, match=r'takes images of 56 x 56 .* 64 x 48'):
        model.backbone(torch.zeros(1, 3, 48, 64))
    maps = model.backbone(torch.zeros(1, 3, SIDE, SIDE))
    queries = replace(model.current_queries(), token_features=None)
    with pytest.raises(ConfigError, match='token_features=True'):
        model.decode_head.predict(maps, [{}], None, queries=queries)
    with pytest.raises(ValueError, match='trains nothing'):
        model.decode_head.loss_by_feat(None, [])


def test_what_is_missing_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match=r'SAM3Backbone\.weights: the folder'):
        MODELS.build(dict(type='SAM3Backbone', weights='/no/where'))
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ModuleNotFoundError, match=r'SAM3Head needs .* \[masks\]'):
        MODELS.build(dict(type='SAM3Head', in_channels=32, weights=str(tmp_path)))


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.py')), ids=lambda p: p.stem)
def test_configs_build(path: Path, folder: str) -> None:
    config = Config.fromfile(path)
    init_default_scope('mmseg')
    model = config.model
    for part in (model.backbone, model.decode_head, model.class_embeddings.source):
        assert part.pop('weights') == config.weights
        part.weights = folder
    built = MODELS.build(model)
    assert built.class_names == tuple(built.split.classes)
    assert config.test_pipeline[1].scale == (1008, 1008)
    assert not config.test_pipeline[1].keep_ratio
