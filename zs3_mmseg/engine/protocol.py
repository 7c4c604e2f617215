"""Stop before the first iteration if parts of an experiment disagree.

What a part can know of itself is checked by its constructor. Here are the questions
about pairs: data set, model, metric and hook. :class:`ProtocolCheckHook` asks them of
what a runner has built; ``tools/check_data.py`` asks those that need no model.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from mmcv.transforms import BaseTransform
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import BaseDataPreprocessor, BaseTTAModel
from mmengine.runner import BaseLoop, Runner
from mmseg.evaluation import IoUMetric
from mmseg.models import BaseSegmentor, SegDataPreProcessor, SegTTAModel
from mmseg.registry import HOOKS, MODELS

from zs3_mmseg.datasets import ZeroShotDataset
from zs3_mmseg.datasets.splits import ZeroShotSplit
from zs3_mmseg.datasets.splits.zero_shot_split import SEEN_ROWS
from zs3_mmseg.datasets.wrappers import image_paths
from zs3_mmseg.engine.scores import require_given_scores
from zs3_mmseg.evaluation import FoldIoUMetric, ZeroShotIoUMetric
from zs3_mmseg.models.segmentors import ZeroShotEncoderDecoder
from zs3_mmseg.models.segmentors.encoder_decoder import (
    KEEPS_UNLABELLED,
    reads_queries,
)
from zs3_mmseg.registry import find_class
from zs3_mmseg.utils.checkpoint import unwrap
from zs3_mmseg.utils.config_check import require_inherited_variables
from zs3_mmseg.utils.labels import special_labels
from zs3_mmseg.utils.output_names import clashes, output_names, require_no_input
from zs3_mmseg.utils.random_state import get_random_state, set_random_state


class ProtocolError(ValueError):
    """Parts of an experiment disagree, so its numbers would mean nothing."""


def require_fitting_parts(model: Any) -> None:
    """A config must give heads that read class embeddings a segmentor that has them.

    Asked before anything is built, as such a head lacks arguments in any other
    segmentor; built models are left alone.
    """
    if not isinstance(model, Mapping):
        return
    kind, inner = _class_of(model), model.get('module')
    if kind is None:
        return  # the registry says so
    if issubclass(kind, BaseTTAModel) and isinstance(inner, Mapping):
        require_fitting_parts(inner)
        ours = issubclass(_class_of(inner) or nn.Module, ZeroShotEncoderDecoder)
        head = _class_of(inner.get('decode_head'))
        scores = getattr(head, 'score_kind', 'logit') != 'logit'
        if ours and scores and issubclass(kind, SegTTAModel):
            raise ProtocolError(
                f'tta_model.type is {kind.__name__!r}, which takes the scores of a '
                f"{inner['type']} for logits: set tta_model.type='ZeroShotTTAModel'"
            )
        return
    if not issubclass(kind, BaseSegmentor) or issubclass(kind, ZeroShotEncoderDecoder):
        return
    for name in ('decode_head', 'auxiliary_head'):
        heads = model.get(name)
        for head in heads if isinstance(heads, (list, tuple)) else [heads]:
            found = _class_of(head)
            if found is not None and reads_queries(found):
                wanted = getattr(found, 'segmentor', ZeroShotEncoderDecoder.__name__)
                raise ProtocolError(
                    f'model.{name}.type is {found.__name__!r}, which reads class '
                    f'embeddings, and {kind.__name__} has none: set model.type='
                    f'{wanted!r}, with model.class_embeddings, split and setting'
                )


def _class_of(config: Any) -> type | None:
    """Return the class that a config would build."""
    kind = config.get('type') if isinstance(config, Mapping) else None
    return find_class(MODELS, kind)


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
    # Stock heads take the location of unseen pixels for a class.
    stock = None if setting == 'unseen_location' else setting
    ours = getattr(segmentor, 'setting', stock)
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


def require_leak_consent(meta: Mapping[str, Any], key: str, *, allowed: bool) -> None:
    """Where unseen pixels are must not get into training unnoticed."""
    if meta['setting'] == 'unseen_location' and not allowed:
        raise ProtocolError(
            f"{key}.dataset.setting is 'unseen_location', which tells training where "
            'unseen classes are: its results are not inductive. Set allow_leak=True of '
            'ProtocolCheckHook in custom_hooks to train so, and say "leaks" beside them'
        )


def require_seen_rows(segmentor: Any) -> None:
    """Inductive training must not hold the embedding of an unseen name."""
    if getattr(segmentor, 'setting', None) not in SEEN_ROWS:
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


def require_competition(meta: Mapping[str, Any], key: str) -> None:
    """Label maps need two classes at least."""
    classes = tuple(meta.get('classes') or ())
    if len(classes) == 1 and 'prompted' not in meta:
        raise ProtocolError(
            f'{key}.dataset has one class, {classes[0]!r}, and nothing that could be '
            'taken for it: give the rest of the pictures a class of its own, such as '
            "'background', or ask for the mask of a name with ClassPromptDataset"
        )


def require_competing_rows(segmentor: Any) -> None:
    """A softmax learns nothing from one class."""
    if not hasattr(segmentor, 'split') or segmentor.score_kind != 'softmax':
        return
    learnt = segmentor.training_names()
    if len(learnt) == 1:
        raise ProtocolError(
            f'model.split trains one class, {learnt[0]!r}, and a softmax over one '
            'class is 1 everywhere: nothing would be learnt. Let more classes be seen, '
            'or use a head with sigmoids, such as ZegCLIPHead'
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


def require_preprocessor(segmentor: Any, *, training: bool) -> None:
    """Pictures must become a batch; mmseg's step for it is told a size in training."""
    preprocessor = getattr(segmentor, 'data_preprocessor', None)
    if type(preprocessor) is BaseDataPreprocessor:
        raise ProtocolError(
            'model.data_preprocessor is missing: nothing normalises pictures and makes '
            "a batch of them. Set dict(type='SegDataPreProcessor', mean=..., std=..., "
            'size=...)'
        )
    if not (training and isinstance(preprocessor, SegDataPreProcessor)):
        return
    sizes = preprocessor.size, preprocessor.size_divisor
    if sizes.count(None) != 1:
        raise ProtocolError(
            'model.data_preprocessor needs size or size_divisor in training, and not '
            f'both; it has size={sizes[0]} and size_divisor={sizes[1]}. Set size to '
            'what the crop of train_dataloader gives'
        )


