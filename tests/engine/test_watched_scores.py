"""Scores that hooks and schedules watch: which there are, and what is better."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.registry import init_default_scope
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS

from zs3_mmseg.engine.scores import (
    require_different_scores,
    require_given_scores,
    rule_of,
    score_names,
)
from zs3_mmseg.evaluation import FoldIoUMetric, ZeroShotIoUMetric
from zs3_mmseg.utils.config_check import ConfigError

META = dict(classes=('cat', 'dog', 'cow'), seen=(0, 1), unseen=(2,), split='pets')
FOLD = dict(classes=('cat', 'dog', 'cow'), prompted=(2,))


@pytest.fixture(autouse=True, scope='module')
def _scope() -> None:
    init_default_scope('mmseg')


@METRICS.register_module()
class HalfKnownMetric(ZeroShotIoUMetric):
    """Computes more than its parent, and does not say so."""

    def compute_metrics(self, results: list) -> dict[str, float]:
        return {**super().compute_metrics(results), 'rarity': 1.0}


def evaluated(metric: BaseMetric) -> dict[str, float]:
    """Evaluate one image of 4 x 4 pixels."""
    fold = isinstance(metric, FoldIoUMetric)
    metric.dataset_meta = FOLD if fold else META
    truth = torch.arange(16).reshape(1, 4, 4) % (2 if fold else 3)
    scores = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    sample = dict(
        gt_sem_seg=dict(data=truth),
        pred_sem_seg=dict(data=scores[: 2 if fold else 3].argmax(0, keepdim=True)),
        seg_logits=dict(data=scores),
        prompt_class=2,
    )
    metric.process({}, [sample])
    return metric.evaluate(1)


@pytest.mark.parametrize(
    'metric',
    [
        dict(type='ZeroShotIoUMetric'),
        dict(type='ZeroShotIoUMetric', prefix='zs'),
        dict(type='ZeroShotIoUMetric', modes=['zsl_only', 'seen_only']),
        dict(type='ZeroShotIoUMetric', gamma_sweep=[0, 1], boundary_ratio=0.02),
        dict(type='ZeroShotIoUMetric', absent='zero'),
        dict(type='FoldIoUMetric'),
        dict(type='FoldIoUMetric', prefix='fold'),
        dict(type='IoUMetric'),
        dict(type='IoUMetric', iou_metrics=['mDice', 'mFscore'], prefix='stock'),
        dict(type='IoUMetric', iou_metrics=['mIoU', 'mFscore']),
    ],
)
def test_metrics_say_what_they_give_and_mmengine_knows_what_is_better(
    metric: dict,
) -> None:
    given = [*evaluated(METRICS.build(metric))]
    assert score_names(METRICS.build(metric)) == tuple(given)
    for score in given:
        best = None if score.endswith('oracle_gamma') else 'greater'
        assert rule_of(score) == best
        if best is not None:
            assert EarlyStoppingHook(score).rule == best
            assert CheckpointHook(save_best=score).rules == [best]


@pytest.mark.parametrize(
    ('score', 'best'), [('loss', 'less'), ('rmse', 'less'), ('rarity', None)]
)
def test_rules_of_other_scores(score: str, best: str | None) -> None:
    assert rule_of(score) == best


def test_depth_and_dumped_predictions() -> None:
    depth = METRICS.build(dict(type='DepthMetric'))
    assert {'rmse', 'd1'} <= {*score_names(depth)}
    dump = METRICS.build(dict(type='DumpResults', out_file_path='a.pkl'))
    assert score_names(dump) == ()


def test_a_metric_that_computes_more_is_not_known() -> None:
    assert score_names(HalfKnownMetric()) is None


def best(save_best: Any, **options: Any) -> dict:
    hook = dict(type='CheckpointHook', save_best=save_best, **options)
    return dict(default_hooks=dict(checkpoint=hook))


def early(monitor: str, kind: str = 'EarlyStoppingHook', **options: Any) -> dict:
    hook = dict(type=kind, monitor=monitor, **options)
    return dict(custom_hooks=[dict(type='ProtocolCheckHook'), hook])


def plateau(kind: str = 'ReduceOnPlateauLR', **options: Any) -> dict:
    return dict(param_scheduler=[dict(type='PolyLR'), dict(type=kind, **options)])


def config_of(parts: dict, evaluator: Any = None) -> Config:
    validation = dict(
        val_dataloader=dict(),
        val_cfg=dict(type='ValLoop'),
        val_evaluator=evaluator or dict(type='ZeroShotIoUMetric'),
    )
    return Config({**validation, **parts})


ZERO_SHOT = dict(type='ZeroShotIoUMetric')
PREFIXED = dict(type='ZeroShotIoUMetric', prefix='zs')
STOCK = dict(type='IoUMetric', iou_metrics=['mDice'])


@pytest.mark.parametrize(
    ('parts', 'evaluator'),
    [
        (best('hIoU'), None),
        (best(['hIoU', 'mIoU_unseen', 'haAcc']), None),
        (best(['hIoU', 'mIoU'], rule='greater'), None),
        (best('auto'), None),
        (best('zs/hIoU'), PREFIXED),
        (best('mDice'), STOCK),
        (best(['zs/hIoU', 'mDice']), [STOCK, PREFIXED]),
        (
            best('hIoU'),
            dict(type='Evaluator', metrics=[ZERO_SHOT]),
        ),
        (best('rarity', rule='greater'), dict(type='HalfKnownMetric')),
        (best('rarity', greater_keys=['rarity']), dict(type='HalfKnownMetric')),
        (best('AUSUC'), dict(type='ZeroShotIoUMetric', gamma_sweep=[0, 1])),
        (best('FB_IoU'), dict(type='FoldIoUMetric')),
        (early('hIoU'), None),
        (early('hIoU', 'TrainingEarlyStoppingHook'), None),
        (early('hIoU', 'mmengine.EarlyStoppingHook', rule='greater'), None),
        (plateau(monitor='hIoU'), None),
        (plateau('ReduceOnPlateauMomentum', monitor='mIoU_unseen'), None),
        (best(None), None),
    ],
)
def test_scores_that_are_given_may_be_watched(parts: dict, evaluator: Any) -> None:
    config = config_of(parts, evaluator)
    require_given_scores(config)
    for scheduler in config.get('param_scheduler') or ():
        assert scheduler.get('rule', 'greater') == 'greater'
        assert ('rule' in scheduler) == ('monitor' in scheduler)


LISTED = 'validation gives no such score.*It gives aAcc, mAcc, mIoU, .*hIoU'


@pytest.mark.parametrize(
    ('parts', 'evaluator', 'message'),
    [
        (
            best('mDice'),
            None,
            rf"_hooks\.checkpoint\.save_best = 'mDice': {LISTED}",
        ),
        (best('nonsense'), None, LISTED),
        (best(3), None, LISTED),
        (best(['hIoU', 'mDice']), None, LISTED),
        (best('hIoU'), PREFIXED, "Did you mean 'zs/hIoU'"),
        (best('mIoU'), STOCK, 'It gives aAcc, mDice, mAcc'),
        (
            best('hIoU', rule='less'),
            None,
            r"set .*checkpoint\.rule='greater'",
        ),
        (best(['aAcc', 'hIoU'], rule=['greater', 'less']), None, "'less' for hIoU"),
        (best('rarity'), dict(type='HalfKnownMetric'), 'nothing says so'),
        (early('hiou'), None, rf"custom_hooks\.1\.monitor = 'hiou': {LISTED}"),
        (early('mDice', 'TrainingEarlyStoppingHook'), None, LISTED),
        (early('hIoU', rule='less'), None, r"custom_hooks\.1\.rule = 'less'"),
        (plateau(), None, rf"param_scheduler\.1\.monitor = 'loss': {LISTED}"),
        (plateau(monitor='mDice'), None, LISTED),
        (
            plateau(monitor='hIoU', rule='less'),
            None,
            r"scheduler\.1\.rule = 'less'",
        ),
        ({**best('hIoU'), 'val_dataloader': None}, None, 'there is no validation'),
    ],
)
def test_other_scores_are_refused(parts: dict, evaluator: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        require_given_scores(config_of(parts, evaluator))


def test_a_plateau_that_is_built_already_needs_its_rule_in_the_config() -> None:
    with pytest.raises(ConfigError, match="'less' for hIoU, of which more is better"):
        require_given_scores(config_of(plateau(monitor='hIoU')), built=True)
    require_given_scores(config_of(plateau(monitor='hIoU', rule='greater')), built=True)


def test_no_two_metrics_may_give_one_name() -> None:
    with pytest.raises(ConfigError, match=r'val_evaluator: several .* give aAcc, m'):
        require_different_scores('val_evaluator', [IoUMetric(), ZeroShotIoUMetric()])
    different = [IoUMetric(prefix='stock'), ZeroShotIoUMetric(), HalfKnownMetric()]
    require_different_scores('val_evaluator', different)
