"""Every config of FC-CLIP builds, without weights and without data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS

from zs3_mmseg.models.decode_heads.deformable import DeformablePixelDecoder

CONFIGS = Path(__file__).parents[1] / 'configs/fcclip'


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.py')), ids=lambda p: p.stem)
def test_parts_of_a_config_fit(path: Path) -> None:
    config = Config.fromfile(path)
    init_default_scope('mmseg')
    model = config.model
    look = model.decode_head.region_classifier
    # Weights are files, or are fetched.
    for part in (model.backbone, look or {}, model.class_embeddings.source):
        part.pop('pretrained', None)
    own = 'folder' in path.stem
    if own:
        model.test_split = dict(classes=['cat', 'unicorn'], unseen=['unicorn'])
    with torch.device('meta'):
        built = MODELS.build(model)
    head = built.decode_head
    assert head.embed_dim == built.vocabulary.bank.dim
    assert [*head.in_channels] == [*built.backbone.out_channels][:4]
    is_published = isinstance(head.pixel_decoder, DeformablePixelDecoder)
    assert is_published != ('lite' in path.stem)
    # The published exponents, in every config.
    assert (head.seen_weight, head.unseen_weight) == (0.4, 0.8)
    if own:
        assert built.class_names == ('cat', 'unicorn')
        assert len(built.vocabulary.split.classes) == 133
        return
    tested = config.test_dataloader.dataset
    if config.train_dataloader is None:
        assert (model.split, model.test_split) == ('fcclip_coco_133', tested.split)
        assert tested.pipeline == config.test_pipeline
        return
    assert model.split == tested.split
    trained = config.train_dataloader.dataset
    assert (trained.split, trained.setting) == (model.split, model.setting)
    for loader in (config.val_dataloader, config.test_dataloader):
        assert loader.dataset.pipeline == config.test_pipeline


@pytest.mark.parametrize(
    ('name', 'lists', 'last'),
    [
        ('coco_convnext_l_ade20k', (), 150),
        ('coco_r50_context', ('ImageSets/SegmentationContext/val.txt',), 59),
        ('coco_r50_voc', ('ImageSets/Segmentation/val.txt',), 20),
    ],
)
def test_labels_are_places_in_the_released_list(
    name: str,
    lists: tuple[str, ...],
    last: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Label maps of the official files hold 0 for nothing, then 1, 2, ..."""
    monkeypatch.chdir(tmp_path)
    init_default_scope('mmseg')
    tested = Config.fromfile(CONFIGS / f'{name}.py').test_dataloader.dataset
    inner = tested.dataset
    root = Path(inner.data_root)
    for listed in lists:
        (root / listed).parent.mkdir(parents=True)
        (root / listed).write_text('a\n')
    labels = np.array([[0, 1, last]], np.uint8)
    for folder, pixels, suffix in (
        (inner.data_prefix.img_path, np.stack([labels] * 3, axis=-1), 'jpg'),
        (inner.data_prefix.seg_map_path, labels, 'png'),
    ):
        (root / folder).mkdir(parents=True)
        Image.fromarray(pixels).save(root / folder / f'a.{suffix}')
    dataset = DATASETS.build(tested)
    assert len(dataset.metainfo['classes']) == last
    sample = dataset[0]['data_samples']
    assert sample.gt_sem_seg.data.flatten().tolist() == [255, 0, last - 1]