def require_fitting_metrics(
    metrics: Iterable[Any], meta: Mapping[str, Any], key: str
) -> None:
    """Metrics must count the data set's classes and ignore its ignored label."""
    evaluator = _evaluator(key)
    for metric in metrics:
        if isinstance(metric, ZeroShotIoUMetric):
            try:
                metric.resolve(meta)
            except ValueError as error:
                raise ProtocolError(f'{evaluator}: {error}') from error
        ignored = getattr(metric, 'ignore_index', None)
        if ignored is None or not meta.get('classes'):
            continue
        ignore = ignore_index_of(meta)
        if ignored != ignore:
            raise ProtocolError(
                f'{evaluator}: {type(metric).__name__}.ignore_index is {ignored}, but '
                f'{key}.dataset ignores {ignore}; set ignore_index={ignore}'
            )


def require_files_of_their_own(metrics: Iterable[Any], dataset: Any, key: str) -> None:
    """Metrics that write label maps must neither write two to one file nor to an input.

    Names that are longer than a stem go from our data sets to our metrics.
    """
    for metric in metrics:
        folder = getattr(metric, 'output_dir', None)
        if folder is None:
            continue
        paths = [*dict.fromkeys(image_paths(dataset))]
        names = output_names(paths)
        ours = isinstance(metric, (ZeroShotIoUMetric, FoldIoUMetric))
        if not ours or not isinstance(dataset, ZeroShotDataset):
            names = {path: Path(path).stem for path in paths}
        for name in clashes(names.values())[:1]:
            first, second, *_ = (p for p in paths if names[p].casefold() == name)
            raise ProtocolError(
                f'{_evaluator(key)}.output_dir (--out): {first} and {second} have one '
                f'name, and {type(metric).__name__} would write both to '
                f'{Path(folder, name)}.png: a ZeroShotDataset with ZeroShotIoUMetric '
                'keeps their folders'
            )
        try:
            require_no_input(
                (os.path.join(folder, f'{name}.png') for name in names.values()),
                [*paths, *image_paths(dataset, 'seg_map_path')],
            )
        except ValueError as error:
            raise ProtocolError(
                f'{_evaluator(key)}.output_dir (--out): {error}'
            ) from error


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
                f'{_evaluator(key)}: modes other than gzsl and '
                'gamma_sweep need scores, but model.test_cfg.return_scores is False; '
                "set it to 'groups'"
            )


