"""Small parts of predicting pairs of an image and a name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.utils.names import did_you_mean

from .crop_scores import CropScores, ScoringRule
from .geometry import Size, covered_size


def pair_scores(
    logits: Tensor,
    crop: Size,
    backbone: nn.Module,
    *,
    mask_size: Size | None,
    align_corners: bool,
) -> Tensor:
    """Bring logits of background and foreground to input size, as all scores are.

    Args:
        logits: ``(N, 2, h, w)``.
        crop: size of the input in pixels.
        backbone: tells what its patch grid covers.
        mask_size: size on the way, as in ``test_cfg``.
        align_corners: of every resize.

    Returns:
        ``(N, 2, H, W)``.
    """
    channels = logits.shape[1]
    anything = ClassQueries(
        embeddings=logits.new_zeros(channels, 0),
        query_to_class=torch.arange(channels, device=logits.device),
        seen_mask=torch.ones(channels, dtype=torch.bool, device=logits.device),
    )
    rule = ScoringRule(
        score_kind='logit',
        query_reduce='max',
        calibrators=(),
        mask_size=mask_size,
        align_corners=align_corners,
        class_chunk=channels,
    )
    covered = covered_size(backbone, crop)
    scores = CropScores(logits, anything, None, crop=crop, covered=covered, rule=rule)
    return scores(slice(0, channels))


def rows_of(
    prompts: Sequence[str], names: Sequence[str], queries: ClassQueries
) -> list[int]:
    """Find the rows of prompts.

    Args:
        prompts: names of classes.
        names: of all classes, in the order of ``queries``.
        queries: the rows of the classes.

    Raises:
        ValueError: naming a prompt that is none of the names, or has several rows.
    """
    missing = [prompt for prompt in prompts if prompt not in names]
    if missing:
        raise ValueError(
            f'the prompt {missing[0]!r} is none of the {len(names)} classes with rows '
            f'here.{did_you_mean(missing[0], names)} Do data set and model have the '
            'same split?'
        )
    found = [list(names).index(prompt) for prompt in prompts]
    for prompt, place in zip(prompts, found, strict=True):
        if queries.queries_per_class[place] > 1:
            raise ValueError(
                f'the prompt {prompt!r} has synonyms, and a mask is asked for by one '
                'name at a time: give each of them a class of its own'
            )
    return [sum(queries.queries_per_class[:place]) for place in found]
