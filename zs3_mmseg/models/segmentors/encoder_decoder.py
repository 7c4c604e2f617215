"""An mmseg encoder-decoder whose classes are rows of embeddings."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.logging import print_log
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import ConfigType, OptConfigType, SampleList, add_prefix

from zs3_mmseg.datasets.splits import ZeroShotSplit, resolve_split
from zs3_mmseg.models.backbones.outputs import TowerOutput
from zs3_mmseg.models.calibrators import SPACES
from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads.mask_scores import MaskScores
from zs3_mmseg.models.decode_heads.zero_shot_head import (
    GatedLogits,
    ScoreKind,
    ZeroShotHead,
)
from zs3_mmseg.models.losses.divisors import (
    Divisor,
    head_divisors,
    require_head_divisors,
)
from zs3_mmseg.models.resize import resize_maps
from zs3_mmseg.registry import find_class
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.labels import SpecialLabels, special_labels
from zs3_mmseg.utils.names import as_list

from .inference import (
    ALL,
    GROUPS,
    CalibrationData,
    CropScores,
    ImageResult,
    InferenceOptions,
    LabelRule,
    LogitScores,
    MaskSums,
    ScoringRule,
    Size,
    Window,
    covered_size,
    slide_windows,
    stream_scores,
    to_original,
    window_of,
)
from .input_image import input_image
from .vocabulary import ClassList, RowState, Vocabulary

# ------------------------------------------------------------ what a head may ask for


#: Names of parameters, by function and class of its head. No functools.cache, which
#: torch.compile warns of.
_DECLARED: dict[tuple[Callable, Any], frozenset[str]] = {}


def declared(function: Callable) -> frozenset[str]:
    """Return the names of the parameters of a function, class or method.

    A head's method that takes any keyword hands it on to ``query_logits``, and wants
    what that declares.
    """
    key = (getattr(function, '__func__', function), _owner(function))
    if key not in _DECLARED:
        parameters = inspect.signature(function).parameters
        names, (plain, head) = frozenset(parameters), key
        passes_on = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        if passes_on and hasattr(head, 'query_logits') and plain != head.query_logits:
            names |= declared(head.query_logits)
        _DECLARED[key] = names
    return _DECLARED[key]


def _owner(function: Callable) -> Any:
    """Return the class that a bound method belongs to; None for any other function."""
    bound = getattr(function, '__self__', None)
    return None if bound is None else type(bound)


def call_with(function: Callable, *args: Any, **given: Any) -> Any:
    """Call a head's method with those of ``given`` that it declares by name."""
    for name in given.keys() - declared(function):
        del given[name]
    return function(*args, **given)


@dataclass(frozen=True)
class HeadRun:
    """What a head found in some windows of all images, and what scores are made by.

    Attributes:
        found: logits, or masks, of the images window by window.
        queries: the rows that it read.
        global_token: ``(N, E)``, if there is one.
        crop: the size of a window.
        covered: the size that maps stand for.
        rule: how scores are made.
    """

    found: Any
    queries: ClassQueries
    global_token: Tensor | None
    crop: Size
    covered: Size
    rule: ScoringRule


def reads_queries(head: Any) -> bool:
    """Tell whether a head, or a class of heads, reads class embeddings."""
    return any(
        'queries' in declared(method)
        for name in ('forward', 'predict', 'loss')
        if (method := getattr(head, name, None)) is not None
    )


def loss_is_bypassed(head: type) -> bool:
    """Tell whether a class overrides ``loss`` below the methods that replace it."""
    if not hasattr(head, 'training_outputs'):
        return False
    for kind in head.__mro__:
        if {'training_outputs', 'loss_by_feat'} & vars(kind).keys():
            return False
        if 'loss' in vars(kind):
            return True
    return False


def picked_maps(
    name: str, in_index: int | Sequence[int], widths: Sequence[int]
) -> list:
    """Return the widths of the maps that a head reads.

    Raises:
        ConfigError: if there is no such map.
    """
    places = [in_index] if isinstance(in_index, int) else [*in_index]
    for place in places:
        if not -len(widths) <= place < len(widths):
            raise ConfigError(
                f'model.{name}.in_index is {in_index}, but model.backbone (with its '
                f'neck) gives maps of {", ".join(map(str, widths))} channels, '
                f'{len(widths)} in all'
            )
    return [widths[place] for place in places]


def require_fitting_maps(name: str, head: Any, widths: Sequence[int]) -> None:
    """Check ``in_index`` and ``in_channels`` of a head against the maps there are."""
    wanted = getattr(head, 'in_channels', None)
    if wanted is None:  # no head of mmseg: it has its own ways
        return
    found = picked_maps(name, head.in_index, widths)
    if getattr(head, 'input_transform', None) == 'resize_concat':
        found = [sum(found)]
    if found != ([wanted] if isinstance(wanted, int) else [*wanted]):
        raise ConfigError(
            f'model.{name}.in_channels is {wanted}, but the maps at in_index='
            f'{head.in_index} have {", ".join(map(str, found))} channels: set these'
        )


def _is_required(function: Callable, name: str) -> bool:
    parameter = inspect.signature(function).parameters[name]
    return parameter.default is inspect.Parameter.empty


# ------------------------------------------------------------------ labels of training


#: Settings in which unlabelled pixels reach the model.
KEEPS_UNLABELLED = ('transductive', 'unseen_location')


class LabelMapping:
    """Maps indices into all classes to indices of a head's classes.

    ``positions`` has the new index of each class that stays. Values that neither stay
    nor are ignored become ignored in the inductive setting; in the transductive one
    and ``unseen_location`` ones unlabelled pixels are kept for later, and any other
    value is a mistake.
    """

    def __init__(
        self,
        positions: Mapping[int, int],
        *,
        num_classes: int,
        special: SpecialLabels,
        setting: str,
    ) -> None:
        others_ignored = setting == 'inductive'
        unknown = special.ignore if others_ignored else -1
        self._num_classes = num_classes
        self._special = special
        self._setting = setting
        # One entry more than there are values: whatever lies outside ends there.
        self._table = torch.full((special.ignore + 2,), unknown)
        self._table[special.ignore] = special.ignore
        for old, new in positions.items():
            self._table[old] = new
        if setting in KEEPS_UNLABELLED:
            self._table[special.unlabelled] = special.unlabelled

    def __call__(self, labels: Tensor) -> Tensor:
        """Return new labels of any shape, long; ``labels`` is not changed."""
        self._table = self._table.to(labels.device)
        last = len(self._table) - 1
        values = labels.long()
        index = torch.where((values < 0) | (values > last), last, values)
        mapped = self._table[index]
        if self._setting != 'inductive' and bool((mapped < 0).any()):
            wrong = values[mapped < 0].unique().tolist()
            unlabelled = self._special.unlabelled
            if unlabelled in wrong:
                raise ConfigError(
                    f'labels hold {unlabelled} (unlabelled), which model.setting='
                    f'{self._setting!r} does not understand: set model.setting and '
                    'train_dataloader.dataset.setting to the same'
                )
            raise ConfigError(
                f'labels hold {wrong}: expected 0..{self._num_classes - 1}, '
                f'{self._special.ignore} (ignore) or, in the transductive and '
                f'unseen_location settings, {unlabelled} (unlabelled). Does the data '
                'set use the split of the model?'
            )
        return mapped