def _evaluator(key: str) -> str:
    return key.replace('dataloader', 'evaluator')


def ignore_index_of(meta: Mapping[str, Any]) -> int:
    """Return the label that a data set ignores, from its metainfo."""
    return meta.get('ignore_index', special_labels(len(meta['classes'])).ignore)


@dataclass
class LabelCounts:
    """What some samples of a data set really hold: pixels by label, samples, maps.

    ``kinds`` are the kinds of data, such as ``gt_sem_seg``, of the last of them.
    """

    pixels: Counter[int] = field(default_factory=Counter)
    samples: int = 0
    maps: int = 0
    sizes: set[tuple[int, int]] = field(default_factory=set)
    views: bool = False
    kinds: frozenset[str] = frozenset()

    def add(self, sample: Any) -> None:
        """Count the labels of one sample as a pipeline returns it."""
        self.samples += 1
        if isinstance(picture := sample.get('inputs'), Tensor):
            self.sizes.add((picture.shape[-2], picture.shape[-1]))
        self.views |= isinstance(picture, list | tuple)
        for view in _views(sample):
            self.kinds = frozenset(view.keys())
        for label_map in _label_maps(sample):
            self.maps += 1
            values, counts = label_map.unique(return_counts=True)
            self.pixels.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def share(self, label: int) -> float:
        """Return the share of pixels with a label, in 0..1."""
        return self.pixels[label] / max(self.pixels.total(), 1)


def _views(sample: Any) -> list[Any]:
    packed = sample.get('data_samples') if isinstance(sample, Mapping) else None
    # Test-time augmentation packs a list of views.
    views = packed if isinstance(packed, list) else [packed]
    return [view for view in views if view is not None]


def _label_maps(sample: Any) -> Iterator[Any]:
    for view in _views(sample):
        if 'gt_sem_seg' in view:
            yield view.gt_sem_seg.data


def allowed_in_training(meta: Mapping[str, Any]) -> set[int]:
    """Return the labels that training data of a setting may hold."""
    if 'prompted' in meta:
        return allowed_in_testing(meta)
    allowed = {*meta['seen'], meta['ignore_index']}
    if meta['setting'] in ('supervised', 'layout_oracle') or meta.get('pseudo_labels'):
        allowed |= {*meta['unseen']}
    if meta['setting'] in KEEPS_UNLABELLED:
        allowed.add(meta['unlabelled_index'])
    return allowed


def allowed_in_testing(meta: Mapping[str, Any]) -> set[int]:
    """Return the labels that validation and test data may hold."""
    if 'prompted' in meta:  # masks of one named class
        return {0, 1, meta['ignore_index']}
    return {*meta['seen'], *meta['unseen'], meta['ignore_index']}


def require_legal_labels(
    counts: LabelCounts, allowed: Iterable[int], meta: Mapping[str, Any], key: str
) -> None:
    """No label that is really there may be outside the legal ones."""
    for label in sorted(set(counts.pixels) - set(allowed)):
        classes = meta['classes']
        if label in meta.get('unseen', ()) and 'prompted' not in meta:
            raise ProtocolError(
                f'{key}.dataset: label {label} of the unseen class {classes[label]!r} '
                'reaches training; is a transform of the pipeline loading labels again?'
            )
        raise ProtocolError(
            f'{key}.dataset: label {label} is none of the {len(classes)} classes; is a '
            'transform of the pipeline padding with another value than '
            f'{ignore_index_of(meta)}?'
        )


