"""What ProtocolCheckHook says about images with one class name each."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from zs3_mmseg.engine.protocol import (
    LabelCounts,
    ProtocolError,
    allowed_in_testing,
    allowed_in_training,
    require_legal_labels,
    require_matching_prompts,
    require_prompt_metrics,
    require_stated_selection,
)
from zs3_mmseg.evaluation import FoldIoUMetric, ZeroShotIoUMetric

# The unseen class has the label that means "named class" in a mask.
META: dict[str, Any] = dict(
    classes=('a', 'b', 'c'),
    seen=(0, 2),
    unseen=(1,),
    setting='inductive',
    ignore_index=255,
    unlabelled_index=254,
)
PROMPTS = {**META, 'prompted': (0, 2), 'selection': ''}
READER = SimpleNamespace(reads_prompts=True)
OTHER = SimpleNamespace()


def test_masks_hold_zero_one_and_void() -> None:
    for allowed in (allowed_in_training(PROMPTS), allowed_in_testing(PROMPTS)):
        assert allowed == {0, 1, 255}
    counts = LabelCounts()
    counts.pixels.update({0: 5, 1: 2, 255: 1})
    require_legal_labels(counts, allowed_in_training(PROMPTS), PROMPTS, 'x')
    counts.pixels[2] += 1
    with pytest.raises(ProtocolError, match='label 2 is none'):
        require_legal_labels(counts, allowed_in_training(PROMPTS), PROMPTS, 'x')


@pytest.mark.parametrize(
    ('segmentor', 'meta', 'training', 'message'),
    [
        (OTHER, PROMPTS, True, 'does not read the name'),
        (OTHER, PROMPTS, False, 'does not read the name'),
        (READER, META, True, 'trained on pairs'),
        (READER, META, False, None),
        (READER, PROMPTS, True, None),
        (OTHER, META, True, None),
    ],
)
def test_names_and_readers_of_names_belong_together(
    segmentor: Any, meta: dict, training: bool, message: str | None
) -> None:
    if message is None:
        require_matching_prompts(segmentor, meta, 'x', training=training)
        return
    with pytest.raises(ProtocolError, match=message):
        require_matching_prompts(segmentor, meta, 'x', training=training)


def test_metrics_fit_what_is_asked_for() -> None:
    require_prompt_metrics([FoldIoUMetric()], PROMPTS, 'val_dataloader')
    require_prompt_metrics([ZeroShotIoUMetric()], META, 'val_dataloader')
    with pytest.raises(ProtocolError, match='val_evaluator is a ZeroShotIoUMetric'):
        require_prompt_metrics([ZeroShotIoUMetric()], PROMPTS, 'val_dataloader')
    with pytest.raises(ProtocolError, match='all classes at once'):
        require_prompt_metrics([FoldIoUMetric()], META, 'val_dataloader')


def test_choosing_by_unseen_classes_has_to_be_said() -> None:
    require_stated_selection(META, 'val_dataloader')
    require_stated_selection(PROMPTS, 'val_dataloader')
    unseen = {**PROMPTS, 'prompted': (1,)}
    with pytest.raises(ProtocolError, match='has seen their masks'):
        require_stated_selection(unseen, 'val_dataloader')
    require_stated_selection({**unseen, 'selection': 'novel_official'}, 'x')
