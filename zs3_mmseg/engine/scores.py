"""Do hooks and schedules watch scores that validation gives, in the right direction?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from mmengine.config import Config
from mmengine.evaluator import BaseMetric, DumpResults
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmseg.evaluation import DepthMetric, IoUMetric
from mmseg.registry import HOOKS, METRICS, PARAM_SCHEDULERS

from zs3_mmseg.registry import find_class
from zs3_mmseg.utils.config_check import ConfigError, walk
from zs3_mmseg.utils.names import did_you_mean

# Parts of the names of scores, besides those that mmengine knows.
_GREATER = ('IoU', 'Dice', 'Fscore', 'Precision', 'Recall', 'AUSUC', 'd1', 'd2', 'd3')
_LESS = ('abs_rel', 'sq_rel', 'rmse', 'log10', 'silog')
AUTO = 'auto'


def teach_rules() -> None:
    """Tell mmengine of which scores more is better, and of which less.

    It knows some names and asks for ``rule`` with all others; the lists are made to be
    changed by packages with metrics of their own.
    """
    for kind in (CheckpointHook, EarlyStoppingHook):
        kind._default_greater_keys = [*kind._default_greater_keys, *_GREATER]
        kind._default_less_keys = [*kind._default_less_keys, *_LESS]


def rule_of(score: str) -> str | None:
    """Return ``'greater'`` or ``'less'``, whichever is better; None: unknown."""
    try:
        return EarlyStoppingHook(score).rule
    except ValueError:
        return None


def score_names(metric: BaseMetric) -> tuple[str, ...] | None:
    """Return what the scores of a metric are called; None if that is unknown.

    Metrics say so by a method ``score_names``; those of mmseg are known.
    """
    names = _plain_names(metric)
    if names is None or not metric.prefix:
        return names
    return tuple(f'{metric.prefix}/{name}' for name in names)


def _plain_names(metric: BaseMetric) -> tuple[str, ...] | None:
    if type(metric) is DumpResults:
        return ()
    if type(metric) is DepthMetric:
        return tuple(metric.metrics)
    if type(metric) is IoUMetric:
        area = torch.ones(1)
        found = metric.total_area_to_metrics(area, area, area, area, metric.metrics)
        return tuple(name if name == 'aAcc' else f'm{name}' for name in found)
    # A subclass that computes other scores may not have said so.
    for kind in type(metric).__mro__:
        if 'score_names' in vars(kind):
            return metric.score_names()
        if 'compute_metrics' in vars(kind):
            return None
    return None


class _Watch(NamedTuple):
    """A score that a part of a config looks at."""

    key: str
    score: str
    #: The dict with ``rule``, and what that says of this score.
    part: Any
    rule: str | None


def require_given_scores(config: Config, *, built: bool = False) -> None:
    """Check that validation gives the scores that a training watches.

    Looks at ``save_best`` of checkpoint hooks and ``monitor`` of hooks that stop early
    and of schedules that wait for a plateau. mmengine takes less for better in the
    latter, whatever the score; unless they are ``built`` already, the right ``rule`` is
    put in where there is none.

    Raises:
        ConfigError: naming the key, and the scores there are.
    """
    watches = [*_watches(config, built=built)]
    if not watches:
        return
    if config.get('val_dataloader') is None or config.get('val_cfg') is None:
        raise ConfigError(
            f'{watches[0].key} = {watches[0].score!r}: there is no validation to give '
            'a score; set val_dataloader, val_cfg and val_evaluator, or leave it out'
        )
    given = _given_scores(config.get('val_evaluator'))
    for watch in watches:
        if watch.score == AUTO:
            continue
        if given is not None and watch.score not in given:
            raise ConfigError(
                f'{watch.key} = {watch.score!r}: validation gives no such score.'
                f'{did_you_mean(str(watch.score), given)} It gives {", ".join(given)}'
            )
        _require_right_rule(watch)


def _require_right_rule(watch: _Watch) -> None:
    key, best = f'{watch.key.rpartition(".")[0]}.rule', rule_of(watch.score)
    if watch.rule is not None and best not in (None, watch.rule):
        raise ConfigError(
            f'{key} = {watch.rule!r} for {watch.score}, of which '
            f"{'more' if best == 'greater' else 'less'} is better: set {key}='{best}'"
        )
    taught = {'greater_keys', 'less_keys'} & watch.part.keys()
    if watch.rule is None and best is None and not taught:
        raise ConfigError(
            f"{watch.key} = {watch.score!r}: set {key} to 'greater' or 'less', "
            'whichever is better; nothing says so'
        )


def _given_scores(evaluator: Any) -> tuple[str, ...] | None:
    """Return the scores of the metrics in a config, None if some are unknown."""
    if isinstance(evaluator, Mapping):
        evaluator = evaluator.get('metrics', evaluator)
    parts = evaluator if isinstance(evaluator, Sequence) else [evaluator]
    names: list[str] = []
    for part in parts:
        try:
            metric = METRICS.build(part) if isinstance(part, Mapping) else part
        except (KeyError, OSError, TypeError, ValueError):
            return None  # told when the metrics are built for good
        found = score_names(metric)
        if found is None:
            return None
        names += found
    return tuple(names)


def require_different_scores(key: str, metrics: Sequence[BaseMetric]) -> None:
    """Check that no two metrics give a score of one name; mmengine does so too late."""
    names = Counter(name for metric in metrics for name in score_names(metric) or ())
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ConfigError(
            f'{key}: several metrics give {", ".join(twice)}; tell them apart by '
            'prefix=... of one of them'
        )


def _watches(config: Config, *, built: bool) -> Iterator[_Watch]:
    hooks = [
        *walk(config.get('default_hooks'), 'default_hooks'),
        *walk(config.get('custom_hooks'), 'custom_hooks'),
    ]
    for key, hook in hooks:
        kind = _kind(HOOKS, hook)
        if issubclass(kind, CheckpointHook) and hook.get('save_best'):
            yield from _best(f'{key}.save_best', hook)
        if issubclass(kind, EarlyStoppingHook) and 'monitor' in hook:
            yield _Watch(f'{key}.monitor', hook['monitor'], hook, hook.get('rule'))
    for key, node in walk(config.get('param_scheduler'), 'param_scheduler'):
        if getattr(_kind(PARAM_SCHEDULERS, node), 'need_val_args', False):
            score = node.get('monitor', 'loss')
            rule = 'less' if built else rule_of(score)
            if not built and rule is not None:
                node.setdefault('rule', rule)
            yield _Watch(f'{key}.monitor', score, node, node.get('rule', rule))


def _best(key: str, hook: Mapping[str, Any]) -> Iterator[_Watch]:
    scores, rules = (
        [*value] if isinstance(value, list | tuple) else [value]
        for value in (hook['save_best'], hook.get('rule'))
    )
    rules = rules * len(scores) if len(rules) == 1 else rules
    for score, rule in zip(scores, rules, strict=False):
        yield _Watch(key, score, hook, rule)


def _kind(registry: Any, part: Any) -> type:
    """Return the class of a part of a config, ``object`` if it has none."""
    kind = part.get('type') if isinstance(part, Mapping) else None
    found = find_class(registry, kind)
    return found if isinstance(found, type) else object