def require_packed(sample: Any, key: str) -> None:
    """A model takes what ``PackSegInputs`` makes."""
    packed = sample if isinstance(sample, Mapping) else {}
    missing = [part for part in ('inputs', 'data_samples') if part not in packed]
    if missing:
        raise ProtocolError(
            f'{key}.dataset: samples hold no {" and no ".join(missing)}; does its '
            "pipeline begin with LoadImageFromFile, and end in dict(type='"
            "PackSegInputs')?"
        )


def require_fitting_views(counts: LabelCounts, model: nn.Module, key: str) -> None:
    """Several views of a picture are for a model that averages them, and only those."""
    averages = any(isinstance(part, BaseTTAModel) for part in model.modules())
    if counts.samples and counts.views != averages:
        raise ProtocolError(
            f'{key}.dataset.pipeline makes several views of a picture (TestTimeAug), '
            'which takes tools/test.py --tta'
            if counts.views
            else "test-time augmentation needs dict(type='TestTimeAug', ...) in "
            'tta_pipeline'
        )


def require_one_size(counts: LabelCounts, loader: Any, key: str) -> None:
    """Test pictures of one batch must have one size: they are not filled up."""
    batch = getattr(loader, 'batch_size', None) or 1
    if batch > 1 and len(counts.sizes) > 1:
        listed = ' and '.join(f'{w} x {h}' for h, w in sorted(counts.sizes)[:2])
        raise ProtocolError(
            f'{key}.batch_size is {batch}, but pictures are of different sizes, such '
            f'as {listed}: set it to 1'
        )


def require_some_labels(counts: LabelCounts, meta: Mapping[str, Any], key: str) -> None:
    """There must be label maps, and pixels in them that are not ignored."""
    if counts.samples and not counts.maps:
        raise ProtocolError(
            f'{key}.dataset: {counts.samples} samples hold no label map; add '
            "dict(type='LoadAnnotations') to its pipeline"
        )
    if counts.maps and counts.share(ignore_index_of(meta)) == 1:
        raise ProtocolError(
            f'{key}.dataset: every pixel of {counts.samples} samples is ignored; do '
            'its classes, reduce_zero_label and split fit the masks? '
            'Are the masks of this folder those of these images?'
        )


def require_needed_data(segmentor: Any, counts: LabelCounts, key: str) -> None:
    """A head may need other data than labels, which a pipeline has to make."""
    head = getattr(segmentor, 'decode_head', None)
    for kind, maker in getattr(head, 'needed_data', {}).items():
        if counts.samples and kind not in counts.kinds:
            raise ProtocolError(
                f'{key}.dataset: {type(head).__name__} needs {kind}, which its '
                f"pipeline does not make: put dict(type='{maker}') before PackSegInputs"
            )


