"""When training stops, on scores that a test makes up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mmseg.registry import HOOKS


def make(rule: str = 'greater') -> Any:
    return HOOKS.build(
        dict(type='TrainingEarlyStoppingHook', monitor='mIoU', rule=rule, patience=3)
    )


def stops_after(hook: Any, scores: list[float], iteration: int = 0) -> int | None:
    """Return after how many validations training is stopped; None: never."""
    runner: Any = SimpleNamespace(
        train_loop=SimpleNamespace(stop_training=False),
        logger=SimpleNamespace(info=lambda message: None),
        iter=iteration,
    )
    hook.before_train(runner)
    for count, score in enumerate(scores, 1):
        hook.after_val_epoch(runner, dict(mIoU=score))
        if runner.train_loop.stop_training:
            return count
    return None


@pytest.mark.parametrize(
    ('rule', 'scores', 'count'),
    [
        ('greater', [1, 2, 1, 2, 3, 2, 3, 2], 8),
        ('greater', [5, 5, 5, 5, 5], 4),  # as good as before is no improvement
        ('greater', [1, 2, 3, 4, 5], None),
        ('less', [3, 3, 2, 2, 2, 2], 6),
    ],
)
def test_it_waits_for_an_improvement(rule: str, scores: list, count: Any) -> None:
    assert stops_after(make(rule), scores) == count


@pytest.mark.parametrize('cut', range(1, 6))
def test_an_interruption_does_not_reset_the_count(cut: int) -> None:
    scores: list[float] = [1, 4, 3, 2, 3, 2, 3]
    whole = stops_after(make(), scores)
    first, second = make(), make()
    stopped = stops_after(first, scores[:cut])
    if stopped is None:
        checkpoint: dict = {}
        first.before_save_checkpoint(None, checkpoint)
        second.after_load_checkpoint(None, checkpoint)
        rest = stops_after(second, scores[cut:], iteration=cut)
        assert rest is not None
        stopped = cut + rest
    assert stopped == whole == 5


def test_weights_of_another_run_bring_no_count_along() -> None:
    hook = make()
    hook.after_load_checkpoint(
        None, dict(early_stopping=dict(best_score=9, wait_count=2))
    )
    assert stops_after(hook, [1, 2, 3, 4], iteration=0) is None
