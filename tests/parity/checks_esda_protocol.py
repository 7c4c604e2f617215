"""Golden check of ESDA's test: letterbox, mask at original size, episode scores."""

from __future__ import annotations

from typing import Any

import torch
from registry import GoldenFile, assert_close, check
from torch import Tensor

from mmengine.structures import PixelData

from zs3_mmseg.datasets.transforms import LetterboxResize
from zs3_mmseg.evaluation import FoldIoUMetric
from zs3_mmseg.models.segmentors.inference import to_original


@check('esda_protocol')
def esda_protocol(golden: GoldenFile) -> None:
    tensors = golden.tensors()
    letterbox = LetterboxResize(golden.json['resize_to'])
    for index in range(len(golden.json['cases'])):
        case = {
            part: tensors[f'resize{index}.{part}'].numpy()
            for part in ('img', 'label', 'out_img', 'out_label')
        }
        results = letterbox(
            dict(img=case['img'], gt_seg_map=case['label'], seg_fields=['gt_seg_map'])
        )
        assert_close(results['img'], case['out_img'])
        assert_close(results['gt_seg_map'].astype('float32'), case['out_label'])

    metric = FoldIoUMetric()
    classes = range(golden.json['classes'])
    metric.dataset_meta = dict(
        classes=[str(index) for index in classes], prompted=classes
    )
    episodes = golden.json['episodes']
    for index in range(episodes):
        metric.process(None, [_sample(tensors, f'ep{index}')])
    scores = metric.evaluate(episodes)
    assert_close(scores['mIoU'] / 100, golden.json['mIoU'])
    assert_close(scores['FB_IoU'] / 100, golden.json['FB_IoU'])


def _sample(tensors: dict[str, Tensor], episode: str) -> dict[str, Any]:
    """Make the mask of recorded logits as the segmentor does it."""
    label = tensors[f'{episode}.label'].long()
    side = max(label.shape)
    meta = dict(ori_shape=tuple(label.shape), canvas_shape=(side, side))
    logits = to_original(tensors[f'{episode}.logits'], meta, align_corners=True)
    return dict(
        prompt_class=int(tensors[f'{episode}.class']),
        pred_sem_seg=PixelData(data=logits.argmax(dim=1)).to_dict(),
        gt_sem_seg=PixelData(data=label[None].to(torch.int16)).to_dict(),
    )