def with_labels(
    samples: Sequence[SegDataSample], labels: Tensor
) -> list[SegDataSample]:
    """Return copies of samples with other ground truth ``(N, H, W)``.

    The given samples and their data stay as they are.
    """
    copies = []
    for sample, label_map in zip(samples, labels, strict=True):
        copied = sample.new()
        copied.gt_sem_seg = PixelData(data=label_map[None])
        copies.append(copied)
    return copies


MASK_SUM = 'mask_sum'
SCORE_KINDS = get_args(ScoreKind)
#: What a transductive training may be trained as.
SWITCHABLE = ('inductive', 'transductive')
#: What a head needs for unlabelled pixels.
_METHODS = ('training_outputs', 'resolve_unlabelled')
#: Logit of a class that a head without class embeddings was never trained on. Finite,
#: as a resize would make NaN of infinities.
UNTRAINED = -1e4


def _metas(inputs: Any, data_samples: SampleList | None) -> list[dict]:
    """Return the metainfo of each image; without samples, inputs are the originals."""
    if not isinstance(inputs, Tensor):
        raise ConfigError(
            'model.data_preprocessor makes no batch of the images: set '
            "model.data_preprocessor=dict(type='SegDataPreProcessor', ...)"
        )
    if data_samples is not None:
        return [sample.metainfo for sample in data_samples]
    size = inputs.shape[2:]
    return [dict(ori_shape=size, img_shape=size, pad_shape=size)] * len(inputs)


