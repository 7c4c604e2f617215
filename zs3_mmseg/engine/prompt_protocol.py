"""Do data set, segmentor and metric agree on who names the class?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zs3_mmseg.engine.protocol import ProtocolError
from zs3_mmseg.evaluation import FoldIoUMetric, ZeroShotIoUMetric


def require_matching_prompts(
    segmentor: Any, meta: Mapping[str, Any], key: str, *, training: bool
) -> None:
    """Masks of one named class are for segmentors that read the name, and only those.

    A segmentor that reads names can be tested on all classes at once, too. Instead of
    the segmentor, its class will do.
    """
    has_prompts = 'prompted' in meta
    reads_prompts = getattr(segmentor, 'reads_prompts', False)
    kind = segmentor if isinstance(segmentor, type) else type(segmentor)
    if has_prompts and not reads_prompts:
        raise ProtocolError(
            f'{key}.dataset is a ClassPromptDataset, whose labels are masks of one '
            f'named class, but {kind.__name__} does not read the name; use '
            "model.type='ClassPromptedSegmentor', or ZeroShotDataset"
        )
    test_cfg = getattr(segmentor, 'test_cfg', None) or {}
    if has_prompts and not training and test_cfg.get('mode') == 'slide':
        raise ProtocolError(
            f'{key}.dataset asks for masks of one name, which are predicted from whole '
            "images: set model.test_cfg.mode='whole'"
        )
    if training and reads_prompts and not has_prompts:
        raise ProtocolError(
            f'{kind.__name__} is trained on pairs of an image and a name; '
            f"make {key}.dataset a dict(type='ClassPromptDataset', ...)"
        )


def require_prompt_metrics(
    metrics: Iterable[Any], meta: Mapping[str, Any], key: str
) -> None:
    """Masks of one class and maps of all classes are scored by different metrics."""
    evaluator = key.replace('dataloader', 'evaluator')
    wrong = ZeroShotIoUMetric if 'prompted' in meta else FoldIoUMetric
    right = FoldIoUMetric if 'prompted' in meta else ZeroShotIoUMetric
    for metric in metrics:
        if isinstance(metric, wrong):
            given = 'one named class' if 'prompted' in meta else 'all classes at once'
            raise ProtocolError(
                f'{evaluator} is a {wrong.__name__}, but {key}.dataset asks for '
                f"{given}; use dict(type='{right.__name__}')"
            )


def require_stated_selection(meta: Mapping[str, Any], key: str) -> None:
    """Validation in training must not look at unseen classes without saying so."""
    asks_unseen = {*meta.get('prompted', ())} & {*meta.get('unseen', ())}
    if meta.get('selection') == 'held_out' and meta.get('setting') == 'supervised':
        return  # training asks for them, too
    if asks_unseen and meta.get('selection') != 'novel_official':
        raise ProtocolError(
            f'{key}.dataset asks for unseen classes while training is going on: a '
            "checkpoint chosen by it has seen their masks. Set selection='held_out', "
            "or selection='novel_official' to repeat the official code, which does so"
        )
