"""Image-level figures of a pre-trained tower pair on held-out Shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pairs import Pairs
from trainer import normalised
from zs3_mmseg.datasets.shapes.vocabulary import CLASSES, THINGS

if TYPE_CHECKING:
    from open_clip import CLIP

    from zs3_mmseg.models.towers.architectures import Tokenizer

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

    Args:
        scores: (N,) higher means rather present.
        present: (N,) at least one of them True.
    """
    hits = present[np.argsort(-scores, kind='stable')]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def image_level_figures(
    model: CLIP, tokenizer: Tokenizer, pairs: Pairs
) -> dict[str, float]:
    """Measure how well the model names what is in whole images.

    Args:
        model: in eval mode.
        tokenizer: of the model.
        pairs: held-out scenes.

    Returns:
        fractions: ``accuracy_single`` of 1 out of 16 things, on scenes with things of
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
