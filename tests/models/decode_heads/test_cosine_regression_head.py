"""The DeViSE-style baseline against its formula."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads import CosineRegressionHead


def test_loss_is_one_minus_the_cosine_to_the_true_class() -> None:
    head = CosineRegressionHead(6, embed_dim=4)
    features, rows = torch.randn(2, 6, 3, 5), torch.randn(3, 4)
    labels = torch.randint(0, 3, (2, 3, 5))
    labels[0, 0] = 255
    queries = ClassQueries(rows, torch.arange(3), torch.ones(3, dtype=torch.bool))
    samples = []
    for label_map in labels:
        sample = SegDataSample()
        sample.gt_sem_seg = PixelData(data=label_map[None])
        samples.append(sample)
    loss = head.loss([features], samples, None, queries=queries)['loss_cosine']
    projected = head.projection(features).permute(0, 2, 3, 1)
    expected = [
        1 - F.cosine_similarity(projected[place], rows[labels[place]], dim=0)
        for place in map(tuple, (labels != 255).nonzero().tolist())
    ]
    assert torch.isclose(loss, torch.stack(expected).mean())


def test_a_batch_without_labels_has_no_loss() -> None:
    head = CosineRegressionHead(6, embed_dim=4)
    sample = SegDataSample()
    sample.gt_sem_seg = PixelData(data=torch.full((1, 3, 5), 255))
    queries = ClassQueries(torch.ones(1, 4), torch.zeros(1).long(), torch.ones(1) > 0)
    losses = head.loss([torch.randn(1, 6, 3, 5)], [sample], None, queries=queries)
    assert losses['loss_cosine'] == 0
