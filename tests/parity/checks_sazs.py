"""SAZS's parts against the official code."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from registry import GoldenFile, assert_close, check
from torch import Tensor

from mmcv.transforms import Pad
from mmengine.structures import PixelData
from mmseg.datasets.transforms import RandomCrop, RandomFlip
from mmseg.models.losses import BoundaryLoss

from zs3_mmseg.datasets.class_edges import class_edges
from zs3_mmseg.datasets.pil_transforms import PILRandomRotate, PILRandomScale
from zs3_mmseg.evaluation import FoldIoUMetric
from zs3_mmseg.evaluation.fold_iou_metric import fold_scores, oracle_choice
from zs3_mmseg.models.eigen_segments import (
    agreeing_mask,
    colour_affinity,
    feature_vectors,
    laplacian_vectors,
    mask_iou,
    patch_affinity,
    smaller_side_up,
)
from zs3_mmseg.models.losses import EdgeAttentionLoss
from zs3_mmseg.models.segmentors.inference import to_original

#: Label of pixels without one, in all recordings.
VOID = 255


def cases_of(golden: GoldenFile) -> list[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Return each case of a recording with its tensors."""
    tensors = golden.tensors()
    return [
        (
            case,
            {
                key.removeprefix(f'c{index}.'): value
                for key, value in tensors.items()
                if key.startswith(f'c{index}.')
            },
        )
        for index, case in enumerate(golden.json['cases'])
    ]


@check('sazs_losses')
def losses(golden: GoldenFile) -> None:
    weights = golden.json['weights']
    attention = EdgeAttentionLoss(threshold=golden.json['edge_threshold'])
    for case, recorded in cases_of(golden):
        scores = recorded['scores'].clone().requires_grad_()
        edge = recorded['edge'].clone().requires_grad_()
        target = recorded['target'].long()
        ours = {
            'seg': F.cross_entropy(scores, target, ignore_index=VOID),
            'edge': BoundaryLoss()(edge, recorded['edge_target']),
            'att': attention(scores, edge, target, VOID),
        }
        ours['total'] = sum(weights[name] * loss for name, loss in ours.items())
        undefined = case.get('kill', False) or 'NaN' in case.get('what', '')
        for name, loss in ours.items():
            assert_close(
                loss,
                recorded[f'loss_{name}'][0],
                what=f'{case}: {name}',
                undefined=undefined and name in ('att', 'total'),
            )
        ours['total'].backward()
        for name, leaf in (('scores', scores), ('edge', edge)):
            reference = recorded[f'grad.{name}']
            has_nan = bool(reference.isnan().any())
            assert undefined or not has_nan
            assert_close(
                leaf.grad, reference, what=f'{case}: {name}', undefined=has_nan
            )
        gate = (recorded['edge'].squeeze(1) > attention.threshold) & (target != VOID)
        assert_close(
            attention.class_weights(target[gate], scores.shape[1]),
            recorded['att_class_weights'],
        )


@check('sazs_edge_gt')
def edge_targets(golden: GoldenFile) -> None:
    for case, recorded in cases_of(golden):
        edges = class_edges(
            recorded['label'].numpy(), range(case['nclass']), radius=2, border=True
        )
        assert np.array_equal(edges, recorded['edge'].numpy()), case


def spectrum(case: dict[str, Any], recorded: dict[str, Tensor]) -> Any:
    options, count = case.get('opts', {}), case['K']
    if options.get('which_matrix') == 'affinity_svd':
        return feature_vectors(recorded['features'], count)
    weights = patch_affinity(recorded['features'])
    if case['lam']:
        colours = colour_affinity(recorded['image_lr'].numpy())
        assert_close(colours.astype(np.float32), recorded['knn'], what='neighbours')
        weights = weights + case['lam'] * colours
    return laplacian_vectors(weights, count, normalised=options.get('lapnorm', True))


@check('sazs_eigen')
def eigensegments(golden: GoldenFile) -> None:
    tolerance = golden.json['tolerance']
    for case, recorded in cases_of(golden):
        values, vectors = spectrum(case, recorded)
        reference = recorded['eigenvectors'].double().numpy()
        scale = np.abs(recorded['eigenvalues'].numpy()).max()
        assert np.abs(values - recorded['eigenvalues'].numpy()).max() <= (
            tolerance['eigenvalues'] * scale
        ), case
        ours = smaller_side_up(vectors)
        masks = recorded['masks'].flatten(1).numpy() > 0
        for mine, theirs, mask in zip(ours, reference, masks, strict=True):
            share = mask.mean()
            # A constant vector has a random sign; with a positive half, either fits.
            free = share in (0.0, 1.0) or abs(share - 0.5) < 2 / len(mask)
            sign = np.sign(mine @ theirs) if free else 1.0
            limit = tolerance['eigenvectors'] * np.abs(theirs).max()
            assert np.abs(sign * mine - theirs).max() <= limit, case
            # Rounding decides on the sign of zeros.
            sure = np.abs(theirs) > limit
            assert np.array_equal((sign * mine > 0)[sure], mask[sure]), case


