"""What the shipped tiny CLIP knows: image-level figures and dense segmentation.

Dense: MaskCLIP's last block (values through the output projection, residual and
feed-forward path kept), one template, nearest class of each patch by cosine,
resized scores, all 20 classes competing. No training, no masks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from caption_pairs import Pairs, render_pairs
from clip_model import normalised
from zs3_mmseg.datasets.shapes import CLASSES, THINGS, VOID, render_scene
from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.models.backbones import OpenCLIPViT
from zs3_mmseg.models.towers import load_clip
from zs3_mmseg.utils.cache import cache_dir

if TYPE_CHECKING:
    from open_clip import CLIP

    from zs3_mmseg.models.towers.architectures import Tokenizer

SPLITS = ('shapes_a', 'shapes_b', 'shapes_c')
HELD_OUT = ('clip_heldout_scenes', 1000)
#: The one template of the "single" prompts.
TEMPLATE = 'a photo of a {}.'


@torch.inference_mode()
def text_rows(
    model: CLIP, tokenizer: Tokenizer, names: Sequence[str] = CLASSES
) -> Tensor:
    """Unit rows (K, E) of class names in the single template."""
    tokens = tokenizer([TEMPLATE.format(name) for name in names])
    return model.encode_text(tokens, normalize=True)


@torch.inference_mode()
def image_rows(model: CLIP, images: NDArray[np.uint8], batch: int = 64) -> Tensor:
    """Unit rows (N, E) of RGB images (N, H, W, 3)."""
    rows = [
        model.encode_image(normalised(images[start : start + batch]), normalize=True)
        for start in range(0, len(images), batch)
    ]
    return torch.cat(rows)


def average_precision(scores: NDArray[np.float64], present: NDArray[np.bool_]) -> float:
    """Mean of the precision at every positive, best score first.

    Of scores (N,) and ``present`` (N,), of which at least one is True.
    """
    hits = present[np.argsort(-scores, kind='stable')]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def image_level_figures(
    model: CLIP, tokenizer: Tokenizer, pairs: Pairs
) -> dict[str, float]:
    """Measure how well the model, in eval mode, names what is in whole images.

    Fractions: ``accuracy_single`` of 1 out of 16 things, on scenes with things of
    one class; ``map_things`` and ``map_grounds``, mean average precision of ranking
    the scenes by each class; ``ranking_things`` and ``ranking_grounds``, mean
    average precision of ranking the classes within each scene.
    """
    scores = image_rows(model, pairs.images) @ text_rows(model, tokenizer).T
    scores_ = scores.double().numpy()
    things = len(THINGS)
    single = pairs.present[:, :things].sum(axis=1) == 1
    guess = scores_[single, :things].argmax(axis=1)
    truth = pairs.present[single, :things].argmax(axis=1)
    groups = {'things': slice(0, things), 'grounds': slice(things, None)}
    return {
        'accuracy_single': float((guess == truth).mean()),
        **{
            f'map_{name}': _mean_precision(scores_[:, part].T, pairs.present[:, part].T)
            for name, part in groups.items()
        },
        **{
            f'ranking_{name}': _mean_precision(scores_[:, part], pairs.present[:, part])
            for name, part in groups.items()
        },
    }


def _mean_precision(scores: NDArray[np.float64], present: NDArray[np.bool_]) -> float:
    """Average precision of each row that has a positive, averaged; NaN if none has."""
    rows = [
        average_precision(*row)
        for row in zip(scores, present, strict=True)
        if row[1].any()
    ]
    return float(np.mean(rows)) if rows else float('nan')


def intersection_over_union(confusion: np.ndarray) -> np.ndarray:
    """IoU (K,) of a confusion matrix (K, K)."""
    hit = np.diag(confusion)
    return hit / (confusion.sum(axis=0) + confusion.sum(axis=1) - hit)


@torch.inference_mode()
def confusion_matrices(
    arch: str, weights: str, subset: str, count: int, batch: int = 50
) -> tuple[np.ndarray, np.ndarray]:
    """Confusion (K, K) of dense CLIP, and of labels drawn at random."""
    clip = load_clip(arch, weights)
    rows = text_rows(clip.model, clip.tokenizer)
    backbone = OpenCLIPViT(arch, weights, last_attn='maskclip', normalize=True).eval()
    total, chance = (np.zeros((len(CLASSES),) * 2) for _ in range(2))
    rng = np.random.default_rng(0)
    for start in range(0, count, batch):
        scenes = [
            render_scene(0, subset, index)
            for index in range(start, min(start + batch, count))
        ]
        dense = backbone(normalised(np.stack([s.image for s in scenes])))[0]
        scores = torch.einsum('kc,nchw->nkhw', rows, dense)
        masks = np.stack([scene.mask for scene in scenes])
        scores = F.interpolate(scores, size=masks.shape[1:], mode='bilinear')
        labels = scores.argmax(dim=1).numpy()
        valid = masks != VOID
        truth = masks[valid].astype(int) * len(CLASSES)
        for matrix, guess in (
            (total, labels[valid]),
            (chance, rng.integers(0, len(CLASSES), int(valid.sum()))),
        ):
            counts = np.bincount(truth + guess, minlength=matrix.size)
            matrix += counts.reshape(matrix.shape)
    return total, chance


def split_figures(iou: np.ndarray) -> dict[str, dict[str, float]]:
    """Mean IoU of seen and unseen classes under each split."""
    result = {}
    for name in SPLITS:
        unseen = np.isin(CLASSES, get_split(name).unseen)
        result[name] = {
            'mIoU_seen': round(float(iou[~unseen].mean()), 4),
            'mIoU_unseen': round(float(iou[unseen].mean()), 4),
        }
    return result


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--arch', default='zs3-shapes-tiny')
    parser.add_argument('--weights', default='shapes')
    parser.add_argument('--subset', default='test')
    parser.add_argument('--count', type=int, default=300)
    parser.add_argument('--out', type=Path, help='write the figures to this JSON file')
    args = parser.parse_args()

    clip = load_clip(args.arch, args.weights)
    held_out = render_pairs(cache_dir() / 'shapes_pairs', *HELD_OUT, 0)
    confusion, chance = confusion_matrices(
        args.arch, args.weights, args.subset, args.count
    )
    iou = intersection_over_union(confusion)
    figures = {
        'image_level': image_level_figures(clip.model, clip.tokenizer, held_out),
        'dense': split_figures(iou),
        'dense_chance': split_figures(intersection_over_union(chance)),
        'iou': {n: round(float(v), 4) for n, v in zip(CLASSES, iou, strict=True)},
        'subset': args.subset,
        'scenes': args.count,
    }
    print(json.dumps(figures, indent=2))
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2) + '\n')


if __name__ == '__main__':
    main()