def _views(sample: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the views that test-time augmentation packed in one sample, or itself."""
    if not isinstance(sample['inputs'], list):
        return [dict(sample)]
    return [
        dict(zip(sample, view, strict=True))
        for view in zip(*sample.values(), strict=True)
    ]


def _running_before(calibrator: Any, every: Iterable[Any]) -> nn.ModuleList:
    """Return the calibrators that run before one of them."""
    chain = sorted(every, key=lambda one: SPACES.index(one.space))  # stable
    return nn.ModuleList(chain[: chain.index(calibrator)])


def _built(parts: Sequence[ConfigType | nn.Module]) -> nn.ModuleList:
    return nn.ModuleList(
        MODELS.build(part) if isinstance(part, Mapping) else part for part in parts
    )


def _loss_prefix(head: str) -> str:
    """Return what stands before the losses of a head, as in mmseg."""
    prefix = head.replace('auxiliary_head', 'aux').replace('[', '_').strip(']')
    return prefix.removesuffix('_head')


@MODELS.register_module()
class ZeroShotEncoderDecoder(EncoderDecoder):
    """Encoder-decoder that is trained with some classes and tested with any.

    The decode head reads :class:`ClassQueries` at run time if its methods declare the
    keyword ``queries``; it gets what else of ``global_token``, ``cls_tokens``,
    ``group_tokens``, ``text_tokens``, ``backbone_maps`` (all maps, before the neck) and
    ``image`` (:class:`~.input_image.InputImage`) they declare; its losses, besides, the
    ``split`` and ``encode``, which makes rows of words. It returns logits at patch
    resolution, or :class:`MaskScores`. Any other mmseg head works too;
    its classes are those it was built with, and the others of the split are never
    predicted.

    Labels arrive as indices into ``split.classes``. In inductive training only seen
    classes have rows, labels become positions among them, and all else is ignored. In
    transductive training all classes have rows, and the head fills the unlabelled
    pixels before any loss. In supervised training all classes have rows and labels.
    In the ``unseen_location`` setting only seen classes have rows, and a head with
    ``needs_unseen_pixels`` is told where unseen pixels are, which leaks.

    Args:
        backbone: config of the backbone. A last output ``(N, E)`` is the global token.
        decode_head: config of the decode head. ``in_channels`` and ``embed_dim`` are
            filled in from backbone and embeddings where a head that reads class
            embeddings leaves them out.
        class_embeddings: config of a ``ClassEmbeddingBank``, or a bank. None only if
            no head and no calibrator reads class embeddings.
        split: name of a split, a dict with ``classes`` and ``unseen``, or a split.
        setting: ``'inductive'``, ``'transductive'``, ``'supervised'`` or
            ``'unseen_location'``.
        test_split: a split, as above, whose classes are the ones to predict, for
            cross-dataset testing; training and checkpoints keep ``split``. Their rows
            are those of ``class_embeddings``, also for names that a checkpoint has.
        pseudo_label_threshold: in transductive training, unlabelled pixels whose best
            unseen class scores less than this are ignored; None fills all of them.
        pseudo_labels: whether unlabelled pixels of transductive training get
            pseudo-labels. False leaves them out of the losses over classes, as the
            released code of TagCLIP does by accident.
        unlabelled_loss: config of a loss such as ``QFSLLoss``, or a loss, on the class
            logits at unlabelled pixels of transductive training, in place of
            pseudo-labels; these pixels count in no other loss then.
        calibrators: configs of calibrators, or calibrators, in their order.
        post_processors: configs of post-processors, or post-processors, in their
            order: those of ``space='score'`` change scores ``(K, H, W)`` at original
            size, those of ``'label'`` the label map. They also get the image, as the
            network saw it.
        neck: config of the neck; it gets the maps without the global token.
        auxiliary_head: config(s) of auxiliary heads.
        train_cfg: handed to the heads, if they declare it.
        test_cfg: see :class:`InferenceOptions`.
        data_preprocessor: as in mmseg.
        pretrained: as in mmseg.
        init_cfg: as in mmengine.

    Raises:
        ValueError: if options do not fit each other; the message names the key.
    """

    auxiliary_head: Any
    #: Whether the head's channels are the current classes, if it reads their rows.
    _channels_are_classes = True

    def __init__(
        self,
        backbone: ConfigType,
        decode_head: ConfigType,
        *,
        class_embeddings: ConfigType | Any | None = None,
        split: Any = None,
        setting: str | None = None,
        test_split: Any = None,
        pseudo_label_threshold: float | None = None,
        pseudo_labels: bool = True,
        unlabelled_loss: ConfigType | nn.Module | None = None,
        calibrators: Sequence[ConfigType | nn.Module] = (),
        post_processors: Sequence[ConfigType | nn.Module] = (),
        neck: OptConfigType = None,
        auxiliary_head: Any = None,
        train_cfg: OptConfigType = None,
        test_cfg: OptConfigType = None,
        data_preprocessor: OptConfigType = None,
        pretrained: str | None = None,
        init_cfg: Any = None,
    ) -> None:
        if pretrained is not None and backbone.get('pretrained') is not None:
            raise ValueError(
                'model.pretrained and model.backbone.pretrained are two words for one '
                'thing: leave model.pretrained out'
            )
        vocabulary = Vocabulary(split, setting, class_embeddings)
        self._check_vocabulary(vocabulary)
        self.vocabulary = vocabulary
        self._parsed: tuple[dict | None, InferenceOptions] = (None, InferenceOptions())
        # mmengine's registries and mmseg write into configs: not into the caller's.
        super().__init__(
            backbone=ConfigDict(backbone),
            decode_head=ConfigDict(decode_head),
            neck=neck,
            auxiliary_head=auxiliary_head,
            train_cfg=train_cfg,
            test_cfg=ConfigDict(test_cfg or {}),
            data_preprocessor=data_preprocessor,
            pretrained=pretrained,
            init_cfg=init_cfg,
        )
        self.calibrators = _built(calibrators)
        self.post_processors = _built(post_processors)
        self.unlabelled_loss: nn.Module | None = None
        if unlabelled_loss is not None:
            (self.unlabelled_loss,) = _built([unlabelled_loss])
        self.pseudo_label_threshold = pseudo_label_threshold
        self.pseudo_labels = pseudo_labels
        self._teacher: tuple[ZeroShotEncoderDecoder, ...] = ()
        vocabulary.rows_needed = (
            any(reads_queries(head) for _, head in self._named_heads())
            or any(getattr(c, 'needs_global_token', False) for c in self.calibrators)
            or getattr(self, 'reads_prompts', False)
        )
        self._reads_queries = reads_queries(self.decode_head)
        self._special = special_labels(len(self.split.classes))
        self._check_options()
        self._init_label_mappings()
        self.test_split = self.split
        self._use(vocabulary.trained)
        if test_split is not None:
            self._test_on(resolve_split(test_split))

    def _check_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Refuse a vocabulary that a kind of segmentor cannot work with."""

    def _init_decode_head(self, decode_head: ConfigType) -> None:
        """Build the head, with widths that only backbone and rows know."""
        head_class = find_class(MODELS, decode_head.get('type'))
        source: Any = self.neck if self.with_neck else self.backbone
        widths = None if self.with_neck else getattr(source, 'out_channels', None)
        if head_class is not None and reads_queries(head_class):
            self._require_embeddings()
            wanted = declared(head_class) - decode_head.keys()
            place = decode_head.get('in_index', -1)
            if 'in_channels' in wanted:
                if isinstance(widths, (list, tuple)):
                    chosen = picked_maps('decode_head', place, widths)
                    one = isinstance(place, int)
                    decode_head['in_channels'] = chosen[0] if one else chosen
                elif _is_required(head_class, 'in_channels'):
                    raise ConfigError(
                        'model.decode_head.in_channels is missing: '
                        f'{type(source).__name__} does not tell how many channels its '
                        'maps have'
                    )
            if 'embed_dim' in wanted:
                decode_head['embed_dim'] = self._row_width()
        super()._init_decode_head(decode_head)
        if isinstance(widths, (list, tuple)):
            require_fitting_maps('decode_head', self.decode_head, widths)

    def _require_embeddings(self) -> None:
        if self.vocabulary.bank is None:
            raise ConfigError(
                'class_embeddings is None, but the head or a calibrator reads class '
                'embeddings: set model.class_embeddings'
            )

    def _row_width(self) -> int | None:
        try:
            return self.vocabulary.dim
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'{error}. If a checkpoint brings the rows, say how long they are: set '
                'model.decode_head.embed_dim'
            ) from error

    @property
    def _inference_options(self) -> InferenceOptions:
        """``test_cfg``, read again only where somebody has changed it."""
        config, options = self._parsed
        if config != self.test_cfg:
            options = InferenceOptions.from_cfg(self.test_cfg)
            scored = [p for p in self.post_processors if p.space == 'score']
            if scored and options.return_scores is not True:
                raise ValueError(
                    f'{type(scored[0]).__name__} changes scores, which test_cfg.'
                    f'return_scores={options.return_scores!r} never holds: set it to '
                    'True'
                )
            if options.mask_sums == 'original' and self.score_kind != MASK_SUM:
                raise ValueError(
                    "test_cfg.mask_sums='original' is for heads that find masks first, "
                    f'such as ZegFormerHead, and {type(self.decode_head).__name__} '
                    'gives a map for each class: leave it out'
                )
            self._parsed = dict(self.test_cfg), options
        return options

    def _check_options(self) -> None:
        self._inference_options  # noqa: B018
        threshold = self.pseudo_label_threshold
        head_name = type(self.decode_head).__name__
        if threshold is not None and not self.understands_unlabelled:
            raise ValueError(
                f'pseudo_label_threshold={threshold} is for transductive training with '
                f'a head that fills unlabelled pixels; here setting={self.setting!r} '
                f'and the head is {head_name}'
            )
        if self.unlabelled_loss is not None:
            self._check_unlabelled_loss(type(self.unlabelled_loss).__name__)
        if self.score_kind != 'logit' and not 0 <= (threshold or 0) <= 1:
            raise ValueError(
                f'pseudo_label_threshold={threshold} must be in 0..1, as the scores of '
                f'{head_name} are'
            )
        if self.score_kind not in SCORE_KINDS:
            raise ValueError(
                f'{head_name}.score_kind is {self.score_kind!r}, expected one of '
                f'{SCORE_KINDS}'
            )
        if self.vocabulary.rows_needed:
            self._require_embeddings()
        for name, head in self._named_heads():
            self._check_head(name, head)
        self._require_global_token(getattr(self.backbone, 'out_global', True))
        self._check_unseen_pixels()
        methods = ('forward', 'query_logits', 'training_outputs', 'loss', 'predict')
        self._reads_image = any(
            'image' in declared(getattr(head, method))
            for _, head in self._named_heads()
            for method in (*methods, 'loss_by_feat')
            if hasattr(head, method)
        )
        for calibrator in self.calibrators:
            if getattr(calibrator, 'space', None) not in SPACES:
                raise ValueError(
                    f'{type(calibrator).__name__} is no calibrator: its space must be '
                    f'one of {SPACES}'
                )
            if self.score_kind == MASK_SUM and calibrator.space == 'logit':
                raise ValueError(
                    f"{type(calibrator).__name__}(space='logit') calibrates logits, "
                    f"and {head_name} makes sums of masks: use space='score'"
                )

    def _check_unseen_pixels(self) -> None:
        """Where unseen pixels are is for heads that read it, and for them needed."""
        reads = getattr(self.decode_head, 'needs_unseen_pixels', False)
        head_name = type(self.decode_head).__name__
        if self.setting == 'unseen_location' and not reads:
            raise ConfigError(
                "model.setting='unseen_location' tells where unseen pixels are, which "
                f'{head_name} does not read: set model.setting and train_dataloader.'
                "dataset.setting to 'inductive', or decode_head.extra_query='trust'"
            )
        if reads and self.setting not in KEEPS_UNLABELLED:
            raise ConfigError(
                f'{head_name} learns where unseen pixels are (extra_query), which '
                f'model.setting={self.setting!r} does not tell: set it and '
                "train_dataloader.dataset.setting to 'unseen_location', which leaks, "
                "or to 'transductive'"
            )
        if not self.pseudo_labels and self.setting != 'transductive':
            raise ConfigError(
                'model.pseudo_labels=False is for transductive training, and here '
                f'setting={self.setting!r}: leave it out'
            )
        for calibrator in self.calibrators:
            gated = getattr(calibrator, 'needs_gate', False)
            if gated and not getattr(self.decode_head, 'gives_gate', False):
                raise ConfigError(
                    f'{type(calibrator).__name__} weighs scores by a map of unseen '
                    f'pixels, which {head_name} does not give: set '
                    "model.decode_head.extra_query='trust'"
                )

    def _check_unlabelled_loss(self, name: str) -> None:
        if self.setting != 'transductive':
            raise ConfigError(
                f'model.unlabelled_loss: {name} learns from pixels that are known to '
                f'be unseen, which setting={self.setting!r} never shows: leave it out, '
                'or set model.setting and train_dataloader.dataset.setting to '
                "'transductive'"
            )
        if self.pseudo_label_threshold is not None:
            raise ConfigError(
                f'model.unlabelled_loss: {name} takes the place of pseudo-labels, and '
                'model.pseudo_label_threshold chooses among them: set one of the two'
            )
        if not self.pseudo_labels:
            raise ConfigError(
                f'model.unlabelled_loss: {name} takes the place of pseudo-labels: '
                'leave model.pseudo_labels=False out'
            )
        if not isinstance(self.decode_head, ZeroShotHead) or (
            self.score_kind != 'softmax'
        ):
            raise ConfigError(
                f'model.unlabelled_loss: {name} reads one softmax over all classes, '
                f'which {type(self.decode_head).__name__} does not make: use a head '
                "with score_kind='softmax'"
            )

    def _check_head(self, name: str, head: Any) -> None:
        num_classes, num_rows = len(self.split.classes), len(self.training_names())
        ignore = self._special.ignore
        # None belongs to losses that look at no ignored label.
        if getattr(head, 'ignore_index', None) not in (ignore, None):
            raise ValueError(
                f'{name}.ignore_index is {head.ignore_index}, but {num_classes} '
                f'classes need {ignore}: set it in the config'
            )
        if loss_is_bypassed(type(head)):
            raise ValueError(
                f'{type(head).__name__} overrides loss, which is never called: losses '
                'are training_outputs and then loss_by_feat, override these'
            )
        owner = getattr(head, 'segmentor', ZeroShotEncoderDecoder.__name__)
        if owner not in [kind.__name__ for kind in type(self).__mro__]:
            raise ConfigError(
                f'model.{name}.type is {type(head).__name__!r}, which belongs to '
                f'another segmentor: set model.type={owner!r}'
            )
        if reads_queries(head) or not self._channels_are_classes:
            return
        if not hasattr(head, 'out_channels'):
            raise ConfigError(
                f'model.{name}.type is {type(head).__name__!r}, which is no decode '
                'head of mmseg: it has no out_channels'
            )
        if head.out_channels in (num_rows, num_classes):
            return
        raise ValueError(
            f'{name}.num_classes gives {head.out_channels} channels, but split '
            f'{self.split.name!r} trains {num_rows} classes in the {self.setting} '
            f'setting: set num_classes={num_rows}'
        )

    def _require_global_token(self, there: bool) -> None:
        """Check that what needs the image's global token gets one."""
        readers = [head for _, head in self._named_heads()] + [*self.calibrators]
        for reader in [] if there else readers:
            if getattr(reader, 'needs_global_token', False):
                raise ConfigError(
                    f'{type(reader).__name__} needs the global token of the image, '
                    f'which {type(self.backbone).__name__} does not give: set '
                    "model.backbone.out_global=True of an 'OpenCLIPViT'"
                )

    def _init_label_mappings(self) -> None:
        names, classes = self.training_names(), self.split.classes
        indices = [classes.index(name) for name in names]
        common: dict[str, Any] = dict(
            num_classes=len(classes),
            special=self._special,
            setting=self.vocabulary.training_setting,
        )
        #: To positions among the rows, and to places among all classes.
        self._to_rows = LabelMapping(
            {c: row for row, c in enumerate(indices)}, **common
        )
        self._to_classes = LabelMapping({c: c for c in indices}, **common)
        self._trained_indices = indices
        #: Heads whose channels are all classes, not the rows.
        self._whole_heads = {
            name
            for name, head in self._named_heads()
            if not reads_queries(head) and head.out_channels != len(indices)
        }

    # -- what the parts are --------------------------------------------------------

    def _named_heads(self) -> Iterator[tuple[str, Any]]:
        yield 'decode_head', self.decode_head
        if isinstance(getattr(self, 'auxiliary_head', None), nn.ModuleList):
            for index, head in enumerate(self.auxiliary_head):
                yield f'auxiliary_head[{index}]', head
        elif self.with_auxiliary_head:
            yield 'auxiliary_head', self.auxiliary_head

    @property
    def score_kind(self) -> str:
        """What scores are, see ``score_kind`` of heads."""
        return getattr(self.decode_head, 'score_kind', 'logit')

    @property
    def label_rule(self) -> LabelRule:
        """How scores become labels."""
        return LabelRule(
            score_thr=self._inference_options.score_thr,
            prob_thd=getattr(self.decode_head, 'prob_thd', None),
            bg_index=getattr(self.decode_head, 'bg_index', 0),
        )

    # -- names ---------------------------------------------------------------------

    @property
    def split(self) -> ZeroShotSplit:
        """The classes of the training."""
        return self.vocabulary.split

    @property
    def setting(self) -> str:
        """One of ``SETTINGS``, see there."""
        return self.vocabulary.setting

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the current classes, in the order of the scores."""
        return self.vocabulary.names

    def training_names(self) -> tuple[str, ...]:
        """Return the names whose rows training uses, in the order of the rows."""
        return self.vocabulary.training_names

    @property
    def dataset_meta(self) -> dict[str, Any]:
        """``classes`` and ``palette`` of the current vocabulary, as mmseg wants them.

        Setting it changes colours only: mmseg's own APIs set the classes of the
        training data, or those of Cityscapes, after a model has been built.
        """
        return {
            'classes': self.vocabulary.display_names,
            'palette': [list(colour) for colour in self.vocabulary.palette],
        }

    @dataset_meta.setter
    def dataset_meta(self, meta: Mapping[str, Any] | None) -> None:
        self.vocabulary.recolour(meta or {})

    def set_classes(
        self,
        names: Sequence[str] | None,
        unseen: Sequence[str] | None = None,
        embeddings: Tensor | Any | None = None,
    ) -> None:
        """Change the vocabulary; training and checkpoints keep that of the split.

        Args:
            names: new class names; ``'sofa|couch'`` is one class with two names. None:
                those of the split again.
            unseen: those among them that are unseen; None: all but those that mean a
                class seen in training.
            embeddings: rows to use, ``(Q, D)`` in the order of names and synonyms or
                ``(K, D)``; None: known rows are used and new ones computed.

        Raises:
            ValueError: if names are empty or occur twice, if ``unseen`` holds others,
                if rows do not fit, or if the head's classes are fixed.
            FileNotFoundError: if a file to compute new rows is missing.
        """
        if names is None:
            self.reset_classes()
        else:
            self._use(self._classes_of(names, unseen, embeddings))

    @contextmanager
    def using_classes(
        self,
        names: Sequence[str] | None,
        unseen: Sequence[str] | None = None,
        embeddings: Tensor | Any | None = None,
    ) -> Iterator[None]:
        """Use a vocabulary in this block, and in this thread alone.

        Whatever other threads ask for, or :meth:`set_classes` changes meanwhile, what
        is predicted here has these classes. Options and errors are those of
        :meth:`set_classes`; with ``names=None`` the current vocabulary is held.
        """
        classes = self.vocabulary.current
        if names is not None:
            classes = self._classes_of(names, unseen, embeddings)
            self._check_classes(classes)
        with self.vocabulary.asked(classes):
            yield

    def _classes_of(
        self,
        names: Sequence[str],
        unseen: Sequence[str] | None,
        embeddings: Tensor | Any | None,
    ) -> ClassList:
        self._require_open_classes()
        classes = self.vocabulary.new(names, unseen)
        if embeddings is None:
            self.vocabulary.rows_of(classes.names, self._device_and_dtype()[0])
        else:
            given = torch.as_tensor(embeddings)
            classes.rows = self.vocabulary.given_rows(given, classes.names)
        return classes

    def reset_classes(self) -> None:
        """Return to the classes of the split."""
        self._use(self.vocabulary.trained)

    def extra_repr(self) -> str:
        """Return what ``print`` shows beside the modules: split and vocabulary."""
        split, words = self.split, self.vocabulary
        pairs = zip(words.names, words.seen, strict=True)
        unseen = [name for name, seen in pairs if not seen]
        return (
            f'(split): {split.name}, {len(split.seen)} seen and {len(split.unseen)} '
            f'unseen classes, setting={self.setting!r}\n'
            f'(classes): {as_list(words.names)}\n'
            f'(unseen): {as_list(unseen) or "none"}'
        )

    def _test_on(self, split: ZeroShotSplit) -> None:
        """Make the classes of another split the current ones."""
        self._require_open_classes()
        self.test_split = split
        classes = self.vocabulary.new(split.classes, None)
        classes.from_bank = True
        self._use(classes)

    def _require_open_classes(self) -> None:
        if not self._reads_queries:
            raise ValueError(
                f'the classes of this model are fixed: its decode head '
                f'{type(self.decode_head).__name__} does not read class embeddings'
            )

    def _use(self, classes: ClassList) -> None:
        """Make classes the current ones, here and for mmseg's tools."""
        self._check_classes(classes)
        self.vocabulary.use(classes)
        self.num_classes = self.out_channels = num_classes = len(classes.names)
        if self._reads_queries and self._channels_are_classes:
            self.decode_head.num_classes = self.decode_head.out_channels = num_classes

    def _check_classes(self, classes: ClassList) -> None:
        """Refuse classes that rules and post-processors cannot work with."""
        rule, num_classes = self.label_rule, len(classes.names)
        if rule.prob_thd is not None and rule.bg_index >= num_classes:
            raise ValueError(
                f'decode_head.bg_index={rule.bg_index} is none of the {num_classes} '
                'classes: set it, or decode_head.prob_thd=None'
            )
        if num_classes == 1 and self.score_kind == 'softmax':
            print_log(
                f'A softmax over one class is 1 everywhere: add names to tell '
                f'{classes.names[0]!r} from, such as "background".',
                logger='current',
                level=logging.WARNING,
            )
        # Pairs of an image and a name have two labels, whatever the vocabulary.
        if not getattr(self, 'reads_prompts', False):
            for processor in self.post_processors:
                check: Any = getattr(processor, 'require_classes', None)
                if check is not None:
                    check(num_classes)

    # -- rows ----------------------------------------------------------------------

    def train(self, mode: bool = True) -> Any:
        """Switch the mode; inductive training does not keep rows of unseen names."""
        if mode:
            self.vocabulary.forget_unseen()
        return super().train(mode)

    def training_queries(self) -> ClassQueries:
        """Return the rows used in training, on the model's device."""
        return self.vocabulary.queries('training', *self._device_and_dtype())

    def current_queries(self) -> ClassQueries:
        """Return the rows of the current classes, on the model's device."""
        return self.vocabulary.queries('current', *self._device_and_dtype())

    def _device_and_dtype(self) -> tuple[torch.device, torch.dtype]:
        """Return where the parameters are, and their floating type."""
        for tensor in chain(self.parameters(), self.buffers()):
            if tensor.is_floating_point():
                return tensor.device, tensor.dtype
        return torch.device('cpu'), torch.get_default_dtype()

    def get_extra_state(self) -> RowState:
        """Return the split's names and rows, as plain tensors and strings."""
        return self.vocabulary.state(self._device_and_dtype()[0])

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take names and rows from a checkpoint.

        Raises:
            ValueError: if the checkpoint's classes, their order, or the unseen ones
                among them are not those of the config's split.
        """
        self.vocabulary.load(state)

    # -- features ------------------------------------------------------------------

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the maps that heads read, without the global token."""
        return self._features(inputs, None)[0]

    def _features(
        self,
        inputs: Tensor,
        queries: ClassQueries | None,
        metas: Sequence[Mapping[str, Any]] = (),
        windows: Sequence[Window | None] = (None,),
        wholes: Tensor | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Return the maps that heads read, and what else they may ask for by name.

        ``inputs`` are windows of ``wholes``, images with ``metas``, or these images.
        """
        output = TowerOutput.of(self.backbone(inputs))
        maps, given = self._given(output, queries)
        if self._reads_image and metas:
            preprocessor = self.data_preprocessor
            wholes = inputs if wholes is None else wholes
            covered = covered_size(self.backbone, (inputs.shape[2], inputs.shape[3]))
            given['image'] = input_image(wholes, metas, preprocessor, windows, covered)
        return maps, given

    def _given(
        self, output: TowerOutput, queries: ClassQueries | None
    ) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        maps = tuple(self.neck(output.maps)) if self.with_neck else output.maps
        self._require_global_token(output.global_token is not None)
        for name, head in self._named_heads():
            require_fitting_maps(name, head, [found.shape[1] for found in maps])
        return maps, dict(
            queries=queries,
            text_tokens=None if queries is None else queries.token_features,
            global_token=output.global_token,
            cls_tokens=output.cls_tokens,
            group_tokens=output.group_tokens,
            backbone_maps=output.maps,
        )

    def _forward(
        self, inputs: Tensor, data_samples: SampleList | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Return what the head's ``forward`` does, at patch resolution.

        With the training rows while in training mode, else with the current ones.
        """
        queries = self.training_queries() if self.training else self.current_queries()
        metas = _metas(inputs, data_samples)
        maps, given = self._features(inputs, queries, metas)
        return call_with(self.decode_head.forward, maps, **given)

    # -- inference -----------------------------------------------------------------

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Return calibrated scores ``(N, K, H, W)`` of the current classes.

        ``inputs`` are whole images ``(N, 3, H, W)``.
        """
        return self._stacked(inputs, batch_img_metas, 'whole')

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Return scores ``(N, K, H, W)``, averaged over overlapping windows."""
        return self._stacked(inputs, batch_img_metas, 'slide')

    def inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Return scores ``(N, K, H, W)`` at input size, whole or by windows."""
        return self._stacked(inputs, batch_img_metas, self._inference_options.mode)

    def _stacked(self, inputs: Tensor, metas: list[dict], mode: str) -> Tensor:
        crops = self._crops(inputs, metas, mode)
        size: Size = (inputs.shape[2], inputs.shape[3])
        whole: Tensor | None = None
        for classes, scores in stream_scores(crops, size):
            if whole is None:
                whole = scores.new_empty(len(scores), len(self.class_names), *size)
            whole[:, classes] = scores
        assert whole is not None  # there is at least one class
        return whole

    def found_masks(
        self, inputs: Tensor, metas: Sequence[Mapping[str, Any]]
    ) -> tuple[Tensor, Tensor]:
        """Return what a head with ``score_kind='mask_sum'`` finds in whole images.

        Masks ``(N, M, H, W)`` in 0..1 at input size (or ``test_cfg.mask_size``), and
        their class scores ``(N, M, K)``.
        """
        ((_, crop),) = self._crops(inputs, metas, 'whole')
        assert isinstance(crop, MaskSums)  # as score_kind says
        return crop.masks, crop.found.class_scores

    def predict(
        self, inputs: Tensor, data_samples: SampleList | None = None
    ) -> SampleList:
        """Return samples with ``pred_sem_seg`` ``(1, H, W)`` at original size.

        ``seg_logits`` ``(K, H, W)`` holds the scores unless
        ``test_cfg.return_scores=False``, which makes the same label maps without ever
        holding the scores of all classes; ``'groups'`` adds ``group_best`` with
        ``scores`` and ``classes`` ``(2, H, W)`` of the best seen and the best unseen
        class.
        """
        metas, options = _metas(inputs, data_samples), self._inference_options
        if options.mask_sums == 'original':
            streams = self._original_streams(inputs, metas)
        else:
            crops = self._crops(inputs, metas, options.mode)
            stream = stream_scores(crops, (inputs.shape[2], inputs.shape[3]))
            streams = self._streams(stream, metas)
        pixels = None
        if len(self.post_processors):
            pixels = input_image(inputs, metas, self.data_preprocessor).pixels
        returned = options.return_scores
        return self._write(
            streams, len(self.class_names), metas, data_samples, returned, pixels
        )

    def postprocess_result(
        self, seg_logits: Tensor, data_samples: SampleList | None = None
    ) -> SampleList:
        """Put scores ``(N, K, H, W)`` at input size into samples, as predictions are.

        ``seg_logits`` ``(K, H, W)`` and ``pred_sem_seg`` ``(1, H, W)`` long are at
        original size, which is the input size without ``data_samples``. With one class
        the latter is the mask ``score >= score_thr``.
        """
        if len(self.post_processors):
            raise ValueError('post_processors need the image: call predict')
        metas = _metas(seg_logits, data_samples)
        num_classes, size = seg_logits.shape[1], self._inference_options.class_chunk
        chunks = [slice(first, first + size) for first in range(0, num_classes, size)]
        stream = [(classes, seg_logits[:, classes]) for classes in chunks]
        streams = self._streams(stream, metas)
        return self._write(streams, num_classes, metas, data_samples, True)

    def _streams(
        self,
        stream: Iterable[tuple[slice, Tensor]],
        metas: Sequence[Mapping[str, Any]],
    ) -> Iterator[tuple[int, slice, Tensor]]:
        """Yield image, classes and scores ``(K', H, W)`` at original size.

        ``stream`` has slices of the classes, and their scores at input size.
        """
        for classes, scores in stream:
            for image, meta in enumerate(metas):
                own = scores[image : image + 1]
                yield image, classes, to_original(own, meta, self.align_corners)[0]

    def _original_streams(
        self, inputs: Tensor, metas: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[int, slice, Tensor]]:
        """Yield the same of masks that are resized to original size and summed there.

        One image after the other, as their sizes differ.
        """
        run = self._run(inputs, metas, [None])
        token, align = run.global_token, self.align_corners
        height, width = run.crop

        def at_original(maps: Tensor, meta: Mapping[str, Any]) -> Tensor:
            if not maps.shape[1]:  # which torch does not resize
                blank = maps.new_zeros(1, 1, height, width)
                return to_original(blank, meta, align)[:, :0]
            full = resize_maps(maps.float(), run.covered, align)
            return to_original(full[..., :height, :width], meta, align)

        for image, meta in enumerate(metas):
            found = run.found.split(1)[image]
            masks, fallback = at_original(found.masks, meta), found.fallback
            if fallback is not None:
                fallback = at_original(fallback, meta)
            found = replace(found, masks=masks, fallback=fallback)
            size: Size = (masks.shape[2], masks.shape[3])
            own_token = None if token is None else token[image : image + 1]
            sums = MaskSums(found, run.queries, own_token, size, size, run.rule)
            for classes in sums.chunks():
                yield image, classes, sums(classes)[0]

    def _write(
        self,
        streams: Iterable[tuple[int, slice, Tensor]],
        num_classes: int,
        metas: Sequence[Mapping[str, Any]],
        data_samples: SampleList | None,
        return_scores: bool | str,
        pixels: Tensor | None = None,
    ) -> SampleList:
        """Put what is kept of the scores of images into samples.

        ``streams`` yields images and their scores, see :meth:`_streams`; ``pixels``
        ``(N, 3, H, W)`` are the images for post-processors.
        """
        seen_mask = None
        if return_scores == GROUPS:
            seen_mask = self.current_queries().seen_mask
        kept = num_classes if return_scores is True else 0
        results = [ImageResult(kept, seen_mask) for _ in metas]
        for image, classes, scores in streams:
            results[image].update(scores, classes)
        samples = data_samples or [SegDataSample() for _ in metas]
        rule, own_pixels = self.label_rule, None
        for image, result in enumerate(results):
            if pixels is not None:
                own_pixels = to_original(
                    pixels[image : image + 1], metas[image], self.align_corners
                )[0]
            result.write(samples[image], rule, self.post_processors, own_pixels)
        return samples

    def _crops(
        self, inputs: Tensor, metas: Sequence[Mapping[str, Any]], mode: str
    ) -> list[tuple[Window | None, CropScores]]:
        """Run the network over the images, or over windows of them.

        The first half of the one road from images to scores. It runs over some windows
        of all images at a time; None is the whole image.
        """
        options, size = self._inference_options, (inputs.shape[2], inputs.shape[3])
        windows: list[Window | None] = [None]
        if mode == 'slide':
            assert options.crop_size is not None  # checked in from_cfg
            assert options.stride is not None
            windows = [*slide_windows(size, options.crop_size, options.stride)]
        batch = options.slide_batch_size or (1 if inputs.is_cpu else 16)
        at_once = max(batch // len(inputs), 1)
        crops: list[tuple[Window | None, CropScores]] = []
        for start in range(0, len(windows), at_once):
            group = windows[start : start + at_once]
            crops += zip(group, self._crop_scores(inputs, metas, group), strict=True)
        return crops

    def _crop_scores(
        self,
        inputs: Tensor,
        metas: Sequence[Mapping[str, Any]],
        windows: Sequence[Window | None],
    ) -> list[CropScores]:
        """Run the network over some windows of all images."""
        run = self._run(inputs, metas, windows)
        parts = run.found.split(len(metas))
        token = run.global_token
        tokens = [None] * len(parts) if token is None else token.split(len(metas))
        kind: Any = MaskSums if isinstance(run.found, MaskScores) else LogitScores
        return [
            kind(part, run.queries, its_token, run.crop, run.covered, run.rule)
            for part, its_token in zip(parts, tokens, strict=True)
        ]

    def _run(
        self,
        inputs: Tensor,
        metas: Sequence[Mapping[str, Any]],
        windows: Sequence[Window | None],
    ) -> HeadRun:
        """Run backbone and head over some windows of all images."""
        crops = inputs
        if windows[0] is not None:
            crops = torch.cat([window_of(inputs, window) for window in windows])
        crop: Size = (crops.shape[2], crops.shape[3])
        covered = covered_size(self.backbone, crop)
        queries = self.current_queries()
        maps, given = self._features(crops, queries, metas, windows, inputs)
        # mmseg's heads resize to img_shape, which as a torch.Size is a crop's.
        whole = dict(img_shape=torch.Size(covered))
        repeated = [{**m, **whole} for m in metas] * len(windows)
        found = self._head_scores(maps, repeated, given)
        rule = self._scoring_rule()
        return HeadRun(found, queries, given['global_token'], crop, covered, rule)

    def traced_scores(self, inputs: Tensor, queries: ClassQueries) -> Tensor:
        """Return what ``encode_decode`` does, for rows that are given with the call.

        For ``torch.export``, which follows it with any number of images and classes,
        each of which has one row.
        """
        size: Size = (inputs.shape[2], inputs.shape[3])
        covered = covered_size(self.backbone, size)
        maps, given = self._features(inputs, queries)
        found = self._head_scores(maps, [dict(img_shape=covered)], given)
        kind: Any = MaskSums if isinstance(found, MaskScores) else LogitScores
        token = given['global_token']
        crop = kind(found, queries, token, size, covered, self._scoring_rule())
        return crop(ALL)

    def _scoring_rule(self) -> ScoringRule:
        options = self._inference_options
        return ScoringRule(
            score_kind=self.score_kind,
            query_reduce=getattr(self.decode_head, 'query_reduce', 'max'),
            calibrators=tuple(self.calibrators),
            mask_size=options.mask_size,
            align_corners=self.align_corners,
            class_chunk=options.class_chunk,
        )

    def _head_scores(
        self, maps: Any, metas: list[dict], given: dict
    ) -> Tensor | MaskScores | GatedLogits:
        """Return the head's logits, ``(N, Q or K, h, w)``, or its masks."""
        head, queries = self.decode_head, given['queries']
        # The predict of our base is query_logits with synonyms reduced too early.
        predicts = getattr(type(head), 'predict', None) is not ZeroShotHead.predict
        if hasattr(head, 'query_logits') and not (
            predicts and isinstance(head, ZeroShotHead)
        ):
            found = call_with(head.query_logits, maps, **given)
        else:
            found = call_with(head.predict, maps, metas, self.test_cfg, **given)
        if isinstance(found, MaskScores) != (self.score_kind == MASK_SUM):
            raise ValueError(
                f'{type(head).__name__}.score_kind is {self.score_kind!r} and it '
                f'returned {type(found).__name__}: {MASK_SUM!r} and MaskScores belong '
                'together'
            )
        if (
            isinstance(found, MaskScores)
            or self._reads_queries
            or found.shape[1] == queries.num_classes
        ):
            return found
        spread = found.new_full(
            (len(found), queries.num_classes, *found.shape[2:]), UNTRAINED
        )
        spread[:, self._trained_indices] = found
        return spread

    @torch.no_grad()
    def fit_calibrators(self, dataset: Any) -> None:
        """Let calibrators with ``fit`` learn from images, without their labels.

        Each of them, in order, gets :class:`~.inference.CalibrationData`, and keeps
        what it learns in buffers, which are saved with the model. Results are
        transductive from then on, as the images stand for those of the test.

        Args:
            dataset: of samples as test pipelines make them. Of test-time augmentation
                every view counts as an image, as the constants that are learned are
                added to the logits of every view before their scores are averaged.

        Raises:
            ValueError: if no calibrator has ``fit``.
        """
        fitted: list[Any] = [c for c in self.calibrators if hasattr(c, 'fit')]
        if not fitted:
            raise ValueError('fit_calibrators: no calibrator of this model has fit')
        training, every = self.training, self.calibrators
        self.eval()
        try:
            for calibrator in fitted:
                # Those that run after it do not count, and may not be fitted yet.
                self.calibrators = _running_before(calibrator, every)
                crops = partial(self._crops_of, dataset)
                queries = self.current_queries()
                calibrator.fit(CalibrationData(calibrator, queries, crops))
        finally:
            self.calibrators = every
            self.train(training)
        print_log(
            f'{", ".join(type(c).__name__ for c in fitted)} learned from '
            f'{len(dataset)} images: results are transductive.',
            logger='current',
            level=logging.WARNING,
        )

    def _crops_of(self, dataset: Any) -> Iterator[CropScores]:
        """Yield the scores of the crops of a data set's images, in all their views."""
        for index in range(len(dataset)):
            for view in _views(dataset[index]):
                data = self.data_preprocessor(pseudo_collate([view]), False)
                metas = [sample.metainfo for sample in data['data_samples']]
                for _, crop in self._crops(
                    data['inputs'], metas, self._inference_options.mode
                ):
                    yield crop

    # -- training ------------------------------------------------------------------

    def loss(self, inputs: Tensor, data_samples: SampleList) -> dict[str, Tensor]:
        """Return the losses of a batch.

        Args:
            inputs: ``(N, 3, H, W)``.
            data_samples: with ``gt_sem_seg`` in indices of ``split.classes``; they are
                not changed.

        Raises:
            ValueError: if labels mean nothing, or are to be filled in and the head
                cannot do that.
        """
        metas = _metas(inputs, data_samples)
        maps, given = self._features(inputs, self.training_queries(), metas)
        classes = self._covered_labels(inputs, data_samples)
        labels = self._to_rows(classes)
        fills = self.vocabulary.training_setting == 'transductive'
        fills = fills and self.pseudo_labels
        if fills:
            self._require_pseudo_labels()
        given['unseen_pixels'] = unseen = classes == self._special.unlabelled
        given |= dict(split=self.split, encode=self._encoded)
        if not fills:
            labels = labels.masked_fill(unseen, self._special.ignore)
        losses: dict[str, Tensor] = {}
        for name, head in self._named_heads():
            outputs = self._training_outputs(head, maps, given)
            if fills and head is self.decode_head:
                if self.unlabelled_loss is None:
                    labels = self._fill_unlabelled(inputs, metas, outputs, labels)
                else:
                    losses['loss_unlabelled'] = self.unlabelled_loss(
                        head.class_logits(outputs),
                        labels,
                        seen_mask=given['queries'].seen_mask,
                        unlabelled_index=self._special.unlabelled,
                        align_corners=self.align_corners,
                    )
                    unknown = labels == self._special.unlabelled
                    labels = labels.masked_fill(unknown, self._special.ignore)
            whole = name in self._whole_heads
            own_labels = labels
            if whole:
                own_labels = self._to_classes(classes)
                own_labels = own_labels.masked_fill(unseen, self._special.ignore)
            samples = with_labels(data_samples, own_labels)
            own = self._losses_by_feat(head, maps, outputs, samples, given)
            losses |= add_prefix(own, _loss_prefix(name))
        return losses

    def loss_divisors(
        self, inputs: Tensor, data_samples: SampleList
    ) -> dict[str, Divisor]:
        """Return what the losses of a batch are divided by, by their names.

        Only for what :meth:`require_divisors` accepts. Arguments as in :meth:`loss`.
        """
        classes = self._covered_labels(inputs, data_samples)
        unseen = classes == self._special.unlabelled
        found: dict[str, Divisor] = {}
        if self.unlabelled_loss is not None:
            found['loss_unlabelled'] = Divisor(unseen.sum())
        for name, head in self._named_heads():
            whole = name in self._whole_heads
            labels = (self._to_classes if whole else self._to_rows)(classes)
            labels = labels.masked_fill(unseen, self._special.ignore)
            own = head_divisors(head, with_labels(data_samples, labels))
            found |= add_prefix(own, _loss_prefix(name))
        return found

    def require_divisors(self) -> None:
        """Check that labels alone tell what all losses are divided by.

        Raises:
            ConfigError: if a head does not say it, or pixels get their labels from what
                is predicted.
        """
        fills = self.setting == 'transductive' and self.pseudo_labels
        if fills and self.unlabelled_loss is None:
            raise ConfigError(
                "model.setting='transductive': how many pixels a loss is divided by "
                'depends on pseudo-labels, which are made image by image. Set '
                "train_cfg.normalise_by='batch'"
            )
        for name, head in self._named_heads():
            require_head_divisors(name, head)

    def _encoded(self, words: Sequence[str]) -> Tensor:
        """Return a row for each word, ``(W, D)``, made as those of the classes are."""
        device, dtype = self._device_and_dtype()
        if self.vocabulary.prompts_per_row > 1:
            raise ConfigError(
                f'{type(self.decode_head).__name__} reads one row of a word, and '
                f'model.class_embeddings makes {self.vocabulary.prompts_per_row}: let '
                'it average the prompts'
            )
        rows = self.vocabulary.rows_of(words, device)
        return torch.cat([row.embeddings for row in rows]).to(device, dtype)

    def _training_outputs(self, head: Any, maps: Any, given: dict) -> Any:
        """Return what losses and pseudo-labels are made of; None for mmseg's heads."""
        if not hasattr(head, 'training_outputs'):
            return None
        return call_with(head.training_outputs, maps, train_cfg=self.train_cfg, **given)

    def _losses_by_feat(
        self, head: Any, maps: Any, outputs: Any, samples: SampleList, given: dict
    ) -> dict[str, Tensor]:
        """Return a head's losses; mmseg's heads have only ``loss`` for it."""
        if not hasattr(head, 'training_outputs'):
            return call_with(head.loss, maps, samples, self.train_cfg, **given)
        given = given | dict(train_cfg=self.train_cfg)
        return call_with(head.loss_by_feat, outputs, samples, **given)

    def _covered_labels(self, inputs: Tensor, data_samples: SampleList) -> Tensor:
        """Return the labels of all that the backbone's maps stand for, (N, H, W).

        Maps of a backbone that fills an image up to whole patches stand for more than
        the image; stretched over its labels they would be off by up to half a patch. So
        ignored pixels are put at the bottom and right.
        """
        maps = []
        for sample in data_samples:
            if 'gt_sem_seg' not in sample:
                path = sample.metainfo.get('img_path', 'a training sample')
                raise ValueError(
                    f'{path} has no gt_sem_seg: training pipelines need LoadAnnotations'
                )
            maps.append(sample.gt_sem_seg.data)
        labels = torch.cat(maps)  # (N, H, W)
        height, width = labels.shape[-2:]
        covered = covered_size(self.backbone, (inputs.shape[2], inputs.shape[3]))
        missing = (0, covered[1] - width, 0, covered[0] - height)
        return F.pad(labels, missing, value=self._special.ignore)

    # -- pseudo-labels -------------------------------------------------------------

    @property
    def understands_unlabelled(self) -> bool:
        """Whether unlabelled pixels of transductive training can be used."""
        return self.setting == 'transductive' and all(
            hasattr(self.decode_head, name) for name in _METHODS
        )

    def train_as(self, setting: str) -> None:
        """Train by the rules of another setting from now on.

        Transductive training may begin inductively: only seen rows are used, and
        unlabelled pixels are ignored. What is tested and saved stays the same.

        Args:
            setting: ``'inductive'`` or ``'transductive'``.

        Raises:
            ValueError: if the model's own setting is not transductive.
        """
        if self.setting != 'transductive' or setting not in SWITCHABLE:
            raise ValueError(
                f'a model with setting={self.setting!r} cannot be trained as '
                f"{setting!r}: expected setting='transductive' and one of {SWITCHABLE}"
            )
        self.vocabulary.train_as(setting)
        self._init_label_mappings()

    def set_teacher(self, teacher: ZeroShotEncoderDecoder | None) -> None:
        """Let another segmentor of this kind make the pseudo-labels; None: this one.

        The teacher becomes no part of this module: it is neither moved nor saved nor
        trained with it.
        """
        # A tuple, because a module in an attribute would be registered.
        self._teacher = () if teacher is None else (teacher,)

    def _require_pseudo_labels(self) -> None:
        if not self.understands_unlabelled:
            raise ValueError(
                f'{type(self.decode_head).__name__} cannot fill unlabelled pixels, '
                "which setting='transductive' is about: use a head with "
                f'{" and ".join(_METHODS)}, or another setting'
            )

    @torch.no_grad()
    def _fill_unlabelled(
        self, inputs: Tensor, metas: list[dict], outputs: Any, labels: Tensor
    ) -> Tensor:
        """Return labels ``(N, H, W)``, indices of rows, with pseudo-labels.

        They are made from ``outputs``, the training outputs of this model's head,
        unless there is a teacher.
        """
        head, queries = self.decode_head, self.training_queries()
        for teacher in self._teacher:
            head = teacher.decode_head
            maps, given = teacher._features(inputs, queries, metas)
            outputs = self._training_outputs(head, maps, given)
        return head.resolve_unlabelled(
            outputs,
            labels,
            queries=queries,
            unlabelled_index=self._special.unlabelled,
            threshold=self.pseudo_label_threshold,
        )