def require_matching_prompts(
    segmentor: Any, meta: Mapping[str, Any], key: str, *, training: bool
) -> None:
    """Masks of one named class are for segmentors that read the name, and only those.

    These can be tested on all classes at once, too. Instead of a segmentor, its class
    will do.
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
    prompted = 'prompted' in meta
    wrong = (ZeroShotIoUMetric, IoUMetric) if prompted else FoldIoUMetric
    right = FoldIoUMetric if prompted else ZeroShotIoUMetric
    given = 'one named class' if prompted else 'all classes at once'
    for metric in metrics:
        if isinstance(metric, wrong):
            raise ProtocolError(
                f'{_evaluator(key)} is a {type(metric).__name__}, but {key}.dataset '
                f"asks for {given}; use dict(type='{right.__name__}')"
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


@HOOKS.register_module()
class ProtocolCheckHook(Hook):
    """Check that data set, split, segmentor and metric mean the same thing.

    Before training (and before a validation or test of its own) it compares names and
    order of the classes, seen and unseen, the setting, special labels and the rows of
    inductive training, and looks at the labels of a few samples. Anything that
    disagrees raises a :class:`~zs3_mmseg.engine.protocol.ProtocolError` that names
    the config key. Random states and samplers are left as they were.

    Data sets without a split are only mentioned in the log, unless a zero-shot
    segmentor would see the labels of unseen classes through them.

    Args:
        num_samples: how many samples of each data set to look at, spread evenly; 0
            for none.
        allow_leak: let training know where unseen pixels are, which
            ``setting='unseen_location'`` asks for.
    """

    priority = 'VERY_HIGH'

    def __init__(self, num_samples: int = 8, *, allow_leak: bool = False) -> None:
        if num_samples < 0:
            raise ValueError(f'num_samples must be 0 or more, got {num_samples}')
        self.num_samples = num_samples
        self.allow_leak = allow_leak
        self._checked: set[str] = set()

    def before_run(self, runner: Runner) -> None:
        """Refuse a runner that cannot give all ranks the same model.

        And a config of two minds, which our own tools have refused before.
        """
        _require_broadcast(runner)
        if runner.cfg.filename is not None:
            require_inherited_variables(runner.cfg)

    def before_train(self, runner: Runner) -> None:
        """Check training, and the validation that will follow."""
        require_given_scores(runner.cfg, built=True)
        self._check_training(runner)
        if runner.val_loop is not None:
            self._check_evaluation(runner, 'val')
            validated = runner.val_loop.dataloader.dataset
            require_stated_selection(
                getattr(validated, 'metainfo', {}), 'val_dataloader'
            )

    def before_val(self, runner: Runner) -> None:
        """Check validation unless training has done it."""
        self._check_evaluation(runner, 'val')

    def before_test(self, runner: Runner) -> None:
        """Check testing."""
        self._check_evaluation(runner, 'test')

    def _check_training(self, runner: Runner) -> None:
        key = 'train_dataloader'
        dataset = runner.train_loop.dataloader.dataset
        segmentor = unwrap(runner.model)
        require_preprocessor(segmentor, training=True)
        meta = getattr(dataset, 'metainfo', {})
        if 'seen' not in meta:
            self._check_foreign(segmentor, meta, key)
            if hasattr(segmentor, 'split'):
                require_matching_prompts(segmentor, meta, key, training=True)
                require_hidden_labels(segmentor, key)
                require_competition(meta, key)
            return
        require_phase(meta, 'train', key)
        require_matching_prompts(segmentor, meta, key, training=True)
        require_oracle_consent(runner.hooks, meta, key)
        require_leak_consent(meta, key, allowed=self.allow_leak)
        self._check_model(segmentor, meta, key, tested=False)
        require_same_setting(segmentor, meta, key)
        require_seen_rows(segmentor)
        require_competition(meta, key)
        require_competing_rows(segmentor)
        require_ignored_padding(segmentor, meta)
        counts = self._look(dataset, key)
        require_needed_data(segmentor, counts, key)
        require_legal_labels(counts, allowed_in_training(meta), meta, key)
        require_some_labels(counts, meta, key)
        self._tell(counts, meta, key)

    def _check_evaluation(self, runner: Runner, name: str) -> None:
        if name in self._checked:
            return
        self._checked.add(name)
        key = f'{name}_dataloader'
        loop = getattr(runner, f'{name}_loop')
        dataset = loop.dataloader.dataset
        metrics = getattr(getattr(loop, 'evaluator', None), 'metrics', [])
        segmentor = unwrap(runner.model)
        require_preprocessor(segmentor, training=False)
        meta = getattr(dataset, 'metainfo', {})
        if 'seen' not in meta:
            self._check_foreign(segmentor, meta, key)
            if hasattr(segmentor, 'split'):
                require_competition(meta, key)
            require_prompt_metrics(metrics, meta, key)
            require_fitting_metrics(metrics, meta, key)
            require_files_of_their_own(metrics, dataset, key)
            return
        require_phase(meta, 'test', key)
        require_matching_prompts(segmentor, meta, key, training=False)
        require_prompt_metrics(metrics, meta, key)
        self._check_model(segmentor, meta, key, tested=True)
        require_competition(meta, key)
        require_fitting_metrics(metrics, meta, key)
        require_scores_for_metrics(segmentor, metrics, key)
        require_files_of_their_own(metrics, dataset, key)
        counts = self._look(dataset, key)
        require_fitting_views(counts, runner.model, key)
        require_one_size(counts, loop.dataloader, key)
        require_legal_labels(
            counts, allowed_in_testing(meta), {**meta, 'unseen': ()}, key
        )
        if metrics:
            require_some_labels(counts, meta, key)
        self._tell(counts, meta, key)

    @staticmethod
    def _check_model(
        segmentor: Any, meta: Mapping[str, Any], key: str, *, tested: bool
    ) -> None:
        if hasattr(segmentor, 'split'):
            split, names = segmentor.split, segmentor.split.classes
            if tested:
                split = getattr(segmentor, 'test_split', split)
                names = segmentor.class_names
            require_same_classes(names, meta, key)
            require_same_split(split, meta, key)
        else:
            require_fitting_heads(segmentor, meta, key)

    @staticmethod
    def _check_foreign(segmentor: Any, meta: Mapping[str, Any], key: str) -> None:
        if hasattr(segmentor, 'split') and meta.get('classes'):
            require_same_classes(segmentor.class_names, meta, key)
        MMLogger.get_current_instance().info(
            f'ProtocolCheckHook: {key}.dataset has no zero-shot split; its labels are '
            'not checked.'
        )

    def _look(self, dataset: Any, key: str) -> LabelCounts:
        """Count the labels of some samples without touching anyone's randomness."""
        counts = LabelCounts()
        if not hasattr(dataset, '__len__'):
            return counts  # a stream cannot be looked into without taking from it
        wanted = min(self.num_samples, len(dataset))
        state = get_random_state()
        try:
            for index in np.linspace(0, len(dataset) - 1, wanted).round().astype(int):
                sample = dataset[int(index)]
                require_packed(sample, key)
                counts.add(sample)
        except ProtocolError:
            raise
        except OSError as error:
            raise ProtocolError(f'{key}.dataset: {error}') from error
        except ValueError as error:
            transform = _failing_transform(error)
            where = f'.pipeline: {transform}' if transform else ''
            raise ProtocolError(f'{key}.dataset{where}: {error}') from error
        except Exception as error:
            transform = _failing_transform(error)
            if transform is None:
                raise
            raise ProtocolError(
                f'{key}.dataset.pipeline: {transform} fails with '
                f'{type(error).__name__}: {error}. Does something before it in the '
                'pipeline load what it needs?'
            ) from error
        finally:
            set_random_state(state)
        return counts

    @staticmethod
    def _tell(counts: LabelCounts, meta: Mapping[str, Any], key: str) -> None:
        if not counts.maps:
            return
        if 'prompted' in meta:
            text = (
                f'one of {len(meta["prompted"])} classes is named in each sample and '
                f'covers {counts.share(1):.0%} of the pixels'
            )
        else:
            seen, unseen = (
                f'{sum(label in counts.pixels for label in meta[kind])} of '
                f'{len(meta[kind])} {kind}'
                for kind in ('seen', 'unseen')
            )
            text = (
                f'{counts.samples} samples hold {seen} and {unseen} classes, '
                f'{counts.share(meta["ignore_index"]):.0%} ignored'
            )
            hidden = counts.share(meta['unlabelled_index'])
            text += f', {hidden:.0%} unlabelled' if hidden else ''
        MMLogger.get_current_instance().info(
            f'ProtocolCheckHook: {key} agrees with the model; {text}.'
        )


def _failing_transform(error: BaseException) -> str | None:
    """Return the name of the transform of a pipeline that an error came through."""
    name, trace = None, error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get('self')
        if isinstance(owner, BaseTransform):
            name = type(owner).__name__
        trace = trace.tb_next
    return name


def _require_broadcast(runner: Runner) -> None:
    """Class names in the state of a model need a runner that knows of them.

    A stock runner sends the whole state dict from rank 0 to the others before training
    and stops, with a word about tensors only, at the names our segmentors keep there.
    """
    trains = isinstance(runner._train_loop, BaseLoop)  # the property would build it
    init_weights = getattr(type(runner), '_init_model_weights', None)
    stock = init_weights is Runner._init_model_weights
    if not (trains and stock and runner.distributed):
        return
    state = unwrap(runner.model).state_dict()
    named = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if named:
        raise ProtocolError(
            f'{type(runner).__name__} cannot train a '
            f'{type(unwrap(runner.model)).__name__} in several processes: it sends '
            f'{", ".join(named)} of the model, which holds class names, to the others '
            "as if it were a tensor. Set runner_type='SafeRunner' in the config, or "
            'use tools/dist_train.sh of this package'
        )