@check('sazs_transforms')
def transforms(golden: GoldenFile) -> None:
    config = golden.json['config']
    size = config['crop_size']
    mean, std = (np.float32(config[key])[:, None, None] for key in ('mean', 'std'))
    for case, recorded in cases_of(golden):
        results: Any = dict(
            img=recorded['image'].numpy(),
            gt_seg_map=recorded['mask'].numpy(),
            seg_fields=['gt_seg_map'],
        )
        if case['mode'] == 'train':
            random.seed(case['seed'])
            results = PILRandomScale()(PILRandomRotate()(results))
            results = Pad(size=(size, size), pad_val=dict(img=0, seg=VOID))(results)
            # The draws of mmseg's own transforms are NumPy's, not Python's.
            height, width = results['img'].shape[:2]
            left, top = (
                random.randint(0, width - size),
                random.randint(0, height - size),
            )
            crop = RandomCrop((size, size))
            box = (top, top + size, left, left + size)
            for key in ('img', 'gt_seg_map'):
                results[key] = crop.crop(results[key], box)
            results['img_shape'] = (size, size)
            results = RandomFlip(prob=float(random.random() < 0.5))(results)
        image = results['img'].transpose(2, 0, 1) / np.float32(255)
        assert_close((image - mean) / std, recorded['out_image'], what=str(case))
        labels = recorded['out_mask'].numpy()
        assert np.array_equal(results['gt_seg_map'], labels), case


#: What the released tests do with pixels without a label.
RELEASED_VOID = {'pascal': 'union', 'coco': 'background'}


def fusion_inputs(
    recorded: dict[str, Tensor], text_rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the log-probabilities at image size, the truth and the masks."""
    class_id = int(recorded['class_id'])
    scores = torch.einsum('nchw,kc->nkhw', recorded['features'], text_rows)
    shape = tuple(recorded['label'].shape)
    meta = dict(ori_shape=shape, img_shape=shape)
    full = to_original(scores.log_softmax(dim=1), meta, align_corners=False)[0]
    label = recorded['label'].long()
    truth = (label == class_id + 1).long().masked_fill(label == VOID, VOID)
    return full, truth, recorded['eig'] == 255


def check_fusion(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    void, fold = RELEASED_VOID[config['benchmark']], config['fold_class_ids']
    metric = FoldIoUMetric(
        void=void, oracle=True, proposer=lambda image: image, ignore_index=VOID
    )
    classes = range(max(fold) + 1)
    metric.dataset_meta = dict(classes=[str(c) for c in classes], prompted=tuple(fold))
    for index in range(config['images']):
        recorded = {
            key.removeprefix(f'c{index}.'): value
            for key, value in tensors.items()
            if key.startswith(f'c{index}.')
        }
        class_id = int(recorded['class_id'])
        full, truth, masks = fusion_inputs(recorded, tensors['text_rows'][class_id])
        assert_close(full, recorded['score_full'], what='scores')
        prediction = full.argmax(dim=0)
        assert torch.equal(prediction, recorded['pred'].long())
        choice, counts = oracle_choice(prediction, masks, truth, VOID, void)
        assert choice == int(recorded['oracle_choice'])
        areas = recorded['pred_inter_union']
        if choice >= 0:
            areas = recorded['eig_inter_union'][choice]
        hits = counts[:2].diagonal()
        assert np.array_equal(hits, areas[0].numpy())
        assert np.array_equal(
            counts[:2].sum(1) + counts.sum(0) - hits, areas[1].numpy()
        )
        foreground = prediction == 1
        both = torch.stack([mask_iou(m, foreground) for m in (masks, ~masks)])
        assert_close(both, recorded['honest_iou'], what='agreement')
        best, chosen = agreeing_mask(masks, foreground, config['tau'])
        assert (best < 0) == (int(recorded['honest_choice']) < 0)
        assert torch.equal(chosen, recorded['honest_mask'] > 0)
        metric._segments = lambda sample, masks=masks: masks
        sample = dict(
            prompt_class=class_id,
            pred_sem_seg=PixelData(data=prediction[None]).to_dict(),
            gt_sem_seg=PixelData(data=truth[None]).to_dict(),
        )
        metric.process(None, [sample])
    found = fold_scores(metric.results, fold)
    assert_close(100 * found.class_iou, tensors['class_ious'].double())
    scores = metric.evaluate(config['images'])
    assert_close(scores['oracle_mIoU'], tensors['miou'][0])
    assert_close(scores['oracle_FB_IoU'], tensors['fb_iou'][0])


@check('sazs_fusion_pascal', 'sazs_fusion_coco')
def fusion(golden: GoldenFile) -> None:
    check_fusion(golden)
