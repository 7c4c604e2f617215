"""Do data set, split, segmentor and metric agree? Questions with one answer each.

Every function raises :class:`ProtocolError` with what disagrees and the config key to
change, or returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from zs3_mmseg.datasets.splits import ZeroShotSplit
from zs3_mmseg.evaluation import ZeroShotIoUMetric
from zs3_mmseg.utils.labels import special_labels


class ProtocolError(ValueError):
    """Parts of an experiment disagree, so its numbers would mean nothing."""


def require_phase(meta: Mapping[str, Any], phase: str, key: str) -> None:
    """Training data must hide what it has to, test data nothing."""
    if meta.get('phase', phase) != phase:
        found = meta['phase']
        effect = 'hides unseen classes' if found == 'train' else 'hides nothing'
        raise ProtocolError(
            f'{key}.dataset.phase is {found!r}, which {effect}; set phase={phase!r}'
        )


def require_same_classes(
    names: Sequence[str], meta: Mapping[str, Any], key: str
) -> None:
    """Scores and labels must mean the same classes in the same order."""
    theirs = tuple(meta.get('classes') or ())
    names = tuple(names)
    if names == theirs:
        return
    if sorted(names) == sorted(theirs):
        place = next(i for i, name in enumerate(names) if name != theirs[i])
        what = (
            f'the order differs: class {place} is {names[place]!r} in the model and '
            f'{theirs[place]!r} in the data set'
        )
    else:
        missing = [name for name in names if name not in theirs]
        surplus = [name for name in theirs if name not in names]
        what = (
            f'only in the model: {missing[:5] or "none"}; only in the data set: '
            f'{surplus[:5] or "none"}'
        )
    raise ProtocolError(
        f'model.split and {key}.dataset.split name different classes; {what}. Give '
        'both the same split'
    )


def require_same_split(split: ZeroShotSplit, meta: Mapping[str, Any], key: str) -> None:
    """Model and data must hold the same classes for unseen."""
    theirs = {meta['classes'][index] for index in meta['unseen']}
    if theirs != set(split.unseen):
        differing = sorted(theirs ^ set(split.unseen))
        raise ProtocolError(
            f'model.split ({split.name!r}) and {key}.dataset.split disagree on what is '
            f'unseen: {", ".join(differing)}. Give both the same split'
        )


def require_hidden_labels(segmentor: Any, key: str) -> None:
    """A zero-shot model must not be trained on a data set that hides nothing."""
    if segmentor.setting != 'supervised' and segmentor.split.unseen:
        raise ProtocolError(
            f'{key}.dataset is no ZeroShotDataset, so the labels of unseen classes '
            f'would reach {segmentor.setting} training; wrap it in '
            "dict(type='ZeroShotDataset', phase='train', split=..., dataset=...)"
        )


def require_same_setting(segmentor: Any, meta: Mapping[str, Any], key: str) -> None:
    """The labels that the data set sends must be those the model expects."""
    setting = meta['setting']
    if setting == 'transductive' and not getattr(
        segmentor, 'understands_unlabelled', False
    ):
        raise ProtocolError(
            f"{key}.dataset.setting is 'transductive': unseen pixels are labelled "
            f'{meta["unlabelled_index"]}, which {type(segmentor).__name__} with '
            f'{type(getattr(segmentor, "decode_head", None)).__name__} does not '
            "understand. Use setting='inductive', or a segmentor and head made for it"
        )
    ours = getattr(segmentor, 'setting', setting)
    if ours != setting and setting != 'layout_oracle':
        raise ProtocolError(
            f'model.setting is {ours!r}, but {key}.dataset.setting is {setting!r}; '
            'set both to the same'
        )
    if meta.get('pseudo_labels') and getattr(segmentor, 'setting', '') == 'inductive':
        raise ProtocolError(
            f'{key}.dataset.pseudo_label_dir labels pixels of unseen classes, which '
            "have no rows in inductive training; set both settings to 'transductive'"
        )


def require_oracle_consent(
    hooks: Iterable[Any], meta: Mapping[str, Any], key: str
) -> None:
    """True unseen labels are for the one hook that asks for them by name."""
    if meta['setting'] == 'layout_oracle' and not any(
        getattr(hook, 'allows_layout_oracle', False) for hook in hooks
    ):
        raise ProtocolError(
            f"{key}.dataset.setting is 'layout_oracle', which gives the true labels of "
            'unseen classes to training; only the official mode of '
            'GenerativeRetrainingHook may use it, and there is none in custom_hooks'
        )


def require_seen_rows(segmentor: Any) -> None:
    """Inductive training must not hold the embedding of an unseen name."""
    if getattr(segmentor, 'setting', None) != 'inductive':
        return
    names = tuple(segmentor.training_names())
    leaked = [name for name in names if name in set(segmentor.split.unseen)]
    if leaked:
        raise ProtocolError(
            f'inductive training would hold class embeddings of unseen names: '
            f'{", ".join(leaked)}; check model.class_embeddings and model.split'
        )
    if names != segmentor.split.seen:
        raise ProtocolError(
            'the class embeddings of inductive training are not the seen names of '
            f'split {segmentor.split.name!r} in their order'
        )


def require_fitting_heads(segmentor: Any, meta: Mapping[str, Any], key: str) -> None:
    """Heads of stock segmentors need a channel for each class of the data set."""
    count, ignore = len(meta['classes']), ignore_index_of(meta)
    for name in ('decode_head', 'auxiliary_head'):
        heads = getattr(segmentor, name, None)
        for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
            channels = getattr(head, 'num_classes', count)
            if channels != count:
                raise ProtocolError(
                    f'model.{name}.num_classes is {channels}, but {key}.dataset has '
                    f'{count} classes; set num_classes={count}'
                )
            ignored = getattr(head, 'ignore_index', ignore)
            if ignored not in (None, ignore):
                raise ProtocolError(
                    f'model.{name}.ignore_index is {ignored}, but {key}.dataset '
                    f'ignores {ignore}; set ignore_index={ignore}'
                )


def require_ignored_padding(segmentor: Any, meta: Mapping[str, Any]) -> None:
    """Pixels that fill up a batch must not be taken for a class."""
    preprocessor = getattr(segmentor, 'data_preprocessor', None)
    ignore = ignore_index_of(meta)
    pad = getattr(preprocessor, 'seg_pad_val', ignore)
    if pad != ignore:
        raise ProtocolError(
            f'model.data_preprocessor.seg_pad_val is {pad}, which is not the ignored '
            f'label; set seg_pad_val={ignore}'
        )


def require_fitting_metrics(
    metrics: Iterable[Any], meta: Mapping[str, Any], key: str
) -> None:
    """Metrics must count the data set's classes and ignore its ignored label."""
    evaluator = key.replace('dataloader', 'evaluator')
    ignore = ignore_index_of(meta)
    for metric in metrics:
        ignored = getattr(metric, 'ignore_index', None)
        if ignored not in (None, ignore):
            raise ProtocolError(
                f'{evaluator}: {type(metric).__name__}.ignore_index is {ignored}, but '
                f'{key}.dataset ignores {ignore}; set ignore_index={ignore}'
            )
        if isinstance(metric, ZeroShotIoUMetric):
            try:
                metric.resolve(meta)
            except ValueError as error:
                raise ProtocolError(f'{evaluator}: {error}') from error


def require_scores_for_metrics(
    segmentor: Any, metrics: Iterable[Any], key: str
) -> None:
    """Metrics that weigh seen against unseen classes need more than label maps."""
    returned = (getattr(segmentor, 'test_cfg', None) or {}).get('return_scores', True)
    if returned is not False:
        return
    for metric in metrics:
        if getattr(metric, 'needs_scores', False):
            raise ProtocolError(
                f'{key.replace("dataloader", "evaluator")}: modes other than gzsl and '
                'gamma_sweep need scores, but model.test_cfg.return_scores is False; '
                "set it to 'groups'"
            )


def ignore_index_of(meta: Mapping[str, Any]) -> int:
    """Return the label that a data set ignores, from its metainfo."""
    return meta.get('ignore_index', special_labels(len(meta['classes'])).ignore)
